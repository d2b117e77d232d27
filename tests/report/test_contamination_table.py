import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.contamination import contamination_table, without_overlap
from eval.report.statistics.comparisons import paired_gain
from eval.report.statistics.scores import AVERAGE, per_problem
from eval.report.tables import accuracy

SCORES = ["model", "dataset", "arm", "seed", "benchmark", "problem_id", "sample", "correct"]
OVERLAPS = ["benchmark", "problem_id", "dataset", "kind", "row_id", "share"]


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
    blocks = [table.markdown.index(f"Overlap with the training or validation rows of {name}") for name in ("math", "other")]
    assert blocks == sorted(blocks)
    assert "at least 80% of the problem's word 8-grams occur in one row" in table.markdown
    assert "held-out validation rows are included" in table.markdown
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
    with pytest.raises(ValueError, match="trained on math, other: pass the scores of exactly one data set"):
        without_overlap(both, FOUND)
    with pytest.raises(ValueError, match="trained on no data set"):
        without_overlap(scores({"base": BY_HAND["base"]}), FOUND)


def whole(*benchmarks):
    """Every problem of BY_HAND's benchmarks in the training set."""
    return overlaps(*[(b, f"{b}/{n}", "math", "exact", "math/1") for b in benchmarks for n in range(len(BY_HAND["base"][b]))])


def accuracy_without(found):
    settings = settings_of("math").model_copy(update={"models": ["tiny"], "arms": {"grpo": "GRPO"}, "seeds": [0]})
    settings = settings.model_copy(update={"samples": dict.fromkeys(settings.benchmarks, 2)})
    return accuracy(without_overlap(scores(BY_HAND), found), settings)


def test_a_benchmark_that_overlaps_whole_is_marked_and_not_averaged():
    table = accuracy_without(whole("aime"))
    rows = table.frame.set_index("arm")
    # Right answers of amc, out of 8: 1 of the base, 5 of GRPO.
    assert list(rows["amc"]) == list(rows["average"]) == [12.5, 62.5, 50.0]
    assert rows[["aime", "aime_low", "aime_high"]].isna().all(axis=None) and set(rows["problems"]) == {4}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.markdown.splitlines() if line.startswith("|")]
    assert lines[0] == ["", "AMC", "AIME", "Average"]
    assert [line[2] for line in lines[2:]] == ["none left"] * 3 and all(line[1] == line[3] for line in lines[2:])
    assert table.latex.count("none left") == 3
    for text in (table.markdown, table.latex):
        assert "NONE LEFT: no problem of AIME is left, so the average covers only AMC." in text
    assert "on 1 of 2 benchmarks" in table.markdown


def test_a_table_without_any_problem_left_says_so():
    table = accuracy_without(whole("amc", "aime"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.markdown.splitlines() if line.startswith("|")]
    assert lines[2:] == [["Base", *["none left"] * 3], ["GRPO", *["none left"] * 3]]
    for text in (table.markdown, table.latex):
        assert "NONE LEFT: no problem of AMC, AIME is left, so there is no accuracy." in text
    assert list(table.frame["arm"]) == ["base", "grpo"] and set(table.frame["problems"]) == {0}
    assert table.frame[["amc", "aime", "average"]].isna().all(axis=None)
