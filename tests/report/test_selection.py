"""The table of what the choice of a checkpoint adds, by hand."""

import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.choice import in_first_half
from eval.report.collect import collect
from eval.report.selection import selection_table

PROBLEMS = [f"sums/{number:02d}" for number in range(8)]
FIRST = in_first_half(pd.DataFrame({"benchmark": "sums", "problem_id": PROBLEMS}))


def runs() -> pd.DataFrame:
    """GRPO's checkpoints know a half each, those of SFPO all or nothing; one benchmark, one sample, two seeds."""
    answers = {
        "grpo": {"best": [True] * 2 + [False] * 6, "step_1": list(FIRST), "last": [not first for first in FIRST]},
        "sfpo": {"best": [True] * 4 + [False] * 4, "step_1": [False] * 8, "last": [True] * 8},
    }
    rows = [
        ("tiny-qwen2", "arithmetic", arm, seed, checkpoint, "sums", problem, 0, right)
        for arm, checkpoints in answers.items()
        for seed in (0, 1)
        for checkpoint, verdicts in checkpoints.items()
        for problem, right in zip(PROBLEMS, verdicts, strict=True)
    ]
    columns = ["model", "dataset", "arm", "seed", "checkpoint", "benchmark", "problem_id", "sample", "correct"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def table():
    settings = report_settings(seeds=(0, 1), shows="selection").model_copy(update={"benchmarks": {"sums": "Sums"}})
    return selection_table(runs(), settings)


def test_cells_and_luck_by_hand(table):
    rows = table.frame.set_index("arm")
    # GRPO: last knows half; best 2 of 8; chosen on all problems one that knows half of them; chosen on a half one that knows
    # nothing of the other. SFPO's last is best whatever is looked at.
    assert rows.loc["grpo", ["last", "best", "best_on_benchmarks", "best_on_other_half", "luck"]].tolist() == [
        50,
        25,
        50,
        0,
        50,
    ]
    assert rows.loc["sfpo", ["last", "best", "best_on_benchmarks", "best_on_other_half", "luck"]].tolist() == [
        100,
        50,
        100,
        100,
        0,
    ]
    # Gains are differences of these; GRPO's luck is lost to the comparison.
    gains = rows.loc["sfpo-grpo", ["last", "best", "best_on_benchmarks", "best_on_other_half", "luck"]]
    assert gains.tolist() == [50, 25, 50, 100, -50]
    assert (rows.loc[["grpo", "sfpo"], "checkpoints"] == 2).all()


def test_every_column_is_printed_with_its_interval(table):
    [line] = [line for line in table.markdown.splitlines() if line.startswith("| SFPO - GRPO")]
    assert line.count("[") == 5 and "+50.0" in line and "-50.0" in line
    assert "among 2 checkpoints" in table.markdown and r"\label{tab:selection}" in table.latex


def test_all_checkpoints_are_collected_for_it_and_one_for_a_table_of_scores(results, tmp_path):
    settings = results()
    assert set(collect(settings, tmp_path).scores["checkpoint"]) == {"base", "best"}
    last = settings.model_copy(update={"checkpoint": "last"})
    assert set(collect(last, tmp_path).scores["checkpoint"]) == {"base", "last"}
    every = collect(settings.model_copy(update={"shows": "selection"}), tmp_path)
    assert set(every.scores["checkpoint"]) == {"base", "best", "step_20", "step_40", "last"}
    assert len(selection_table(every.scores, settings).frame) == 3  # two arms and a gain
