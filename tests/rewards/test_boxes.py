"""Finding what a response boxes at its end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.boxes import Boxes, extract_boxed, find_boxes


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
        (r"\boxed5", "5"),
        (r"$\boxed 7$", "7"),
        (r"so \boxed -3.", "-3"),
        (r"$\boxed\frac{1}{2}$", r"\frac{1}{2}"),
        (r"$\boxed x^2+1$", "x^2+1"),
        (r"$\boxed \$1.50$", r"\$1.50"),
        (r"in \boxed form", None),  # prose
        ("\\boxed", None),
        (r"\boxed{\boxed{5}}", "5"),  # the inner one
        (r"\boxed{x = \boxed{5} + 1}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # escaped braces are no braces
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{5}}}} {", "5"),
        (r"{{{ \boxed{5}", "5"),
        (r"\fbox{4}", "4"),
        (r"\framebox[2cm]{4}", "4"),
        (r"\bbox[red]{4}", "4"),
        (r"\colorbox{yellow}{4}", "4"),
        (r"\fcolorbox{red}{white}{4}", "4"),
        (r"\boxes{4}", None),
        (r"\boxed{4} is what \boxed{} holds", "4"),  # an empty box is no answer where there is another
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
        r"\boxed 1{" * 10**5,
        r"\fcolorbox{1}" * 10**5,
        r"\boxed[" * 10**5,
    ],
    ids=["open", "content", "braces", "closed", "backslashes", "blanks", "boxes", "without braces", "colours", "options"],
)
def test_a_million_characters_take_linear_time(text):
    start = time.process_time()
    assert extract_boxed(r"\boxed{7}" + text) in ("7", "1")
    assert time.process_time() - start < 5.0  # quadratic time would be hours


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


# ---------------------------------------------------------------------------------------------- several boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"$\boxed{3}$, $\boxed{5}$", Boxes("5", "3; 5", True)),
        (r"\boxed{3} and \boxed{5}.", Boxes("5", "3; 5", True)),
        (r"$\boxed{3} \text{ or } \boxed{5}$", Boxes("5", "3; 5", True)),
        ("$$\\boxed{3}$$\n\n$$\\boxed{5}$$", Boxes("5", "3; 5", False)),  # a line each: a list, or a result and the answer
        ("1. \\boxed{3}\n2. \\boxed{5}", Boxes("5", "3; 5", False)),
        (r"$x = \boxed{3}$, $y = \boxed{5}$", Boxes("5", "x = 3; y = 5", True)),
        (r"\boxed{3}, \boxed{3}", Boxes("3", "3; 3", False)),  # the same again
        (r"\boxed{1}. So \boxed{3}, \boxed{5}", Boxes("5", "3; 5", True)),
        (r"\boxed{3}. Wait, \boxed{5}", Boxes("5")),
        (r"\boxed{3}, no, \boxed{5}", Boxes("5")),
        (r"\boxed{3} no. \boxed{5}", Boxes("5")),
        (r"\boxed{3} or rather \boxed{5}", Boxes("5")),
        (r"The smallest is \boxed{3} and the largest is \boxed{5}.", Boxes("5", "3; 5", False)),
        ("Minimum: \\boxed{3}\nMaximum: \\boxed{5}", Boxes("5", "3; 5", False)),
        (r"The smallest is \boxed{3} and the sum is \boxed{5}.", Boxes("5")),
        (r"At first \boxed{3}. On reflection: \boxed{5}", Boxes("5")),
        ("Guess: \\boxed{3}\nMore careful: \\boxed{5}", Boxes("5")),
        (r"I found \boxed{3} and the largest is \boxed{5}", Boxes("5")),
        (r"\boxed{3}" + "\n" * 200 + r"\boxed{5}", Boxes("5")),  # far apart
    ],
)
def test_boxes_belong_together_when_only_signs_of_a_list_stand_between(text, boxes):
    assert find_boxes(text) == boxes


def test_the_readings_of_boxes():
    assert Boxes("5").answers == ("5",)
    assert Boxes("5", "3; 5", listed=True).answers == ("3; 5",)  # the last alone would be a part
    assert Boxes("5", "3; 5", listed=False).answers == ("5", "3; 5")
