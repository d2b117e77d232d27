import re

import numpy as np
import pandas as pd
import pytest
from by_hand import TWO_SEEDS, labelled, legend_texts, overlaps, runs
from report_factory import STEPS, TITLES, report_settings

from eval.report.arms import arms_figure, arms_table, trigger_text
from eval.report.collect import collect
from eval.report.tables import accuracy

ALL = ("grpo", *[arm for arm in TITLES if arm not in ("grpo", "sfpo")], "sfpo")


def made(settings, root):
    found = collect(settings, root)
    return arms_table(found.scores, found.validation, found.metrics, found.summaries, settings), found


@pytest.mark.parametrize("arms", [("grpo",), ("grpo", "sfpo"), ALL])
def test_one_row_an_arm(results, tmp_path, arms):
    settings = results(arms=arms)
    table, _ = made(settings, tmp_path)
    rows = [line for line in table.markdown.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [TITLES[arm] for arm in arms]
    assert len({len(row) for row in rows}) == 1
    in_latex = [line for line in table.latex.splitlines() if line.endswith(r"\\[2pt]") and "multicolumn" not in line]
    assert len(in_latex) == len(arms) and {line.count("&") for line in in_latex} == {9}
    assert len(table.frame) == 4 * len(arms)


def test_the_numbers_are_those_of_table1_and_of_the_runs(results, tmp_path):
    settings = results()
    table, found = made(settings, tmp_path)
    frame = table.frame.set_index(["measure", "arm"])
    first = accuracy(found.scores, settings).frame.set_index("arm")
    assert frame.loc[("test", "sfpo"), "accuracy"] == first.loc["sfpo", "average"]
    assert frame.loc[("test", "sfpo"), "accuracy_gain_low"] == first.loc["sfpo-grpo", "average_low"]
    # The factory's GRPO takes one pass a step and ends at step 60, SFPO four: at 60 passes it is at step 15.
    at_step = found.validation.set_index(["arm", "step"])["accuracy"].groupby(level=[0, 1]).mean()
    assert frame.loc[("backward_passes", "sfpo"), "accuracy"] == pytest.approx(100 * at_step["sfpo", 15])
    assert frame.loc[("rollouts", "sfpo"), "accuracy"] == pytest.approx(100 * at_step["sfpo", STEPS])
    cells = next(line for line in table.markdown.splitlines() if line.startswith("| SFPO")).split("|")
    assert f"{100 * at_step['sfpo', 15]:.1f} [" in cells[6] and f"{100 * at_step['sfpo', STEPS]:.1f} [" in cells[4]
    assert "equal budgets: 15,360 rollouts, 60 backward passes, 78.0 s of training" in table.markdown


def test_bold_gains_differ_from_zero_after_correction(results, tmp_path):
    settings = results(arms=("grpo", "gxpo", "sfpo"))
    found = collect(settings, tmp_path)
    # SFPO 20 points above GRPO, GXPO 2 points, whatever is spent; one point up or down by seed (0, +1, -1) of either.
    gains, wobble = {"grpo": 0.0, "gxpo": 0.02, "sfpo": 0.2}, {0: 0.0, 1: 0.01, 2: -0.01}
    moved = 0.3 + found.validation["arm"].map(gains) * (1 + found.validation["seed"].map(wobble) * 30 / 20)
    table = arms_table(found.scores, found.validation.assign(accuracy=moved), found.metrics, found.summaries, settings)
    # SFPO: gains 20, 20.3, 19.7: t = 20 / (0.3 / sqrt(3)) = 115, p of t(2) 7.5e-5; GXPO the same t: all six are below 5%.
    frame = table.frame[table.frame["arm"] != "grpo"]
    of_validation = frame[frame["measure"] != "test"]
    assert of_validation["accuracy_gain_p"].to_numpy() == pytest.approx(7.5e-5, rel=0.01)
    assert of_validation["p_holm"].max() == pytest.approx(8 * 7.5e-5, rel=0.01)  # eight gains: these come first
    bold = re.findall(r"\*\*([+-][\d.]+)\*\* \[", table.markdown)
    assert (
        bold.count("+20.0") == bold.count("+2.0") == 3
        and len(bold) == 6 + (frame[frame["measure"] == "test"]["p_holm"] < 0.05).sum()
    )


def test_when_the_trigger_fired():
    steps = pd.DataFrame({"trigger_fired_at": pd.array([33, pd.NA, 41], dtype="Int64")})
    tested = pd.DataFrame({"entropy_zscore": [np.nan, 0.3]})
    assert trigger_text(tested, steps) == "33, never, 41"
    assert trigger_text(tested.iloc[:1], steps.iloc[1:2]) == "-"  # no entropy was ever tested


def test_triggers_are_those_of_the_summaries(results, tmp_path):
    table, found = made(results(), tmp_path)
    said = table.frame.set_index("arm")["trigger"]
    fired = found.summaries.query("arm == 'sfpo'")["trigger_fired_at"]
    assert set(said["grpo"]) == {"-"} and set(said["sfpo"]) == {", ".join(map(str, fired))}


def test_notes_say_how_it_was_measured(results, tmp_path):
    text = made(results(), tmp_path)[0].markdown
    for said in (
        "interpolated linearly between validations",
        "Student's t over 3 seeds",
        "correction for 4 gains",
        "fixed before the runs",
    ):
        assert said in text
    alone = made(results(seeds=(0,)), tmp_path)[0]
    assert "ONE TRAINING SEED" in alone.markdown and "[n/a]" in alone.markdown and "Bold" not in alone.markdown
    assert alone.frame["p_holm"].isna().all()


def test_figure_by_hand():
    figure, data = arms_figure(runs(TWO_SEEDS), report_settings(seeds=(0, 1)))
    curves, gains = figure.axes[:3], figure.axes[3:]
    assert [axes.get_xlabel() for axes in curves] == ["Rollouts", "Backward passes", "Training time (s)"]
    for axes, costs in zip(curves, ([0, 500, 1000], [0, 20, 40], [0, 15, 30]), strict=True):
        np.testing.assert_allclose(labelled(axes)["SFPO"].get_xdata(), costs)
        np.testing.assert_allclose(labelled(axes)["SFPO"].get_ydata(), [30, 75, 80])
        assert any(set(line.get_ydata()) == {70.0} for line in axes.lines)  # GRPO's final accuracy: (60 + 80) / 2
        assert len(axes.collections) == 2  # a band for each of few arms
    assert {axes.get_ylim() for axes in curves} == {curves[0].get_ylim()}
    assert [axes.get_title() for axes in gains] == ["at 1,000 rollouts", "at 10 backward passes", "at 20.0 s of training"]
    points = [[line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1] for axes in gains]
    np.testing.assert_allclose(points, [[0, 10], [0, -17.5], [0, 20 / 3]])  # as in test_budgets
    assert legend_texts(figure) == ["GRPO", "SFPO", "GRPO's final accuracy", "Equal budget"]
    assert set(data["series"]) == {"accuracy", "equal budget"}


MANY = (("tiny-qwen2", "smollm2-135m"), ALL, (0, 1, 2))


@pytest.mark.parametrize("models, arms, seeds", [(("tiny-qwen2",), ("grpo",), (0,)), MANY])
def test_layout_with_few_and_many(results, tmp_path, models, arms, seeds):
    settings = results(models=models, arms=arms, seeds=seeds)
    figure, _ = arms_figure(collect(settings, tmp_path).validation, settings)
    assert len(figure.axes) == 6 * len(models) and figure.get_figwidth() == 5.5
    assert overlaps(figure) == ([], [])
    if len(arms) > 4:
        axes = figure.axes[0]
        assert len(axes.collections) == 2  # the bands of GRPO and SFPO alone
        thick = {name for name, line in labelled(axes).items() if name in TITLES.values() and line.get_linewidth() > 1}
        assert thick == {"GRPO", "SFPO"}
