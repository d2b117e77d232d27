"""Unicode, looks and plain text, each into the LaTeX of formulas; and words."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.spelling import latex_from_plain, plain_unicode, without_formatting
from sfpo.rewards.words import in_words, lowercased, rearranged, same_words


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("４２", "42"),
        ("－３．５", "-3.5"),
        ("٤٢", "42"),  # Arabic digits
        ("4\u200b2\u2060\ufeff", "42"),
        ("x\u00ad", "x"),
        ("1\u00a0000", "1 000"),
        ("x²", "x^{2}"),
        ("10⁻¹²", "10^{-12}"),
        ("x₁₂", "x_{12}"),
        ("3½", r"3\frac{1}{2}"),
        ("√12", r"\sqrt{12}"),
        ("π≤θ", r"\pi \le \theta "),
        ("Σ", r"\Sigma "),
        ("λ", r"\lambda "),
        ("µ", r"\mu "),  # the micro sign
        ("𝑥+𝟏", "x+1"),
        ("ℝ", r"\mathbb{R}"),
        ("\u20115", "-5"),
        ("é", "é"),
    ],
)
def test_unicode(text, plain):
    assert plain_unicode(text) == plain


@given(st.integers(0, 10**9))
def test_digits_of_every_script_are_digits(number):
    for zero in ("\u0660", "\u0966", "\uff10", "\U0001d7ce"):
        assert plain_unicode("".join(chr(ord(zero) + int(digit)) for digit in str(number))) == str(number)


@given(st.text(max_size=40))
def test_no_text_breaks_the_spelling(text):
    for step in (plain_unicode, without_formatting, latex_from_plain):
        assert isinstance(step(text), str)
    assert not any(unicodedata.category(one) == "Cf" for one in plain_unicode(text))


@pytest.mark.parametrize(
    ("latex", "plain"),
    [
        (r"\mathbf{42}", "42"),
        (r"\mathbf{\frac{1}{2}}", r"{\frac{1}{2}}"),
        (r"\boldsymbol{\mathbf{x}}", "{x}"),
        (r"\textcolor{red}{42}", "42"),
        (r"\textcolor[rgb]{1,0,0}{42}", "42"),
        (r"{\color{red} 42}", "{42}"),
        (r"\text{cm}", r"\text{cm}"),  # words stay words
        (r"\text{$5$}", "$5$"),
        (r"\Large 42", "  42"),
        (r"\phantom{4}2", " 2"),
        ("**42**", "42"),
        (r"\mathcal{L}", r"\mathcal{L}"),
        (r"\mathbf{4", r"\mathbf{4"),
    ],
)
def test_looks(latex, plain):
    assert without_formatting(latex) == plain


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("pi/2", r"\pi /2"),
        ("x**2", "x^2"),
        ("2*x", r"2 \cdot x"),
        ("sqrt(x+1)", r"\sqrt{x+1}"),
        ("sqrt((x+1)/2)", r"\sqrt{(x+1)/2}"),
        ("e^(2x)", "e^{2x}"),
        ("abs(x)", "|x|"),
        ("sin(x)", r"\sin(x)"),
        ("asin(x)", r"\arcsin(x)"),
        ("x <= 2", r"x \le  2"),
        ("np.sqrt(2)", r"\sqrt{2}"),
        (r"\sin x", r"\sin x"),
        (r"\text{pi}", r"\text{pi}"),
        ("spin", "spin"),
        ("x^*", "x^*"),
    ],
)
def test_plain_text(text, latex):
    assert latex_from_plain(text) == latex


def test_letters_that_could_be_a_word_are_words():
    assert [in_words(text) for text in ("no", "ABCD", "two lines", "MR = SRMC")] == [True] * 4
    assert [in_words(text) for text in ("xy", "mgh", "m n", "x", "2x", "a+b", r"\pi")] == [False] * 7


def test_words_are_compared_as_words():
    assert same_words("an ellipse", "ellipse")
    assert same_words("c,a", "a,c")  # a choice of several
    assert same_words("MR=SRMC", "SRMC=MR")
    assert not same_words("no", "on")
    assert not same_words("red, blue", "blue, red")
    assert rearranged(r"n \cdot o", "on") and not rearranged("n+o", "on")


def test_case_is_nothing_in_words_and_something_in_formulas():
    assert (lowercased("Yes"), lowercased("EVELYN"), lowercased("mgA"), lowercased("CO")) == ("yes", "evelyn", "mgA", "CO")
