import pytest
from by_hand import LATE, THREE_SEEDS, legend_texts, overlaps, runs
from report_factory import TITLES, report_settings

from eval.report.collect import collect
from eval.report.targets import TARGETS, Target
from eval.report.targets_display import targets_figure, targets_table

SIXTY = (Target(0.6, of_gain=False),)


def cells_of(table, arm):
    (line,) = [line for line in table.markdown.splitlines() if line.startswith(f"| {arm} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_an_arm_that_does_not_arrive_is_named_and_its_ratio_is_unknown():
    accuracies = {key: LATE if key[0] == "sfpo" else values for key, values in THREE_SEEDS.items()}
    table = targets_table(runs(accuracies), report_settings(), SIXTY)
    # GRPO's mean curve 0.4, 0.5, 0.5667, 0.6: at step 15, without seeds 0, 1, 2 at 15, 10, 15: 1500 rollouts, with the interval
    # of the ratio in test_targets: exp(1.16305) = 3.19971 either way.
    assert cells_of(table, "GRPO") == [
        "3 of 3",
        "1500.0 [468.8, 4799.5]",
        "-",
        "15.0 [4.7, 48.0]",
        "-",
        "30.0 [9.4, 96.0]",
        "-",
    ]
    assert cells_of(table, "SFPO") == [
        "0 of 3", "not within 2000.0", "unknown", "not within 80.0", "unknown", "not within 60.0", "unknown",
    ]  # fmt: skip
    assert "tiny-qwen2, trained on arithmetic: to 60.0% (60%)" in table.markdown
    for said in ("jackknife over 3 seeds", "stays below the target", "fixed before the runs", "correction for 0 ratios"):
        assert said in table.markdown
    for never in ("at least", "at most"):
        assert never not in table.markdown.replace("at least one", "") and never not in table.latex
    assert list(table.frame["n_reached"]) == [3, 0] * 3


def test_ratios_beyond_chance_after_correction_are_bold_and_large_counts_in_thousands():
    # GRPO's seeds rise by 2 points a validation, SFPO's by 8, all with a little noise: 4 times as fast in rollouts, as fast in
    # passes. Three ratios are tested.
    wobble = [0.0, 0.001, -0.001]
    accuracies = {("grpo", k): [0.4 + 0.02 * i + wobble[k] * (i > 0) for i in range(21)] for k in range(3)}
    accuracies |= {("sfpo", k): [0.4 + 0.08 * i - wobble[k] * (i > 0) for i in range(6)] + [0.8] * 15 for k in range(3)}
    validation = runs(accuracies).assign(rollouts=lambda frame: 100 * frame["rollouts"])
    table = targets_table(validation, report_settings(), SIXTY)
    assert "Rollouts (thousands)" in table.markdown
    assert cells_of(table, "GRPO")[1].startswith("500.0 [")
    _, _, rollouts, _, passes, _, seconds = cells_of(table, "SFPO")
    assert rollouts.startswith("**4.00** [") and seconds.startswith("**2.67** [") and passes.startswith("1.00 [")
    assert r"\mathbf{4.00}" in table.latex and r"\mathbf{1.00}" not in table.latex


def test_one_seed_says_above_what_it_cannot_tell_and_marks_nothing():
    alone = {key: values for key, values in THREE_SEEDS.items() if key[1] == 0}
    table = targets_table(runs(alone), report_settings(seeds=(0,)), SIXTY)
    assert table.markdown.index("ONE TRAINING SEED") < table.markdown.index("| GRPO") and "ONE TRAINING SEED" in table.latex
    assert cells_of(table, "SFPO")[:3] == ["1 of 1", "500.0 [n/a]", "2.00 [n/a]"]
    assert "Holm" not in table.markdown and " p " not in table.markdown and "Bold" not in table.markdown


def test_figure_by_hand():
    accuracies = {**THREE_SEEDS, ("grpo", 0): LATE}
    # GRPO: 0.4, 0.4667, 0.5167, 0.5667, 0.7: monotone; 0.6 at 15 + 5 * 0.0333/0.1333 = 16.25, 0.5 at 5 + 5 * 0.0333/0.05 =
    # 8.333. SFPO: 0.6 at step 5, 0.5 at 2.5.
    figure, data = targets_figure(runs(accuracies), report_settings(), (Target(0.5, of_gain=False), *SIXTY))
    rollouts = figure.axes[0]
    assert [axes.get_xlabel() for axes in figure.axes] == ["Rollouts", "Backward passes", "Training time (s)"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    names = dict(zip(rollouts.get_yticks(), [label.get_text() for label in rollouts.get_yticklabels()], strict=True))
    assert [names[place] for place in sorted(names)] == ["to 50.0%:", "GRPO", "SFPO", "to 60.0%:", "GRPO, 2 of 3", "SFPO"]
    assert rollouts.get_ylim()[0] > rollouts.get_ylim()[1]  # downward
    points = {(line.get_ydata()[0], line.get_marker()): line for line in rollouts.lines if len(line.get_xdata()) == 1}
    assert points[4, "o"].get_xdata()[0] == pytest.approx(1625) and points[5, "s"].get_xdata()[0] == pytest.approx(500)
    late = [line.get_xdata()[0] for line in rollouts.lines if line.get_marker() == ">"]
    assert late == [2000]  # seed 0 alone does not get to 60%
    assert [text.get_text() for text in rollouts.texts] == ["", "3.33×", "", "3.25×"]
    assert legend_texts(figure) == ["Single seed", "Single seed that did not reach it, at its total"]
    assert "To 50%, 60%; points: mean curve of 3 seeds" in figure.legends[0].get_title().get_text()
    assert set(data["series"]) == {"mean", "seed"} and len(data.query("series == 'seed'")) == 2 * 3 * 6


def test_figure_without_arrival_has_no_point_and_no_ratio():
    accuracies = {key: LATE if key[0] == "sfpo" else values for key, values in THREE_SEEDS.items()}
    figure, _ = targets_figure(runs(accuracies), report_settings(), SIXTY)
    assert [text.get_text() for text in figure.axes[0].texts] == ["", "?"]
    assert "?: unknown" in figure.legends[0].get_title().get_text()
    drawn = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert len(drawn) == 1 and drawn[0] != drawn[0]


def test_figure_in_hours_keeps_its_data_in_seconds():
    slow = runs(THREE_SEEDS).assign(seconds=lambda frame: frame["seconds"] * 1000)
    figure, data = targets_figure(slow, report_settings(), (Target(0.5),))
    assert figure.axes[2].get_xlabel() == "Training time (h)"
    assert data.query("series == 'seed' and measure == 'seconds' and arm == 'sfpo'")["cost"].tolist() == [15_000.0] * 3
    (mean,) = [line.get_xdata()[0] for line in figure.axes[2].lines if line.get_marker() == "s"]
    assert mean == pytest.approx(15_000 / 3600)


SIXTEEN = ("grpo", "sfpo", *[arm for arm in TITLES if arm not in ("grpo", "sfpo")])


@pytest.mark.parametrize(
    "models, arms, seeds",
    [
        (("tiny-qwen2",), ("grpo",), (0,)),
        (("tiny-qwen2",), ("grpo", "sfpo"), (0, 1, 2)),
        (("tiny-qwen2", "smollm2-135m"), SIXTEEN, (0, 1, 2)),
    ],
)
def test_layout_with_few_and_many(results, tmp_path, models, arms, seeds):
    settings = results(models=models, arms=arms, seeds=seeds)
    validation = collect(settings, tmp_path).validation
    figure, _ = targets_figure(validation, settings)
    assert len(figure.axes) == 3 * len(models) and figure.get_figwidth() == 5.5
    assert overlaps(figure) == ([], [])
    table = targets_table(validation, settings)
    lines = [line for line in table.markdown.splitlines() if line.startswith("|")]
    assert len(lines) == len(models) * len(TARGETS) * (2 + len(arms)) and len({len(line) for line in lines}) == 1
    in_latex = [line for line in table.latex.splitlines() if line.endswith(r"\\[2pt]") and "multicolumn" not in line]
    assert len(in_latex) == len(models) * len(TARGETS) * len(arms) and {line.count("&") for line in in_latex} == {7}
