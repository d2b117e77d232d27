"""The normal form, and the verdicts that take no algebra."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.answer_text import MAX_CHARACTERS, claim, enclosed, quick_verdict, read, split_list
from sfpo.rewards.numerals import number

# ---------------------------------------------------------------------------------------------- parts of an answer


@pytest.mark.parametrize(
    ("body", "brackets"),
    [
        ("(1,2)", ("(", ")")),
        ("(1,2]", ("(", "]")),
        (r"\{1,2\}", (r"\{", r"\}")),
        ("{5}", ("{", "}")),
        ("(a+5)(b+2)", None),
        ("1,2", None),
        ("", None),
        ("(", None),
        ("(()", None),
        (")1(", None),
    ],
)
def test_brackets_around_the_whole(body, brackets):
    assert enclosed(body) == brackets


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("1,2", ["1", "2"]),
        ("(1,2),[3;4)", ["(1,2)", "[3;4)"]),
        ("1;2,", ["1", "2"]),
        (r"a\pm b", ["a+ b", "a- b"]),
        (r"\pm a\pm b", ["+ a+ b", "+ a- b", "- a+ b", "- a- b"]),  # each by itself
        (r"a\pm b\mp c", ["a+ b- c", "a- b+ c"]),
        ("", []),
    ],
)
def test_lists_are_split_outside_brackets(body, parts):
    assert split_list(body) == parts


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("x = 5", ("x", "5")),
        ("f(t) = 4t/2 = 2t", ("f(t)", "2t")),
        ("3+4=7", ("", "7")),
        ("2x=7", ("", "2x=7")),
        ("5 = x", ("x", "5")),
        (r"x \in [0,1]", ("x", "[0,1]")),
        (r"x \le 5", ("", r"x \le 5")),
        ("x=1, y=2", ("", "x=1, y=2")),
    ],
)
def test_a_name_is_told_from_its_value(body, named):
    assert claim(body) == named


# ---------------------------------------------------------------------------------------------- numbers


@given(st.integers(), st.integers())
def test_integers_are_equal_as_integers_are(left, right):
    for text in (str(left), f"{left:,}", f"{left}.0", rf"\text{{{left}}}"):
        assert quick_verdict(text, str(left)) is True
        assert quick_verdict(text, str(right)) is (left == right)


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(1, 9))
def test_fractions_are_exact(top, bottom, factor):
    gold = rf"\frac{{{top}}}{{{bottom}}}"
    assert number(read(gold).body).value == Fraction(top, bottom)
    assert quick_verdict(f"{factor * top}/{factor * bottom}", gold) is True
    assert quick_verdict(rf"\dfrac{{{top * factor + 1}}}{{{bottom * factor}}}", gold) is False


@pytest.mark.parametrize(
    "text", ["9" * MAX_CHARACTERS, "1" + "0" * 1500, "1e999999999", "10^{999999999}", "0^{-1}", r"\frac{1}{0}"]
)
def test_no_number_is_too_large_to_compare(text):
    assert not quick_verdict(text, "5")
    assert not quick_verdict(text, r"\frac{1}{2}")


@pytest.mark.parametrize(
    "filler",
    [
        *[",", ".", " or", "{", "(", r"\text{a} ", r" \text{cm}", r"\frac", "1,000", "^", "x=", r"\a", "5 cm "],
        *[
            r"\mathbf{",
            r"\textcolor{a}{",
            "sqrt(",
            "^(",
            r"\pm",
            "½",
            "²",
            r"\over{",
            "|",
            r"k \in ",
            "an integer k ",
            "* ",
            "`",
        ],
    ],
)
def test_reading_the_longest_answer_takes_milliseconds(filler):
    answer = "1" + (filler * MAX_CHARACTERS)[: MAX_CHARACTERS - 2] + "!"
    start = time.process_time()
    quick_verdict(answer, r"3\sqrt{2}")
    assert time.process_time() - start < 0.2
