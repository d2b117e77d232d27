"""Sets of real numbers in their many spellings, and the arithmetic of their intervals."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.intervals import Interval, Line
from sfpo.rewards.real_sets import as_interval, same_set


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        (r"\{x \mid -1 < x < 4\}", "(-1,4)", True),
        (r"\{x \mid -1 \le x < 4\}", "(-1,4)", False),
        (r"\{x \in \mathbb{R} : x > 2\}", r"(2,\infty)", True),
        (r"\{x \in \mathbb{Z} \mid 1 \le x \le 3\}", r"\{1,2,3\}", True),
        (r"\{x \in \mathbb{Z} \mid x \ge 1\}", r"[1,\infty)", None),  # whole numbers without an end
        (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)", True),
        (r"x<1 \text{ and } x>3", r"(-\infty,1)\cup(3,\infty)", False),
        ("x<1, x>3", r"(-\infty,1)\cup(3,\infty)", True),  # together they would be nothing
        ("x>1, x<3", "(1,3)", True),
        (r"\mathbb{R} \setminus \{2\}", r"x \ne 2", True),
        (r"x \ne \pm 2", r"\mathbb{R} \setminus \{-2, 2\}", True),
        (r"|x| < 3", "(-3,3)", True),
        (r"|x| \ge 3", r"(-\infty,-3] \cup [3,\infty)", True),
        (r"[0,2] \cap (1,5)", "(1,2]", True),
        (r"[0,1) \cup \{1\}", "[0,1]", True),
        (r"[0,1) \cup (1,2]", "[0,2]", False),
        (r"7 \ge x \ge -2", "[-2,7]", True),
        ("all real numbers except 2", r"x \ne 2", True),
        (r"\emptyset", r"x \in (0,1) \cap (2,3)", True),
        (r"x \ge 2", r"k \ge 2", False),  # two names
        ("(1,2)", "(1,2)", None),  # perhaps points
        ("y > 2x", "(1,2)", None),
        ("a < x < b", "(1,2)", None),
        ("5", r"x > 5", None),
    ],
)
def test_sets_are_equal_as_sets(answer, gold, same):
    assert same_set(answer, gold) is same


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        (r"a < x \le b", "(a , b]"),
        (r"b > x \ge a", "[ a,b )"),
        ("a < b + 1 < c", None),
        ("a < x", None),
    ],
)
def test_chains_with_letters_as_bounds(text, interval):
    assert (as_interval(text) or "none").replace(" ", "") == (interval or "none").replace(" ", "")


ends = st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans())
intervals = st.lists(
    ends.filter(lambda end: end[0] < end[1]).map(lambda end: Interval(float(end[0]), end[2], float(end[1]), end[3])), max_size=4
)


def holds(intervals, value):
    return any(
        interval.low < value < interval.high
        or (value == interval.low and interval.low_closed)
        or (value == interval.high and interval.high_closed)
        for interval in intervals
    )


@given(intervals, intervals)
def test_pieces_hold_what_sets_would(left, right):
    line = Line(1e-15)
    for value in (step / 2 for step in range(-1, 21)):
        assert holds(line.merged(left), value) == holds(left, value)
        assert holds(line.complement(left), value) == (not holds(left, value))
        assert holds(line.intersect(left, right), value) == (holds(left, value) and holds(right, value))


@given(intervals)
def test_merged_pieces_do_not_touch(found):
    line = Line(1e-15)
    merged = line.merged(found)
    assert not any(line.connected(*pair) for pair in pairwise(merged))
