import pytest

from sfpo.data.cleaning import (
    duplicate_groups,
    duplicates_to_drop,
    in_a_sentence,
    invalid_reason,
    normalized,
    read_as_text,
    same_gold,
)
from sfpo.data.rows import Row


def row(row_id, problem, *answer):
    return Row(row_id, problem, answer)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("If $x = 5$, find $x^2$.", "if x=5 find x^2"),
        ("Find $\\dfrac{1}{2}$ of it.", "Find \\(\\frac{1}{2}\\) of it"),
        ("Take $\\left( 1, 2 \\right)$?", "Take $(1,2)$"),
        ("Compute\n\\[ 10{,}000 + x \\]", "Compute $10,000+x$."),
        ("$a\\,b\\ c~d$", "$a b c d$"),
        ("若 $a=1$，求 $b$。", "若 a=1, 求 b."),
        ("Tom’s “number”", 'Tom\'s "number"'),
    ],
)
def test_formatting_makes_no_difference(one, other):
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3+5", "3-5"),
        ("1.5", "15"),
        (".5", "5"),
        ("(1,2)", "(12)"),
        ("3:4", "34"),
        ("5!", "5"),
        ("f'(x)", "f(x)"),
        ("x^2", "x2"),
        ("\\leftarrow", "arrow"),
        ("a \\\\ b", "a b"),
    ],
)
def test_mathematics_makes_a_difference(one, other):
    assert normalized(one) != normalized(other)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (row("a", "p", "1"), None),
        (row("a", "p", "\\frac{1}{2}", "-3"), None),
        (row("a", "", "1"), "empty problem"),
        (row("a", "p", ""), "empty gold"),
        (row("a", "p"), "empty gold"),
        (row("a", "p", "1", ""), "empty gold"),
        (row("a", "ppppppppppp", "1"), "problem too long"),
        (row("a", "p", "\\\\"), "unparsable gold"),
        (row("a", "p", "1", "\\\\"), "unparsable gold"),
    ],
)
def test_faults_of_a_row(candidate, reason):
    assert invalid_reason(candidate, max_problem_characters=10) == reason


def test_no_limit_without_one():
    assert invalid_reason(row("a", "p" * 10**5, "1")) is None


def test_a_gold_of_invisible_characters_is_empty():
    assert invalid_reason(row("a", "p", "\u200b\u2060")) == "empty gold"
    assert invalid_reason(row("a", "p", "5\u200b")) is None


def test_golds_that_hold_no_mathematics():
    assert read_as_text(row("a", "p", "???"))
    assert not read_as_text(row("a", "p", "\\sqrt{2}"))
    assert not read_as_text(row("a", "p", "12"))


@pytest.mark.parametrize(
    "gold",
    [
        "The answer is 5.",
        "It is 3 cm",
        "\\text{x is 5 or more}",
        "x = 5 \\text{ if } y > 0",
        "f(x)=ax+b, where b is an integer and a is positive",
    ],
)
def test_golds_that_no_plain_answer_meets(gold):
    assert in_a_sentence(row("a", "p", "1", gold))


@pytest.mark.parametrize(
    "gold",
    [
        "5",
        "5 apples",
        "\\text{no real solutions}",
        "k\\pi, k \\text{ is an integer}",
        "-(ab + ac + bc)",
        "\\text{Evelyn}",
        "240\\text{ ways}",
        *["\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "3:15 \\text{ p.m.}", "\\sin 2x", "864 \\mbox{ inches}^2", "MR=SRMC"],
    ],
)
def test_golds_that_a_plain_answer_meets(gold):
    assert not in_a_sentence(row("a", "p", gold))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("5",), ("5",), True),
        (("5",), ("6",), False),
        (("$5$",), ("5.",), True),
        (("\\frac{1}{2}",), ("0.5",), True),
        (("2\\sqrt{2}",), ("\\sqrt{8}",), True),
        (("1", "2"), ("2", "1"), True),
        (("1", "2"), ("1", "3"), False),
        (("1", "2"), ("1",), False),
    ],
)
def test_same_gold(one, other, same):
    assert same_gold(row("a", "p", *one), row("b", "p", *other)) is same


def test_copies_go_but_the_first_stays():
    rows = [row("a/1", "Find $x$.", "5"), row("a/2", "Other", "1"), row("b/1", "find x", "5"), row("b/2", "Find $ x $?", "5")]
    assert duplicates_to_drop(rows) == {"b/1": "duplicate", "b/2": "duplicate"}
    assert [[copy.id for copy in group] for group in duplicate_groups(rows)] == [["a/1", "b/1", "b/2"]]


def test_copies_with_conflicting_golds_all_go():
    """One of three disagrees: nobody knows which gold is right, so none of the three can stay."""
    rows = [row("a/1", "Find $x$.", "5"), row("b/1", "find x", "5"), row("b/2", "Find $ x $?", "6"), row("b/3", "Other", "6")]
    assert duplicates_to_drop(rows) == dict.fromkeys(["a/1", "b/1", "b/2"], "conflicting golds")


def test_copies_with_equal_golds_in_other_words_are_duplicates():
    assert duplicates_to_drop([row("a", "p", "0.5"), row("b", "P", "\\frac12")]) == {"b": "duplicate"}


@pytest.mark.parametrize("gold", ["nan", "NaN", "inf", "-inf", "Inf"])
def test_a_gold_that_is_no_number(gold):
    """As json and pandas read NaN and Infinity; Math-Verify would read n*a*n."""
    assert invalid_reason(Row("a", "p", (gold,))) == "gold is NaN or infinite"
    assert invalid_reason(Row("a", "p", ("1", gold))) == "gold is NaN or infinite"
    assert invalid_reason(Row("a", "p", ("\\infty",))) is None
