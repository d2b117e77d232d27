r"""Names that are one thing in two spellings, which only the two formulas side by side can tell.

- A derivative: y' and \frac{dy}{dt}, where the other formula has just the one.
- A function of time without its argument: \theta for \theta(t).
- The free constant of a solution: c for C, C for C_1, where it is one term's factor beside other terms in x or t, such as
  e^x + c e^{-x}. Case matters in every other name.
"""

from __future__ import annotations

import re

from sfpo.rewards.expression import Tree
from sfpo.rewards.values import heads, symbols

_FREE = frozenset(("c", "C", "c_1", "C_1"))


_OF_SOLUTIONS = frozenset(("e", "exp", "sin", "cos", "sinh", "cosh", "ln"))


def with_names_of(gold: Tree, answer: Tree) -> Tree:
    """The answer with the gold's names for what is surely the same."""
    given, wanted = symbols(answer), symbols(gold)
    only_given, only_wanted = given - wanted, wanted - given
    if not only_given or not only_wanted:
        return answer
    names = {}
    for name in only_given:
        if (other := name.removesuffix("(t)") if name.endswith("(t)") else f"{name}(t)") in only_wanted:
            names[name] = other
            continue
        base = _differentiated(name)
        others = [other for other in only_wanted if base is not None and _differentiated(other) == base]
        if len(others) == 1 and (name.endswith("'") or others[0].endswith("'")):
            names[name] = others[0]
    if (
        only_given | only_wanted <= _FREE
        and len(only_given) == len(only_wanted) == 1
        and _solves_an_equation(gold, *only_wanted)
    ):
        names[next(iter(only_given))] = next(iter(only_wanted))
    return _renamed(answer, names) if names else answer


def _differentiated(name: str) -> str | None:
    """What a name is the first derivative of."""
    match = re.fullmatch(r"(?P<prime>[^':]+)'|dot:(?P<dot>.+)|D\[d(?P<above>\\?[A-Za-z]\w*)/d[a-z]\]", name)
    return match and next(filter(None, match.groups()))


def _solves_an_equation(gold: Tree, name: str) -> bool:
    return len(symbols(gold) - {name}) == 1 and bool(heads(gold) & _OF_SOLUTIONS) and _is_free(gold, name)


def _is_free(tree: Tree, name: str) -> bool:
    """The name stands once, as a factor of one term of a sum in x or t."""
    if tree[0] == "add":
        terms = [term for term in tree[1:] if name in symbols(term)]
        others = [term for term in tree[1:] if name not in symbols(term)]
        return len(terms) == 1 and bool(symbols(tree) & {"x", "t"}) and bool(others) and _is_factor(terms[0], name)
    return tree[0] == "mul" and any(_is_free(part, name) for part in tree[1:] if name in symbols(part))


def _is_factor(term: Tree, name: str) -> bool:
    if term[0] == "mul":
        return sum(part == ("sym", name) for part in term[1:]) == 1 and sum(name in symbols(part) for part in term[1:]) == 1
    return term == ("sym", name)


def _renamed(tree: Tree, names: dict[str, str]) -> Tree:
    if tree[0] == "sym":
        return ("sym", names.get(tree[1], tree[1]))
    return tuple(_renamed(part, names) if isinstance(part, tuple) else part for part in tree)
