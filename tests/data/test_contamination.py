import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.config import TableRows
from sfpo.data.contamination import COLUMNS, KINDS, overlaps, overlaps_of_rows
from sfpo.data.rows import Row, write_rows
from sfpo.data.sources import read_rows
from sfpo.schema import ConfigError

SHARED = Path(__file__).parents[2].parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data mirror ../shared/data is not here")
TWELVE = "one two three four five six seven eight nine ten eleven twelve"


def rows(part, *problems):
    return [Row(f"{part}/{number}", problem, ("1",)) for number, problem in enumerate(problems)]


def found(problem, *train):
    """(kind, number of the training problem, share) of one benchmark problem."""
    frame = overlaps_of_rows({"bench": rows("bench", problem)}, {"set": rows("train", *train)})
    return [(row.kind, int(row.row_id.removeprefix("train/")), row.share) for row in frame.itertuples()]


# ------------------------------------------------------------------------------------- the three kinds


def test_exact_but_for_runs_of_blanks():
    assert found("Find  $x$\nof it.", "Find $x$ of it.") == [("exact", 0, 1.0), ("normalized", 0, 1.0)]


def test_normalized_is_without_formatting():
    problem = "Take $\\left( 1, 2 \\right)$?"
    # Other case, no dollar signs, no \left; then another number; then a sign that is mathematics.
    assert found(problem, "take (1,2)", "take (1,3)", "take (1,-2)") == [("normalized", 0, 1.0)]


@pytest.mark.parametrize(
    ("train", "share"),
    [
        # Twelve words are five 8-grams, which start at one, two, three, four and five.
        (f"Long before, {TWELVE}, and after", 5 / 5),
        ("one two three four five six seven eight nine ten eleven", 4 / 5),  # all but the one that starts at five
        ("one two three four five six seven eight nine ten", None),  # 3 / 5
        ("one two three four five six - seven eight nine ten eleven 12", 4 / 5),  # signs are no words
        ("twelve eleven ten nine eight seven six five four three two one", None),  # the same words, no 8-gram
    ],
)
def test_share_of_8_grams(train, share):
    assert found(TWELVE, train) == ([] if share is None else [("8-gram", 0, share)])


def test_8_grams_out_of_two_training_problems_do_not_add_up():
    # The 8-grams that start at one, two and three, and those at four and five: 3 / 5 and 2 / 5.
    first, second = "one two three four five six seven eight nine ten", "four five six seven eight nine ten eleven twelve"
    assert found(TWELVE, first, second) == []
    assert found(TWELVE, f"{first}; {second}") == [("8-gram", 0, 1.0)]


def test_a_repeated_8_gram_counts_once():
    # Twelve "la" and an end: the 8-gram of "la", five times, and the one with the end. One of two, not five of six.
    assert found("la " * 12 + "end", "la " * 20) == []
    # Without the end there is one 8-gram, and it is there.
    assert found("la " * 12, "la " * 20) == [("8-gram", 0, 1.0)]


def test_fewer_than_8_words_have_no_8_gram():
    # Seven words, then eight.
    assert found("What is two plus two, my friend?", "What is two plus two, my friend?") == [
        ("exact", 0, 1.0),
        ("normalized", 0, 1.0),
    ]
    assert found("So what is two plus two, my friend?", "SO WHAT IS TWO PLUS TWO, MY FRIEND? 4 or 5?") == [("8-gram", 0, 1.0)]


def test_layout_of_formulas_is_no_word():
    # let a be with 2 n 1 frac 1 2 a 2 n: 13 words, 6 8-grams, all there, however it is set.
    problem = "Let $a$ be with $\\left(2 n+1\\right) \\quad \\dfrac{1}{2} a_{2 n}$"
    assert found(problem, "Now let \\(a\\) be with $$(2n+1)\\frac{1}{2}a_{2n}$$ and so on") == [("8-gram", 0, 1.0)]
    # \leftarrow is a word, not \left and an arrow.
    assert found("$a \\leftarrow b c d e f g$", "$a b c d e f g$", "$a$ arrow $b c d e f g$") == []
    assert found("$a \\leftarrow b c d e f g$", "$a \\leftarrow b c d e f g h$") == [("8-gram", 0, 1.0)]


# ------------------------------------------------------------------------------------- the frame


def test_every_pair_and_kind_in_order():
    frame = overlaps_of_rows(
        {"second": rows("second", "none of it", TWELVE), "first": rows("first", "a b", TWELVE + " 13")},
        {"set": rows("set", "A b.", TWELVE, "a  b", TWELVE), "other": rows("other", "a b")},
    )
    # Of the six 8-grams with a thirteenth word, five are in the twelve: 5 / 6.
    assert frame.to_numpy().tolist() == [
        ["second", "second/1", "set", "exact", "set/1", 1.0],
        ["second", "second/1", "set", "exact", "set/3", 1.0],
        ["second", "second/1", "set", "normalized", "set/1", 1.0],
        ["second", "second/1", "set", "normalized", "set/3", 1.0],
        ["second", "second/1", "set", "8-gram", "set/1", 1.0],
        ["second", "second/1", "set", "8-gram", "set/3", 1.0],
        ["first", "first/0", "set", "exact", "set/2", 1.0],
        ["first", "first/0", "set", "normalized", "set/0", 1.0],
        ["first", "first/0", "set", "normalized", "set/2", 1.0],
        ["first", "first/0", "other", "exact", "other/0", 1.0],
        ["first", "first/0", "other", "normalized", "other/0", 1.0],
        ["first", "first/1", "set", "8-gram", "set/1", 5 / 6],
        ["first", "first/1", "set", "8-gram", "set/3", 5 / 6],
    ]


def test_without_overlap_the_columns_stay():
    frame = overlaps_of_rows({"bench": rows("bench", "p")}, {"set": rows("set", "q"), "empty": []})
    assert frame.empty and list(frame.columns) == COLUMNS and frame["share"].dtype == float


def test_prepared_files(tmp_path):
    listed = {"bench": rows("bench", "p", TWELVE), "train": rows("train", TWELVE), "validation": rows("validation", "q", "P")}
    bench, train, validation = (tmp_path / f"{name}.parquet" for name in listed)
    for path, of_file in zip((bench, train, validation), listed.values(), strict=True):
        write_rows(path, of_file)
    frame = overlaps({"bench": bench}, {"set": [train, validation]})
    # "P" is "p" but for case; the twelve words are of every kind.
    assert list(zip(frame["problem_id"], frame["kind"], frame["row_id"], strict=True)) == [
        ("bench/0", "normalized", "validation/1"),
        *[("bench/1", kind, "train/0") for kind in KINDS],
    ]
    together = {"set": listed["train"] + listed["validation"]}
    pd.testing.assert_frame_equal(frame, overlaps_of_rows({"bench": listed["bench"]}, together))
    with pytest.raises(ConfigError, match=r"none\.parquet: no such file"):
        overlaps({"bench": bench}, {"set": [train, tmp_path / "none.parquet"]})


# ------------------------------------------------------------------------------------- properties


def texts(alphabet):
    word = st.text(alphabet, min_size=1, max_size=4)
    return st.lists(st.lists(word, min_size=1, max_size=20).map(" ".join), min_size=1, max_size=8)


@given(problems=texts("abcd"))
def test_a_set_overlaps_wholly_with_itself(problems):
    frame = overlaps_of_rows({"bench": rows("bench", *problems)}, {"bench": rows("bench", *problems)})
    itself = frame[frame["problem_id"] == frame["row_id"]]
    assert (itself["share"] == 1).all()
    long = [number for number, problem in enumerate(problems) if len(problem.split()) >= 8]
    for kind, numbers in zip(KINDS, (range(len(problems)), range(len(problems)), long), strict=True):
        assert list(itself.loc[itself["kind"] == kind, "problem_id"]) == [f"bench/{number}" for number in numbers]


@given(problems=texts("abcd"), train=texts("efgh"))
def test_disjoint_vocabularies_never_overlap(problems, train):
    assert overlaps_of_rows({"bench": rows("bench", *problems)}, {"set": rows("set", *train)}).empty


# ------------------------------------------------------------------------------------- the real files

SETS = ("math_train", "dapo_math_17k")
NAMES = {"exact": "exact", "normalized": "format_insensitive", "8-gram": "near_8gram_0.8"}
"""Kind -> its key in contamination.json, which names one training problem for each benchmark problem."""

# Exact (16 problems) and normalized (25) are the same there. 8-gram: the same 11 with MATH (MATH-500 9, OlympiadBench 2); with
# DAPO the same 32 of AMC, 15 of MATH-500 for 14, 46 of OlympiadBench for 45. Its way to cut formulas into words is not known.
THERE_ALONE = {
    # 0.80 there; 0.73 here, where \begin{equation*} and its end are words of the copy.
    ("olympiadbench/1929", "dapo_math_17k"),
}
HERE_ALONE = {
    ("math500/175", "dapo_math_17k"),  # \left| m - n \right| and |m - n|; there it is normalized, but not 8-gram
    ("olympiadbench/1988", "dapo_math_17k"),  # 2^{k}, A_{n} and \left\{ for 2^k, A_n and \{
    ("olympiadbench/2152", "dapo_math_17k"),  # \left(C_{1}, C_{2}, C_{3}\right) and (C_1, C_2, C_3)
}


def real_rows(name, mirror):
    return read_rows(name, TableRows(source="hub", mirror=mirror), "test", str(SHARED))


def overlapping(pairs):
    """(benchmark problem, data set) of pairs of ids."""
    return {(problem, train.split("/")[0]) for problem, train in pairs}


@needs_shared
def test_real_files():
    listed = json.loads((SHARED / "contamination.json").read_text())
    frame = overlaps_of_rows(
        {name: real_rows(name, f"eval/{name}.jsonl") for name in listed},
        {name: real_rows(name, f"train/{name}.parquet") for name in SETS},
    )
    here = {kind: set(zip(of_kind["problem_id"], of_kind["row_id"], strict=True)) for kind, of_kind in frame.groupby("kind")}
    there = {
        kind: {(problem, train) for sets in listed.values() for name in SETS for problem, train, *_ in sets[name][key]}
        for kind, key in NAMES.items()
    }
    for kind in ("exact", "normalized"):
        assert there[kind] <= here[kind] and overlapping(there[kind]) == overlapping(here[kind])
    assert overlapping(there["8-gram"]) - overlapping(here["8-gram"]) == THERE_ALONE
    assert overlapping(here["8-gram"]) - overlapping(there["8-gram"]) == HERE_ALONE
