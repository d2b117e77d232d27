"""The table of what the choice of a checkpoint adds, by hand."""

import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.choice import folds
from eval.report.collect import collect
from eval.report.selection import selection_table

PROBLEMS = [f"sums/{number:02d}" for number in range(10)]
FIRST = folds(pd.DataFrame({"benchmark": "sums", "problem_id": PROBLEMS})) == 0  # one problem
REST = [problem for problem, first in zip(PROBLEMS, FIRST, strict=True) if not first]


def runs() -> pd.DataFrame:
    """GRPO's checkpoints know one problem each, those of SFPO all or nothing; one benchmark, one sample, two seeds."""
    answers = {
        "grpo": {"best": [True] * 2 + [False] * 8, "step_1": list(FIRST), "last": [p == REST[0] for p in PROBLEMS]},
        "sfpo": {"best": [True] * 4 + [False] * 6, "step_1": [False] * 10, "last": [True] * 10},
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
    # GRPO: last knows 1 of 10; best 2 of 10; chosen on all problems step_1, the earlier of equals, which knows 1. Chosen on the
    # other nine: where the fold is the one that step_1 knows, last, which does not know it; else step_1, which knows no other.
    # SFPO's last is best whatever is looked at.
    columns = ["last", "best", "best_on_benchmarks", "best_on_other_folds", "luck"]
    assert rows.loc["grpo", columns].tolist() == [10, 20, 10, 0, 10]
    assert rows.loc["sfpo", columns].tolist() == [100, 40, 100, 100, 0]
    # Gains are differences of these; GRPO's luck is lost to the comparison.
    assert rows.loc["sfpo-grpo", columns].tolist() == [90, 20, 90, 100, -10]
    assert (rows.loc[["grpo", "sfpo"], "checkpoints"] == 2).all()


def test_every_column_is_printed_with_its_interval(table):
    [line] = [line for line in table.markdown.splitlines() if line.startswith("| SFPO - GRPO")]
    assert line.count("[") == 5 and "+90.0" in line and "-10.0" in line
    assert "best of 2 checkpoints" in table.markdown and r"\label{tab:selection}" in table.latex


def test_all_checkpoints_are_collected_for_it_and_one_for_a_table_of_scores(results, tmp_path):
    settings = results()
    assert set(collect(settings, tmp_path).scores["checkpoint"]) == {"base", "best"}
    last = settings.model_copy(update={"checkpoint": "last"})
    assert set(collect(last, tmp_path).scores["checkpoint"]) == {"base", "last"}
    every = collect(settings.model_copy(update={"shows": "selection"}), tmp_path)
    assert set(every.scores["checkpoint"]) == {"base", "best", "step_20", "step_40", "last"}
    assert len(selection_table(every.scores, settings).frame) == 3  # two arms and a gain
