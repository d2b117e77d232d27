"""Reading formulas: the tree of each form, and what is refused."""

import pytest

from sfpo.rewards.expression import BudgetExceeded, ParseError, number_tree, parse

X, Y = ("sym", "x"), ("sym", "y")
ONE, TWO = number_tree(1), number_tree(2)
MINUS = number_tree(-1)


def over(top, bottom):
    return ("mul", top, ("pow", bottom, MINUS))


@pytest.mark.parametrize(
    ("latex", "tree"),
    [
        ("12", number_tree(12)),
        ("1,234.5", ("num", number_tree(12345)[1] / 10, True)),
        ("x+2", ("add", X, TWO)),
        ("x-2", ("add", X, ("mul", MINUS, TWO))),
        ("--x", X),
        ("2x", ("mul", TWO, X)),
        (r"2 \cdot x", ("mul", TWO, X)),
        (r"\frac{x}{2}", over(X, TWO)),
        ("x/2y", over(X, ("mul", TWO, Y))),  # a product without a sign binds tighter
        ("(x+2)(x-2)", ("mul", ("add", X, TWO), ("add", X, ("mul", MINUS, TWO)))),
        ("(x+2) 2", ("mul", ("add", X, TWO), TWO)),
        ("x^{2}", ("pow", X, TWO)),
        ("x^-2", ("pow", X, ("mul", MINUS, TWO))),
        ("x_1^{2}", ("pow", ("sym", "x_1"), TWO)),
        (r"1\frac{1}{2}", ("num", number_tree(3)[1] / 2, False)),  # a mixed number
        (r"2\frac{x}{2}", ("mul", TWO, over(X, TWO))),
        (r"\sqrt{x}", ("root", X, TWO)),
        (r"\sqrt[3]{x}", ("root", X, number_tree(3))),
        ("|x|", ("fn", "abs", X)),
        (r"\lfloor x \rfloor", ("fn", "floor", X)),
        ("x!", ("fn", "factorial", X)),
        (r"\binom{x}{2}", ("fn", "binomial", X, TWO)),
        (r"\sin 2x", ("fn", "sin", ("mul", TWO, X))),
        (r"\sin x \sin y", ("mul", ("fn", "sin", X), ("fn", "sin", Y))),
        (r"\sin(x) y", ("mul", ("fn", "sin", X), Y)),
        (r"\sin^{2} x", ("pow", ("fn", "sin", X), TWO)),
        (r"\sin^{-1} x", ("fn", "asin", X)),
        (r"\operatorname{arsinh} x", ("fn", "asinh", X)),
        (r"\log_{2} x", ("fn", "log", X, TWO)),
        ("ei", ("mul", ("const", "e"), ("const", "i"))),
        ("e_1", ("sym", "e_1")),
        (r"\varphi", ("sym", r"\phi")),
        (r"x^{\prime}", ("sym", "x'")),
        (r"\dot{x}_{0}", ("sym", "dot:x_0")),
        (r"\lambda_{\text {red}}", ("sym", r"\lambda_red")),
        ("I(0)", ("sym", "I(0)")),
        ("I{(0)}", ("sym", "I(0)")),
        ("x(t)", ("sym", "x(t)")),
        ("x(y+2)", ("mul", X, ("add", Y, TWO))),  # a product
        ("f(y+2)", ("fn", "?f", ("add", Y, TWO))),
        (r"\frac{dx}{dt}", ("sym", "dot:x")),
        (r"\frac{d^2 v_o}{dt^2}", ("sym", "ddot:v_o")),
        (r"\frac{dy}{dx}", ("sym", "D[dy/dx]")),
        (r"\frac{d}{2}", over(("sym", "d"), TWO)),
    ],
)
def test_each_form_has_its_tree(latex, tree):
    assert parse(latex) == tree


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "1,2",
            "x = 2",
            "(1,2)",
            "x 2",
            "1 2",
            "2^3^4",
            "x^2!",
            r"\sin x / 2",
            r"\int x",
            r"\frac{1}",
            "(x",
            "x)",
            r"\pm 2",
            "5%",
        ],
        *[r"\unknown{x}", r"\cancel{x}", "__import__", "x^", "+", r"\sinh_2 x", "52_8", "√2", "\0"],
    ],
)
def test_what_is_not_surely_a_formula_is_refused(text):
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 50 + "1" + ")" * 50, r"\sqrt" * 60 + "2", "x^{" * 50 + "2" + "}" * 50, r"\sin" * 99 + " x"]
)
def test_deeply_nested_formulas_exceed_the_budget(text):
    with pytest.raises(BudgetExceeded):
        parse(text)
