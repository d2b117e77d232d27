import pytest
from report_factory import TITLES, report_settings
from test_budgets import runs
from test_figures import legend_texts, overlaps
from test_targets import HALF, LATE, THREE_SEEDS

from eval.report.collect import collect
from eval.report.targets import TARGETS, Target
from eval.report.targets_display import targets_figure, targets_table


def test_table_says_what_arrived_and_what_is_a_bound():
    accuracies = {**THREE_SEEDS, ("grpo", 0): LATE}
    table = targets_table(runs(accuracies), report_settings(), (Target(0.6, of_gain=False),))
    rows = {line.split("|")[1].strip(): line for line in table.markdown.splitlines() if line.startswith("| ")}
    grpo, sfpo = ([cell.strip() for cell in rows[arm].split("|")[2:-1]] for arm in ("GRPO", "SFPO"))
    # GRPO: (2000 * 1500 * 500)^(1/3) = 1144.7 rollouts, a hundredth in passes, a fiftieth in seconds.
    assert grpo == ["2 of 3", "at least 1144.7", "-", "at least 11.4", "-", "at least 22.9", "-"]
    assert sfpo[:3] == ["3 of 3", "500.0 [n/a]", "at least 2.29"] and sfpo[4] == "at least 0.57"
    assert "tiny-qwen2, trained on arithmetic: to 60.0% (60%)" in table.markdown
    for said in ("never arrives counts with all that it spent", "paired by seed", "Student's t on the logarithms of 3 seeds"):
        assert said in table.markdown
    assert "at least 2.29" in table.latex and table.latex.count(r"\toprule") == 1
    assert list(table.frame["n_reached"]) == [2, 3] * 3


def test_table_prints_large_counts_in_thousands_and_ratios_beyond_chance_bold():
    # GRPO at steps 20, 20, 15, SFPO at 5, 5, 5: ratios 4, 4, 3: logarithms 1.2904 +- 4.3027 * 0.16609 / sqrt(3) = 0.4126:
    # 3.63 [2.41, 5.49]; in passes a quarter: 0.91 [0.60, 1.37].
    accuracies = {("sfpo", k): THREE_SEEDS["sfpo", 0] for k in (0, 1, 2)}
    late = [0.4, 0.4, 0.4, 0.4, 0.6]
    accuracies |= {("grpo", 0): late, ("grpo", 1): late, ("grpo", 2): [0.4, 0.4, 0.4, 0.6, 0.6]}
    validation = runs(accuracies).assign(rollouts=lambda frame: 100 * frame["rollouts"])
    table = targets_table(validation, report_settings(), (Target(0.6, of_gain=False),))
    assert "Rollouts (thousands)" in table.markdown and " 50.0 [n/a] |" in table.markdown
    assert "**3.63** [2.41, 5.49]" in table.markdown and r"\mathbf{3.63}" in table.latex
    assert "0.91 [0.60, 1.37]" in table.markdown and "**0.91**" not in table.markdown


def test_figure_by_hand():
    accuracies = {**THREE_SEEDS, ("grpo", 0): LATE}
    figure, data = targets_figure(runs(accuracies), report_settings(), (Target(0.5, of_gain=False), Target(0.6, of_gain=False)))
    rollouts = figure.axes[0]
    assert [axes.get_xlabel() for axes in figure.axes] == ["Rollouts", "Backward passes", "Training time (s)"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    names = dict(zip(rollouts.get_yticks(), [label.get_text() for label in rollouts.get_yticklabels()], strict=True))
    assert [names[place] for place in sorted(names)] == ["to 50.0%:", "GRPO", "SFPO", "to 60.0%:", "GRPO, 2 of 3", "SFPO"]
    assert rollouts.get_ylim()[0] > rollouts.get_ylim()[1]  # downward
    # To 60%: GRPO's mean, at least 1144.7 rollouts, is open with a dotted line to the end; seed 0 has the mark of the late.
    points = {(line.get_ydata()[0], line.get_marker()): line for line in rollouts.lines if len(line.get_xdata()) == 1}
    mean = points[4, "o"]
    assert mean.get_xdata()[0] == pytest.approx(1144.7, abs=0.1) and mean.get_markerfacecolor() == "w"
    assert points[5, "s"].get_xdata()[0] == pytest.approx(500) and points[5, "s"].get_markerfacecolor() != "w"
    late = [line.get_xdata()[0] for line in rollouts.lines if line.get_marker() == ">"]
    assert late == [2000]
    assert [line.get_ydata()[0] for line in rollouts.lines if line.get_linestyle() == ":"] == [4]
    # To 50%: GRPO at steps 10, 10, 5, SFPO at 5 each: 4^(1/3) = 1.59.
    assert [text.get_text() for text in rollouts.texts] == ["", "1.59×", "", "≥ 2.29×"]
    assert legend_texts(figure) == ["One seed, when it got there", "One seed that did not, at its end", "At least so much"]
    assert "To 50%, 60%\nPoints: geometric mean of 3 seeds" in figure.legends[0].get_title().get_text()
    assert set(data["series"]) == {"mean", "seed"} and len(data.query("series == 'seed'")) == 2 * 3 * 6


def test_figure_in_hours_keeps_its_data_in_seconds():
    slow = runs(THREE_SEEDS).assign(seconds=lambda frame: frame["seconds"] * 1000)
    figure, data = targets_figure(slow, report_settings(), (HALF,))
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
