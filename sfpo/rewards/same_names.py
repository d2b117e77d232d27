r"""Names that are one thing in two spellings, which only the two formulas side by side can tell.

- A derivative: y' and \frac{dy}{dt}, where the other formula has just the one.
- A function of time without its argument: \theta for \theta(t).
- The free constants of a solution: A e^t + B e^{-t} for c_1 e^t + c_2 e^{-t}. In the gold they are called c or C, with an index
  or without, each is a factor of one term of a sum, and there is one more letter, the variable.
Case matters in all other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from sfpo.rewards.expression import Tree
from sfpo.rewards.values import heads, symbols

MAX_CONSTANTS = 4
_OF_SOLUTIONS = frozenset(("e", "exp", "sin", "cos", "sinh", "cosh", "ln"))
"""Functions of which one is in a solution with free constants, unless they stand alone, as in x^2/2 + C."""


def with_names_of(gold: Tree, answer: Tree) -> Tree:
    """The answer with the gold's names for derivatives and functions of time."""
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
    """The answer with the gold's free constants for its own, in every order; nothing where the gold has none."""
    names, given = symbols(gold), symbols(answer)
    free = sorted(name for name in names if re.fullmatch(r"[cC](?:_\d)?", name))
    if not 1 <= len(free) <= MAX_CONSTANTS or len(names) != len(free) + 1 or len(given) != len(names):
        return
    if not (given >= names - set(free) and all(_is_free(gold, name, bool(heads(gold) & _OF_SOLUTIONS)) for name in free)):
        return
    own = sorted(given - (names - set(free)))
    if all(re.fullmatch(r"[A-Za-z](?:_\d)?", name) for name in own):
        yield from (_renamed(answer, dict(zip(own, order, strict=True))) for order in permutations(free))


def _differentiated(name: str) -> str | None:
    """What a name is the first derivative of."""
    match = re.fullmatch(r"(?P<prime>[^':]+)'|dot:(?P<dot>.+)|D\[d(?P<above>\\?[A-Za-z]\w*)/d[a-z]\]", name)
    return match and next(filter(None, match.groups()))


def _is_free(tree: Tree, name: str, as_factor: bool) -> bool:
    """The name stands once: alone, or as a factor of one term, in a sum with other terms."""
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
