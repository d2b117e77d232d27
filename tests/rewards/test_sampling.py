"""Comparing formulas at points: domains, signs of letters, exactness, and the budget."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.rewards.expression import BudgetExceeded, parse
from sfpo.rewards.sampling import equal_formulas, points, proportional, whole_points
from sfpo.rewards.values import Evaluator, budget, constant, rational


def equal(left, right):
    return equal_formulas(parse(left), parse(right))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (r"\sqrt{a}\sqrt{b}", r"\sqrt{ab}", True),  # where a or b is negative, the left side has no value
        (r"\sqrt{r_0^{2}}", "r_0", True),
        (r"\sqrt{x^{2}}", "x", False),  # x may be negative
        (r"\sqrt{a^{2}}", "a", False),  # a lone letter too
        (r"\sqrt{x^{2}}", "|x|", True),
        (r"\ln(x^{2})", r"2\ln x", True),
        (r"\ln(x^{2})", r"2\ln|x|", True),
        (r"\ln|x|", r"\ln x", False),  # with |x|, one value alone is a difference
        (r"\sqrt[3]{x^{3}}", "x", True),  # odd roots of negative numbers are real
        (r"\arcsin(\sin x)", "x", False),
        (r"(-1)^{n}", r"\cos(n \pi)", True),  # at whole numbers, where there is nothing else
        (r"(-1)^{n}", r"(-1)^{n+1}", False),
        (r"\lfloor \sqrt{n} \rfloor", r"\lfloor \sqrt{n-1} \rfloor", False),  # they differ at squares alone
        (r"\lceil x \rceil", r"-\lfloor -x \rfloor", True),
        (r"2e^{i\pi/3}", r"1+\sqrt{3}i", True),
        ("2^{1009}+1", "2^{1009}", False),  # whole numbers are exact
        (r"\frac{100!}{2^{50}}", r"\frac{100!}{2^{49}}\cdot\frac{1}{2}", True),
        (r"\pi", "3.14159265", True),  # a decimal is held to six digits
        (r"\pi", "3.1416", False),
        (r"\pi", r"\frac{355}{113}", False),
        ("x-x", "y-y", None),  # nothing but zero: no evidence
        (r"\infty", r"\infty", True),
        (r"-\infty", r"\infty", False),
        (r"\sqrt{-1-a^{2}}", r"\sqrt{-1-a^{2}}", None),  # a value nowhere
        (r"9^{9^{9^{9}}}", r"9^{9^{9^{9}}}", None),  # too large for one
    ],
)
def test_equality(left, right, same):
    assert equal(left, right) is same


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_polynomials_are_equal_when_their_coefficients_are(a, b, c):
    product = f"(x-({a}))(x-({b}))"
    assert equal(product, f"x^{{2}}-({a + b})x+({a * b})") is True
    assert equal(product, f"x^{{2}}-({a + b})x+({c})") is (c == a * b)


@pytest.mark.parametrize(
    ("left", "right", "sign"),
    [
        ("2x-4y", "x-2y", 1),
        ("4y-2x", "x-2y", -1),
        ("x-y", "x-2y", None),
        ("x^{2}-16", "x-4", None),
        ("2", "4", None),
        ("0x", "x", None),
        ("PV-nRT", r"P-\frac{nRT}{V}", 1),  # V times
        ("zx-zy", "x-y", None),  # z may be zero
        ("a^{2}-5a", "a-5", None),
        ("y-|k|x", "y-kx", None),
    ],
)
def test_one_formula_is_a_number_times_the_other(left, right, sign):
    assert proportional(parse(left), parse(right)) == sign


def test_points_are_the_same_every_time_and_positive_where_letters_are():
    first, second = list(points(["a", "x"], signed=False)), list(points(["a", "x"], signed=False))
    assert first == second
    assert all(point["a"] > 0 for point in first)
    assert {point["x"] > 0 for point in first} == {True, False}
    assert {point["a"] > 0 for point in points(["a", "x"], signed=True)} == {True, False}
    assert [int(point["n"]) for point in whole_points(["n"])][:80] == list(range(1, 81))


def test_work_is_counted_and_bounded():
    tree = parse("x+x+x+x")  # five nodes: a sum of four
    with budget(10):
        evaluator = Evaluator(complex_values=False)
        assert [evaluator.value(tree, {"x": 1}), evaluator.value(tree, {"x": 2})] == [4, 8]
        with pytest.raises(BudgetExceeded):
            Evaluator(complex_values=False).value(tree, {"x": 3})


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        (r"\frac{3}{4}+1", Fraction(7, 4)),
        ("2^{-3}", Fraction(1, 8)),
        (r"\binom{6}{2}-4!", Fraction(-9)),
        (r"\sqrt{4}", None),
        ("9^{99999}", None),  # too long
        ("99999!", None),
        ("0^{-1}", None),
    ],
)
def test_exact_values(latex, value):
    assert rational(parse(latex)) == value


def test_constants():
    assert float(constant(parse(r"\sqrt{2}"))) == pytest.approx(2**0.5)
    assert constant(parse("x")) is None
    assert constant(parse(r"\sqrt{-2}")) is None
    assert constant(parse(r"\ln 0")) is None
