r"""Matches names that are written differently in two formulas but mean the same, given both formulas.

- A derivative: y' and \frac{dy}{dt}, if each formula has only one of the two.
- A function of time with and without its argument: \theta and \theta(t).
- Free constants of a solution: A e^t + B e^{-t} and c_1 e^t + c_2 e^{-t}. They must be called c or C in the gold, with or
  without an index, each a factor of one term of a sum, and there must be exactly one other letter, the variable.

Case matters in all other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from sfpo.rewards.expression import Tree
from sfpo.rewards.values import functions_in, symbols

MAX_CONSTANTS = 4
_OF_SOLUTIONS = frozenset(("e", "exp", "sin", "cos", "sinh", "cosh", "ln"))
"""A solution with free constants as factors contains at least one of these functions; an added constant, x^2/2 + C, needs
none."""


def with_names_of(gold: Tree, answer: Tree) -> Tree:
    """Rename derivatives and functions of time in the answer to the gold's names."""
    given, wanted = symbols(answer), symbols(gold)
    only_given, only_wanted = given - wanted, wanted - given
    names = {}
    for name in only_given:
        if (other := name.removesuffix("(t)") if name.endswith("(t)") else f"{name}(t)") in only_wanted:
            names[name] = other
            continue
        base = _differentiated(name)
        others = [other for other in only_wanted if base is not None and _differentiated(other) == base]
        if len(others) == 1 and (name.endswith("'") or others[0].endswith("'")):
            names[name] = others[0]
    return _renamed(answer, names) if names else answer


def with_constants_of(gold: Tree, answer: Tree) -> Iterator[Tree]:
    """Yield the answer with its free constants renamed to the gold's, in every order; nothing if the gold has none."""
    names, given = symbols(gold), symbols(answer)
    free = sorted(name for name in names if re.fullmatch(r"[cC](?:_\d)?", name))
    if not 1 <= len(free) <= MAX_CONSTANTS or len(names) != len(free) + 1 or len(given) != len(names):
        return
    if not (
        given >= names - set(free) and all(_is_free(gold, name, bool(functions_in(gold) & _OF_SOLUTIONS)) for name in free)
    ):
        return
    own = sorted(given - (names - set(free)))
    if all(re.fullmatch(r"[A-Za-z](?:_\d)?", name) for name in own):
        yield from (_renamed(answer, dict(zip(own, order, strict=True))) for order in permutations(free))


def _differentiated(name: str) -> str | None:
    """The name whose first derivative this is; None if it is not a derivative."""
    match = re.fullmatch(r"(?P<prime>[^':]+)'|dot:(?P<dot>.+)|D\[d(?P<above>\\?[A-Za-z]\w*)/d[a-z]\]", name)
    return match and next(filter(None, match.groups()))


def _is_free(tree: Tree, name: str, as_factor: bool) -> bool:
    """Whether the name occurs once, as a term of a sum or (``as_factor``) as a factor of a term."""
    if tree[0] == "add":
        terms = [term for term in tree[1:] if name in symbols(term)]
        return len(terms) == 1 and len(tree) > 2 and (terms[0] == ("sym", name) or (as_factor and _is_factor(terms[0], name)))
    return tree[0] == "mul" and any(_is_free(part, name, as_factor) for part in tree[1:] if name in symbols(part))


def _is_factor(term: Tree, name: str) -> bool:
    return term[0] == "mul" and [part for part in term[1:] if name in symbols(part)] == [("sym", name)]


def _renamed(tree: Tree, names: dict[str, str]) -> Tree:
    if tree[0] == "sym":
        return ("sym", names.get(tree[1], tree[1]))
    return tuple(_renamed(part, names) if isinstance(part, tuple) else part for part in tree)
