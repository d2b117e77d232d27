"""Finding the box, and the verdicts that take no algebra."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.answer_text import MAX_CHARACTERS, claim, enclosed, extract_boxed, quick_verdict, read, split_list
from sfpo.rewards.numerals import number

# ---------------------------------------------------------------------------------------------- the box


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        ("", None),
        (r"\boxed{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{ 5 }", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1}, no: \boxed{2}", "2"),  # the last one
        (r"\boxed{1} and then \boxed{2", "1"),  # the last that closes
        (r"\boxed{2", None),
        (r"\boxed5", None),
        (r"\boxed{\boxed{5}}", "5"),  # the inner one
        (r"\boxed{x = \boxed{5} + 1}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # escaped braces are no braces
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{5}}}} {", "5"),
        (r"{{{ \boxed{5}", "5"),
        (r"\fbox{4}", None),
        ("\\boxed{a\0b}", "a\0b"),
        ("\\boxed{a\nb}", "a\nb"),
    ],
)
def test_the_last_complete_box_counts(text, content):
    assert extract_boxed(text) == content


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 150_000,
        r"\boxed{1" * 150_000,
        "{" * 10**6,
        "}" * 10**6,
        "\\" * 10**6,
        "\\boxed" + " " * 10**6,
        r"\boxed{1}" * 10**5,
    ],
    ids=["open boxes", "open boxes with content", "open", "closed", "backslashes", "blanks", "boxes"],
)
def test_a_million_characters_take_linear_time(text):
    start = time.process_time()
    assert extract_boxed(r"\boxed{7}" + text) in ("7", "1")
    assert time.process_time() - start < 1.0


def test_ten_thousand_nested_braces():
    content = "{" * 10_000 + "5" + "}" * 10_000
    assert extract_boxed(rf"\boxed{{{content}}}") == content


balanced = st.recursive(st.text(alphabet="ab\0 12,"), lambda inner: st.lists(inner.map("{{{}}}".format)).map("".join))


@given(st.text(alphabet="x{ \\"), balanced)
def test_what_is_boxed_last_is_what_is_found(before, content):
    assert extract_boxed(f"{before} \\boxed{{{content}}}") == content.strip()


@given(st.lists(st.sampled_from(["\\boxed", "{", "}", "\\", "5", " ", "\\boxed{"])).map("".join))
def test_no_text_breaks_the_search(text):
    found = extract_boxed(text)
    assert found is None or found in text


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
    [("1,2", ["1", "2"]), ("(1,2),[3;4)", ["(1,2)", "[3;4)"]), ("1;2,", ["1", "2"]), (r"a\pm b", ["a+ b", "a- b"]), ("", [])],
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
    assert quick_verdict(text, "5") is False
    assert quick_verdict(text, r"\frac{1}{2}") is False


@pytest.mark.parametrize(
    "filler", [",", ".", " or", "{", "(", r"\text{a} ", r" \text{cm}", r"\frac", "1,000", "^", "x=", r"\a", "5 cm "]
)
def test_reading_the_longest_answer_takes_milliseconds(filler):
    answer = "1" + (filler * MAX_CHARACTERS)[: MAX_CHARACTERS - 2] + "!"
    start = time.process_time()
    quick_verdict(answer, r"3\sqrt{2}")
    assert time.process_time() - start < 0.2
