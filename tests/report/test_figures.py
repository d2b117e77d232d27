import numpy as np
import pandas as pd
import pytest
from by_hand import RUN, TWO_SEEDS, labelled, legend_texts, overlaps, runs
from matplotlib.colors import to_hex
from report_factory import FIRED, TITLES, report_settings

from eval.report.collect import collect
from eval.report.figures import costs, curves, dynamics, memory
from eval.report.style import looks


def summaries(fired):
    rows = [{**RUN, "arm": arm, "seed": seed, "trigger_fired_at": step} for (arm, seed), step in fired.items()]
    return pd.DataFrame(rows).astype({"trigger_fired_at": "Int64"})


FIRED_BY_HAND = {("grpo", 0): None, ("grpo", 1): None, ("sfpo", 0): 7, ("sfpo", 1): 4}


def test_curves_by_hand():
    figure, data = curves(runs(TWO_SEEDS), summaries(FIRED_BY_HAND), report_settings(seeds=(0, 1)))
    (axes,) = figure.axes
    lines = labelled(axes)
    np.testing.assert_array_equal(lines["GRPO"].get_xdata(), [0, 5, 10])
    np.testing.assert_allclose(lines["GRPO"].get_ydata(), [30, 50, 70])
    np.testing.assert_allclose(lines["SFPO"].get_ydata(), [30, 75, 80])
    band = axes.collections[0].get_paths()[0].vertices  # of the first arm
    assert band[:, 1].min() == 20 and band[:, 1].max() == pytest.approx(80)
    base = next(line for line in axes.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2)
    assert base.get_ydata()[0] == pytest.approx(30)  # mean at step 0 of 40, 20, 40, 20
    ticks = [line for line in axes.lines if line.get_marker() == "|"]
    assert [list(line.get_xdata()) for line in ticks] == [[7, 4]]
    assert legend_texts(figure) == ["GRPO", "SFPO", "Base", "Entropy trigger (one seed)"]
    assert figure.legends[0].get_title().get_text() == "Lines: mean of 2 seeds; bands: lowest to highest seed"
    assert axes.get_ylabel() == "Validation accuracy (%)" and axes.get_xlabel() == "Step" and axes.get_title() == "tiny-qwen2"
    assert sorted(data.query("series == 'trigger'")["step"]) == [4, 7]
    assert data.query("series == 'base'")["mean"].item() == pytest.approx(30)
    np.testing.assert_allclose(data.query("series == 'accuracy' and arm == 'grpo'")["low"], [20, 50, 60])


def test_curves_without_triggers_and_with_one_seed():
    one = {key: values for key, values in TWO_SEEDS.items() if key[1] == 0}
    figure, data = curves(runs(one), summaries({("grpo", 0): None, ("sfpo", 0): None}), report_settings(seeds=(0,)))
    assert "trigger" not in set(data["series"]) and legend_texts(figure) == ["GRPO", "SFPO", "Base"]
    assert not figure.axes[0].collections  # no band
    assert figure.legends[0].get_title().get_text() == "One training seed: these are single runs, not methods"


def test_trigger_ticks_lie_below_the_curves():
    figure, _ = curves(runs(TWO_SEEDS), summaries(FIRED_BY_HAND), report_settings(seeds=(0, 1)))
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    (ticks,) = (line for line in axes.lines if line.get_marker() == "|")
    assert low + max(ticks.get_ydata()) * (high - low) < 20  # the lowest seed


def metrics(values):
    rows = [
        {**RUN, "arm": arm, "seed": seed, "step": step, "response_length": 10 * v, "entropy": v / 10, "reward": v}
        for (arm, seed), series in values.items()
        for step, v in enumerate(series, start=1)
    ]
    return pd.DataFrame(rows)


def test_dynamics_by_hand():
    values = {("grpo", 0): [1.0, 2.0], ("grpo", 1): [3.0, 6.0], ("sfpo", 0): [2.0, 2.0], ("sfpo", 1): [4.0, 6.0]}
    figure, data = dynamics(metrics(values), report_settings(seeds=(0, 1)))
    assert [axes.get_title() for axes in figure.axes] == ["Response length (tokens)", "Entropy (nats per token)", "Mean reward"]
    np.testing.assert_allclose(labelled(figure.axes[0])["GRPO"].get_ydata(), [20, 40])
    np.testing.assert_allclose(labelled(figure.axes[1])["SFPO"].get_ydata(), [0.3, 0.4])
    np.testing.assert_allclose(labelled(figure.axes[2])["GRPO"].get_ydata(), [2, 4])
    reward = data.query("arm == 'grpo' and measure == 'reward'")
    assert list(reward["low"]) == [1, 2] and list(reward["high"]) == [3, 6] and set(reward["n_seeds"]) == {2}
    assert legend_texts(figure) == ["GRPO", "SFPO"]


def test_dynamics_smooths_each_seed_and_says_so():
    # 60 steps: a window of 3. A 3 at step 30 alone gives 1 at steps 29 to 31; at the ends two steps are averaged: (4 + 0) / 2.
    spike = [0.0] * 60
    spike[29], spike[0] = 3.0, 4.0
    values = {("grpo", 0): spike, ("sfpo", 0): [0.0] * 60}
    figure, data = dynamics(metrics(values), report_settings(seeds=(0,)))
    drawn = labelled(figure.axes[2])["GRPO"].get_ydata()
    np.testing.assert_allclose(drawn[27:32], [0, 1, 1, 1, 0], atol=1e-12)
    assert drawn[0] == pytest.approx(2)
    np.testing.assert_allclose(labelled(figure.axes[2])["SFPO"].get_ydata(), 0)  # nothing leaks from arm to arm
    assert "moving average over 3 steps" in figure.legends[0].get_title().get_text()
    np.testing.assert_allclose(data.query("arm == 'grpo' and measure == 'reward'")["mean"], drawn)


def test_costs_bars_and_marks():
    # GRPO's mean curve is 30, 50, 70: the level is 70, at step 10. SFPO's is 30, 75, 80: it crosses 70 at 40/45 of 5 steps,
    # 4.444. GRPO over SFPO: 1000 / 444.4, 20 / 13.33, 10 / 17.78. Alone, GRPO's seed 0 ends at 60, at step 10; seed 1 crosses
    # at 5 + 5 * 20/30 = 8.333; SFPO's seed 0 at 5; its seed 1, monotone 20, 75, 75, at 5 * 50/55 = 4.545.
    figure, data = costs(runs(TWO_SEEDS), report_settings(seeds=(0, 1)))
    assert [axes.get_xlabel() for axes in figure.axes] == ["Rollouts", "Training time (s)", "Backward passes"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    np.testing.assert_allclose(widths, [[1000, 444.44], [20, 13.333], [10, 17.778]], rtol=1e-4)
    marks = [(line.get_marker(), line.get_xdata()[0]) for line in figure.axes[0].lines]
    assert [mark for mark, _ in marks] == [">", "o", "o", "o"]
    assert [place for _, place in marks] == pytest.approx([1000, 833.33, 500, 454.55], abs=0.01)
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["1 of 2", "2.25×"], ["1 of 2", "1.50×"], ["1 of 2", "0.56×"]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["GRPO", "SFPO"]
    assert figure.axes[1].get_title() == "tiny-qwen2: to 70.0% validation accuracy"
    assert len(legend_texts(figure)) == 2
    seeds = data.query("series == 'seed' and arm == 'grpo' and measure == 'rollouts'")
    assert list(seeds["cost"]) == pytest.approx([1000, 833.33], abs=0.01) and list(seeds["reached"]) == [False, True]
    means = data.query("series == 'mean' and arm == 'sfpo'").set_index("measure")
    assert means["ratio"].to_dict() == pytest.approx({"rollouts": 2.25, "backward_passes": 0.5625, "seconds": 1.5})
    assert set(data["target"]) == {"GRPO's best"} and data.query("series == 'mean'")["level"].to_numpy() == pytest.approx(70)


def test_the_bar_of_an_arm_that_does_not_reach_the_target_is_pale_and_has_no_ratio():
    # SFPO's mean curve is 30, 65, 60: monotone 30, 62.5, 62.5, below 70. Seed 1 alone, monotone 20, 75, 75, gets there.
    figure, data = costs(runs({**TWO_SEEDS, ("sfpo", 0): [0.4, 0.5, 0.5]}), report_settings(seeds=(0, 1)))
    grpo, sfpo = figure.axes[0].patches
    assert sfpo.get_width() == 1000 and (grpo.get_alpha(), sfpo.get_alpha()) == (0.75, 0.25)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 of 2", "?\n1 of 2"]
    assert data.query("series == 'mean' and arm == 'sfpo'")[["cost", "ratio"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "grpo, sfpo, label",
    [
        ([0.2, 0.4, 0.6], [0.2, 0.6, 0.6], "2.00×"),
        ([0.2, 0.4, 0.6], [0.2, 0.4, 0.5], "?\n0 of 1"),
        ([0.2, 0.6, 0.5], [0.6, 0.2, 0.2], "?\n0 of 1"),  # luck before training: monotone, 0.33 throughout
    ],
)
def test_one_seed_has_numbers_and_no_words(grpo, sfpo, label):
    figure, _ = costs(runs({("grpo", 0): grpo, ("sfpo", 0): sfpo}), report_settings(seeds=(0,)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["", label]
    title = figure.legends[0].get_title().get_text()
    assert title.startswith("One training seed: these are single runs, not methods") and "bold" not in title


def test_costs_in_hours():
    slow = runs(TWO_SEEDS).assign(seconds=lambda frame: frame["seconds"] * 1000)
    figure, data = costs(slow, report_settings(seeds=(0, 1)))
    assert figure.axes[1].get_xlabel() == "Training time (h)"
    assert figure.axes[1].patches[0].get_width() == pytest.approx(20_000 / 3600)
    of_grpo = data.query("series == 'mean' and arm == 'grpo' and measure == 'seconds'")
    assert of_grpo["cost"].to_numpy() == pytest.approx(20_000)  # still seconds


@pytest.mark.parametrize("models, arms", [(("tiny-qwen2",), ("grpo", "sfpo")), (("tiny-qwen2", "smollm2-135m"), tuple(TITLES))])
def test_layout_with_few_and_many(results, tmp_path, models, arms):
    settings = results(models=models, arms=arms)
    found = collect(settings, tmp_path)
    drawn = [
        curves(found.validation, found.summaries, settings),
        dynamics(found.metrics, settings),
        costs(found.validation, settings),
    ]
    assert [len(figure.axes) for figure, _ in drawn] == [len(models), 3 * len(models), 3 * len(models)]
    for figure, _ in drawn:
        assert figure.get_figwidth() == 5.5
        assert overlaps(figure) == ([], [])
    assert set(legend_texts(drawn[0][0])) >= {TITLES[arm] for arm in arms}
    assert drawn[0][1].query("series == 'trigger'")["step"].between(FIRED - 4, FIRED + 12).all()


def test_an_arm_looks_the_same_in_every_figure(results, tmp_path):
    settings = results(arms=tuple(TITLES))
    found = collect(settings, tmp_path)
    look = looks(settings.arms)
    second, third = curves(found.validation, found.summaries, settings)[0], dynamics(found.metrics, settings)[0]
    for arm in settings.arms:
        for figure in (second, third):
            line = labelled(figure.axes[0])[TITLES[arm]]
            assert (line.get_color(), line.get_marker(), line.get_linestyle()) == look[arm][1:]
    bars = costs(found.validation, settings)[0].axes[0].patches
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [look[arm].color.lower() for arm in settings.arms]


def test_many_arms_stay_apart():
    many = looks({f"arm{i}": f"Arm {i}" for i in range(16)})
    assert len({look[1:] for look in many.values()}) == 16
    assert len({(look.color, look.marker) for look in many.values()}) == 16  # lines alone are hard to tell apart


def test_sfpo_looks_the_same_in_every_suite():
    late = looks({"grpo": "GRPO", "gxpo": "GXPO", "sfpo": "SFPO"})
    assert list(late) == ["grpo", "gxpo", "sfpo"]
    assert late["sfpo"] == looks({"grpo": "GRPO", "sfpo": "SFPO"})["sfpo"]


def test_many_arms_have_bands_only_for_the_first_and_sfpo(results, tmp_path):
    settings = results(arms=("grpo", "gxpo", "grpo_k", "lookahead", "sfpo"))
    found = collect(settings, tmp_path)
    for figure, _ in (curves(found.validation, found.summaries, settings), dynamics(found.metrics, settings)):
        assert len(figure.axes[0].collections) == 2
        assert "bands (only GRPO and SFPO): lowest to highest seed" in figure.legends[0].get_title().get_text()


def test_trigger_ticks_leave_most_of_the_panel_to_the_curves(results, tmp_path):
    settings = results(arms=tuple(TITLES))
    found = collect(settings, tmp_path)
    axes = curves(found.validation, found.summaries, settings)[0].axes[0]
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "|"]
    assert len(set(heights)) == 8 and max(heights) < 0.35  # every other of 16 arms has a trigger


def test_memory_by_hand():
    # Two seeds of each arm; the highest of each run counts: GRPO 1 and 3 GiB, SFPO 3 and 3: 3 / 2 = 1.5 times GRPO.
    peaks = {("grpo", 0): [512, 1024], ("grpo", 1): [3072, 3072], ("sfpo", 0): [3072, 100], ("sfpo", 1): [1024, 3072]}
    rows = [
        {"model": "tiny-qwen2", "dataset": "arithmetic", "arm": arm, "seed": seed, "peak_memory_mb": value}
        for (arm, seed), values in peaks.items()
        for value in values
    ]
    figure, data = memory(pd.DataFrame(rows), report_settings(seeds=(0, 1), shows="memory"))
    assert list(data["gib"]) == [1.0, 3.0, 3.0, 3.0] and list(data["ratio"]) == [1.0, 1.0, 1.5, 1.5]
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [2.0, 3.0]
    assert [text.get_text() for text in axes.texts] == ["", "1.50×"]


def test_the_title_of_an_item_stands_over_its_curves():
    settings = report_settings(seeds=(0, 1)).model_copy(update={"title": "K = 3"})
    figure, _ = curves(runs(TWO_SEEDS), summaries(FIRED_BY_HAND), settings)
    assert figure.legends[0].get_title().get_text() == "K = 3. Lines: mean of 2 seeds; bands: lowest to highest seed"
