import re

import numpy as np
import pandas as pd
import pytest
from report_factory import STEPS, TITLES, report_settings
from test_budgets import TWO_SEEDS, runs
from test_figures import labelled, legend_texts, overlaps

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


def test_bold_gains_exclude_zero(results, tmp_path):
    table, _ = made(results(arms=ALL), tmp_path)
    gains = re.findall(r"(\*\*)?[+-][\d.]+(?:\*\*)? \[(-?[\d.]+), (-?[\d.]+)\]", table.markdown)
    assert len(gains) == 4 * (len(ALL) - 1) and {bool(bold) for bold, _, _ in gains} == {True, False}
    for bold, low, high in gains:
        assert (float(low) > 0 or float(high) < 0) >= bool(bold)  # 0.0 may be 0.04, rounded
        assert bool(bold) >= (float(low) > 0 or float(high) < 0)


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
    for said in ("last at or before the budget", "Student's t over 3 seeds", "of 4 gains, one in twenty"):
        assert said in text
    alone = made(results(seeds=(0,)), tmp_path)[0].markdown
    assert "none: there is one training seed" in alone and "[n/a]" in alone


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
    np.testing.assert_allclose(points, [[0, 10], [0, -40], [0, 5]])
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
