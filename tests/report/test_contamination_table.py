import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.contamination import contamination_table, without_overlap
from eval.report.statistics import AVERAGE, paired_gain, per_problem

SCORES = ["model", "dataset", "arm", "seed", "benchmark", "problem_id", "sample", "correct"]
OVERLAPS = ["benchmark", "problem_id", "dataset", "kind", "train_id", "share"]


def scores(answers, dataset="math"):
    """{arm: {benchmark: [right samples of each problem, out of 2]}} as rows."""
    rows = []
    for arm, benchmarks in answers.items():
        run = ("tiny", None, arm, None) if arm == "base" else ("tiny", dataset, arm, 0)
        rows += [
            (*run, benchmark, f"{benchmark}/{n}", k, k < right)
            for benchmark, counts in benchmarks.items()
            for n, right in enumerate(counts)
            for k in range(2)
        ]
    return pd.DataFrame(rows, columns=SCORES).astype({"dataset": "string", "seed": "Int64"})


def overlaps(*rows):
    return pd.DataFrame([(*row, 1.0) for row in rows], columns=OVERLAPS)


# Right answers out of 2, problem by problem.
BY_HAND = {
    "base": {"amc": [0, 1, 0, 0], "aime": [1, 0]},
    "grpo": {"amc": [2, 2, 1, 0], "aime": [1, 1]},
}
FOUND = overlaps(
    ("amc", "amc/0", "math", "exact", "math/7"),
    ("amc", "amc/0", "math", "normalized", "math/7"),
    ("amc", "amc/0", "math", "normalized", "math/8"),  # a second copy of one problem
    ("amc", "amc/1", "math", "8-gram", "math/9"),
    ("amc", "amc/3", "other", "8-gram", "other/1"),
    ("amc", "amc/4", "math", "exact", "math/1"),  # was not scored
    ("gsm8k", "gsm8k/0", "math", "exact", "math/2"),  # nor this benchmark
)


def settings_of(*datasets):
    return report_settings().model_copy(
        update={"datasets": list(datasets), "benchmarks": {"amc": "AMC", "aime": "AIME"}, "out_of_distribution": []}
    )


def test_counts_by_hand():
    frame = contamination_table(scores(BY_HAND), FOUND, settings_of("math", "other")).frame
    kinds = ["exact", "normalized", "8-gram", "any"]
    columns = [f"{name}_{kind}{end}" for name in ("math", "other") for kind in kinds for end in ("", "_share")]
    assert list(frame.columns) == ["benchmark", "problems", *columns]
    # Of the four problems of amc: math has amc/0 under two kinds and amc/1 under the third, other has amc/3 under the third.
    assert frame.to_numpy().tolist() == [
        ["amc", 4, 1, 25.0, 1, 25.0, 1, 25.0, 2, 50.0, 0, 0.0, 0, 0.0, 1, 25.0, 1, 25.0],
        ["aime", 2, *[0, 0.0] * 8],
    ]


def test_a_block_for_each_data_set():
    table = contamination_table(scores(BY_HAND), FOUND, settings_of("math", "other"))
    lines = [line for line in table.markdown.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:5] + lines[6:]] == [
        ["", "Problems", "Exact", "Normalized", "8-gram", "Any"],
        ["AMC", "4", "1 (25.0%)", "1 (25.0%)", "1 (25.0%)", "2 (50.0%)"],
        ["AIME", "2", *["0 (0.0%)"] * 4],
        ["", "Problems", "Exact", "Normalized", "8-gram", "Any"],
        ["AMC", "4", "0 (0.0%)", "0 (0.0%)", "1 (25.0%)", "1 (25.0%)"],
        ["AIME", "2", *["0 (0.0%)"] * 4],
    ]
    assert table.markdown.index("in the training set math") < table.markdown.index("in the training set other")
    assert "at least 80% of the problem's word 8-grams are in one training problem" in table.markdown
    rows = [line for line in table.latex.splitlines() if line.endswith(r"\\[2pt]") and "multicolumn" not in line]
    assert len(rows) == 4 and {row.count("&") for row in rows} == {5}
    assert r"\tiny 2 (50.0\%)" in rows[0] and table.latex.count(r"\label") == 1


def test_the_base_loses_the_problems_of_the_arms():
    left = without_overlap(scores(BY_HAND), FOUND)
    for arm in ("base", "grpo"):
        ids = left.loc[left["arm"] == arm, "problem_id"]
        assert list(ids) == [name for name in ("amc/2", "amc/3", "aime/0", "aime/1") for _ in range(2)]


def test_gains_on_what_is_left():
    def gain(rows):
        values, base = (per_problem(rows[rows["arm"] == arm]) for arm in ("grpo", "base"))
        return paired_gain(values, base)["mean"].to_dict()

    # Gains in right answers out of 2: amc 2, 1, 1, 0, aime 0, 1.
    assert gain(scores(BY_HAND)) == {"aime": 1 / 4, "amc": 4 / 8, AVERAGE: 3 / 8}
    # Without amc/0 and amc/1.
    assert gain(without_overlap(scores(BY_HAND), FOUND)) == {"aime": 1 / 4, "amc": 1 / 4, AVERAGE: 1 / 4}


def test_overlap_with_another_data_set_does_not_count():
    both = pd.concat([scores(BY_HAND), scores({"sfpo": BY_HAND["grpo"]}, "other")], ignore_index=True)
    of_other = both[both["dataset"].isna() | (both["dataset"] == "other")]
    left = without_overlap(of_other, FOUND)
    assert set(left["arm"]) == {"base", "sfpo"}
    assert set(of_other["problem_id"]) - set(left["problem_id"]) == {"amc/3"}
    # Rows and index are those that were there.
    pd.testing.assert_frame_equal(left, both.loc[left.index])


def test_nothing_is_lost_without_overlap():
    pd.testing.assert_frame_equal(without_overlap(scores(BY_HAND), overlaps()), scores(BY_HAND))


def test_two_data_sets_at_a_time_are_refused():
    both = pd.concat([scores(BY_HAND), scores({"sfpo": BY_HAND["grpo"]}, "other")])
    with pytest.raises(ValueError, match="trained on math, other: take those of one data set"):
        without_overlap(both, FOUND)
    with pytest.raises(ValueError, match="trained on no data set"):
        without_overlap(scores({"base": BY_HAND["base"]}), FOUND)


def test_a_benchmark_without_a_problem_left_is_refused():
    whole = overlaps(*[("aime", f"aime/{n}", "math", "exact", "math/1") for n in range(2)])
    with pytest.raises(ValueError, match="every problem of aime overlaps with math; leave the benchmark out"):
        without_overlap(scores(BY_HAND), whole)
