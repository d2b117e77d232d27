r"""Equivalence of answers where text is not enough: lists, tuples, sets, families of solutions, angles and formulas.

Formulas are parsed by sfpo.rewards.expression and compared at sample points by sfpo.rewards.sampling. What these cannot parse
counts as not equal. Runs in the grader's worker processes, so that no answer can block or kill the calling process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from string import ascii_letters

from sfpo.rewards.answer_text import (
    MAX_CHARACTERS,
    claim,
    compare_in_radians,
    enclosed,
    quick_verdict,
    read,
    split_list,
    without_for_all,
)
from sfpo.rewards.expression import ParseError, parse
from sfpo.rewards.families import Condition, renamed, same_family, split_condition
from sfpo.rewards.matrices import Matrix, as_column, read_matrix
from sfpo.rewards.numerals import number
from sfpo.rewards.real_sets import as_interval, same_set
from sfpo.rewards.same_names import with_constants_of, with_names_of
from sfpo.rewards.sampling import equal_formulas, proportional
from sfpo.rewards.units import in_radians
from sfpo.rewards.values import budget, constant, is_uncomputed

_RELATION = re.compile(r"\\(?P<word>le|ge|ne)(?![A-Za-z])|(?P<sign>[<>=])")
_LETTER_OF_A_FAMILY = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
MAX_MEMBERS = 40
"""Maximum length of a list that is compared in any order."""


def equivalent(answers: Sequence[str], golds: Sequence[str]) -> bool:
    """True if one of the answer's interpretations equals the golds: all of them and nothing else, in any order.

    Raises:
        BudgetExceeded: the comparison needs more than MAX_OPERATIONS.
    """
    with budget():
        return any(_equivalent(answer, golds) for answer in answers if len(answer) <= MAX_CHARACTERS)


def _equivalent(answer: str, golds: Sequence[str]) -> bool:
    if len(golds) == 1 and _same(answer, golds[0]):
        return True
    family = _same_as_family(answer, golds)
    if family is not None:
        return family
    if len(golds) > 1 and all(compare_in_radians(read(answer), read(gold)) for gold in golds):
        answer, golds = in_radians(read(answer).source), [in_radians(read(gold).source) for gold in golds]
    return _same_list(_items(answer), [item for gold in golds for item in _items(gold)])


def _items(latex: str) -> list[str]:
    r"""The elements of a list or set, in any of the notations '1, 2', '\{1, 2\}', 'x = 1, 2' and 'x \in \{1, 2\}'."""
    body = read(latex).body
    value = claim(body)[1]
    return split_list(value[2:-2] if enclosed(value) == (r"\{", r"\}") else body)


def _same_list(given: list[str], wanted: list[str]) -> bool:
    """Whether the lists match one to one in any order. If only one names its elements (x = ..., y = ...), the other must be in
    the order of these variables."""
    if len(given) != len(wanted) or len(wanted) < 2 or len(wanted) > MAX_MEMBERS:
        return False
    given_names, wanted_names = ([claim(item)[0] for item in items] for items in (given, wanted))
    if (_distinct(given_names) and not any(wanted_names)) or (_distinct(wanted_names) and not any(given_names)):
        return all(map(_same, _by_variable(given), _by_variable(wanted)))
    left = list(given)
    for gold in wanted:
        match = next((index for index, item in enumerate(left) if _same(item, gold)), None)
        if match is None:
            return False
        del left[match]
    return True


def _distinct(names: list[str]) -> bool:
    """Whether the names are different variables, such as x and y; x_1 and x_2 are two values of the same variable."""
    return len({re.split("[_']", name)[0] for name in names}) == len(names) and all(names)


def _by_variable(items: list[str]) -> list[str]:
    """Sort elements by variable: x = -7, y = 4 for y = 4, x = -7. Only if the variables are consecutive letters."""
    names = [claim(item)[0] for item in items]
    if "".join(sorted(names)) not in ascii_letters:
        return items
    return sorted(items, key=lambda item: claim(item)[0])


def _same_as_family(answer: str, golds: Sequence[str]) -> bool | None:
    """Whether answer and gold are the same family of solutions; None if the gold is not a family."""
    given, wanted = read(answer), [read(gold) for gold in golds]
    texts = [given.source, *(one.source for one in wanted)]
    if any(map(_in_degrees, texts)):
        texts = [in_radians(text) for text in texts]
    given_names, given_items, given_condition = _family(texts[0])
    parts = [_family(text) for text in texts[1:]]
    wanted_items = [item for _, items, _ in parts for item in items]
    wanted_names = set().union(*(names for names, _, _ in parts))
    condition = next((found for _, _, found in parts if found), None)
    if not all(_LETTER_OF_A_FAMILY.search(item) for item in wanted_items):
        return None
    if given_names and wanted_names and not given_names & wanted_names:
        return None  # x = ... and y = ...
    verdict = same_family(given_items, given_condition, wanted_items, condition)
    if verdict is None and (given_condition or condition):
        return _without_conditions(given_items, given_condition, wanted_items, condition)
    return verdict


def _in_degrees(source: str) -> bool:
    return r"\text{degree}" in source


def _family(source: str) -> tuple[set[str], list[str], Condition | None]:
    """(names, formulas, condition) of a text that may be a family of solutions."""
    text, condition = split_condition(source)
    claims = [claim(item) for item in split_list(read(text).body)]
    return {name for name, _ in claims if name}, [value for _, value in claims], condition


def _without_conditions(given, given_condition, wanted, condition) -> bool:
    r"""Compare elements up to the parameter's name and condition: k\pi, k \in \mathbb{Z} with k\pi; (2n, 3n) with (2k, 3k),
    k \in \mathbb{N}.

    A condition that the parameter is an integer may be stated or omitted; any other condition may be omitted, but if it is
    stated it must be the gold's.
    """
    if given_condition and given_condition.whole != (condition is None or condition.whole):
        return False
    if condition:
        letter = given_condition.letter if given_condition else _only_letter(given)
        given = renamed(given, letter, condition.letter) if letter else given
    if len(given) == len(wanted) == 1:
        return _same(given[0], wanted[0])
    return _same_list(given, wanted)


def _only_letter(items: list[str]) -> str | None:
    letters = set(_LETTER_OF_A_FAMILY.findall(" ".join(items))) - {"e", "i"}
    return letters.pop() if len(letters) == 1 else None


def _same(answer: str, gold: str) -> bool:
    """Whether a single answer equals a single gold."""
    if (verdict := quick_verdict(answer, gold)) is not None:
        return verdict
    given_answer, wanted_answer = read(answer), read(gold)
    if compare_in_radians(given_answer, wanted_answer):
        return _same(in_radians(given_answer.source), in_radians(wanted_answer.source))
    if (verdict := same_set(given_answer.source, wanted_answer.source)) is not None:
        return verdict
    intervals = as_interval(given_answer.source), as_interval(wanted_answer.source)
    if (intervals[0] is None) != (intervals[1] is None):
        return _same(intervals[0] or answer, intervals[1] or gold)
    if r"\approx" in given_answer.body or r"\approx" in wanted_answer.body:
        return _sound(given_answer.body) and _same(_exact(given_answer.body), _exact(wanted_answer.body))
    answer, gold = without_for_all(given_answer.body), wanted_answer.body
    (given_name, given), (wanted_name, wanted) = claim(answer), claim(gold)
    variables = _other_variable(given_name, wanted_name)
    if variables and not re.search(rf"(?<![A-Za-z\\]){variables[1]}(?![A-Za-z])", given):
        given_name, (given,) = wanted_name, renamed([given], *variables)
        answer = f"{given_name} = {given}"
    if given_name.startswith("(") and not wanted_name and (letters := re.findall("[A-Za-z]", given_name)) != sorted(letters):
        return False  # (y,x) = ...
    if (wanted_name and "=" not in answer) or (given_name and "=" not in gold):
        answer, gold = given, wanted  # a name on only one side is dropped; two names, or an equation, are compared
        if (verdict := quick_verdict(answer, gold)) is not None:
            return verdict
    if (matrix := read_matrix(wanted)) is not None:
        return _same_matrix(read_matrix(given) or as_column(given), matrix)
    if (column := as_column(wanted)) and (matrix := read_matrix(given)):
        return _same_matrix(matrix, column)
    if (brackets := enclosed(wanted)) and (verdict := _same_brackets(given, wanted, brackets)) is not None:
        return verdict
    if len(items := split_list(gold)) > 1:
        return _same_list(_items(answer), items)
    answer = _with_binomials(answer, gold)
    return _same_formula(answer, gold, number_wanted=number(read(wanted).body) is not None)


_FUNCTION_NAME = re.compile(r"([A-Za-z])\(([a-z])\)")


def _other_variable(given_name: str, wanted_name: str) -> tuple[str, str] | None:
    """('t', 'x') for the names f(t) and f(x), whose variables differ; None otherwise."""
    given, wanted = _FUNCTION_NAME.fullmatch(given_name), _FUNCTION_NAME.fullmatch(wanted_name)
    return (given[2], wanted[2]) if given and wanted and given[1] == wanted[1] and given[2] != wanted[2] else None


_CHOSEN = re.compile(
    r"(?<![A-Za-z\\])(?:C ?_ ?(?P<n>\w|\{[^{}]*\}) ?\^ ?(?P<k>\w|\{[^{}]*\})"
    r"|C ?\^ ?(?P<k2>\w|\{[^{}]*\}) ?_ ?(?P<n2>\w|\{[^{}]*\})"
    r"|(?:\{ ?\})? ?[_^] ?(?P<n3>\w|\{[^{}]*\}) ?C ?_ ?(?P<k3>\w|\{[^{}]*\}))"
)


def _with_binomials(answer: str, gold: str) -> str:
    r"""Replace C_n^k, C^k_n and {}_nC_k by \binom{n}{k}, unless the gold has a letter C."""
    if "C" not in answer or re.search(r"(?<![A-Za-z\\])C", gold):
        return answer

    def written_out(match: re.Match[str]) -> str:
        upper, lower = (next(match[name] for name in names if match[name]) for names in (("n", "n2", "n3"), ("k", "k2", "k3")))
        return rf"\binom{{{upper.strip('{}')}}}{{{lower.strip('{}')}}}"

    return _CHOSEN.sub(written_out, answer)


def _exact(body: str) -> str:
    return body.split(r"\approx")[0].strip(" ")


def _sound(body: str) -> bool:
    r"""Whether the number after \approx is the value before it, rounded to the given digits."""
    value, *rounded = [part.split("=")[-1] for part in body.split(r"\approx")]
    try:
        exact, decimals = constant(parse(value)), [constant(parse(part)) for part in rounded]
    except ParseError:
        return True
    if exact is None or None in decimals:
        return True
    unit = [10.0 ** -len(part.partition(".")[2].strip()) for part in rounded]
    return all(abs(exact - decimal) <= one for decimal, one in zip(decimals, unit, strict=True))


def _same_brackets(given: str, wanted: str, brackets: tuple[str, str]) -> bool | None:
    """Compare tuples and intervals element by element; brackets must match, but a tuple may omit them. None: not tuples."""
    items = split_list(wanted[len(brackets[0]) : -len(brackets[1])])
    if len(items) < 2:
        return None
    found = enclosed(given)
    if found is None and brackets == ("(", ")") and len(loose := split_list(given)) > 1:
        found, given = brackets, f"({','.join(_by_variable(loose))})"
    if found is None:
        return None
    if found != brackets:
        return False
    given_items = split_list(given[len(found[0]) : -len(found[1])])
    if brackets == (r"\{", r"\}"):
        return _same_list(given_items, items)
    return len(given_items) == len(items) and all(map(_same, given_items, items))


def _same_matrix(given: Matrix | None, wanted: Matrix) -> bool:
    if given is None or [len(row) for row in given.rows] != [len(row) for row in wanted.rows]:
        return False
    same = _same_formula if given.factor or wanted.factor else _same
    return all(same(given.cell(i, k), wanted.cell(i, k)) for i, row in enumerate(wanted.rows) for k in range(len(row)))


# ---------------------------------------------------------------------------------------------- golds


_OF_A_SENTENCE = re.compile(
    r"(?<![A-Za-z\\])(?:is|are|was|were|be|equals?|has|have|where|such|that|which|because|answer|if|when|for|with|can|must)(?![A-Za-z])",
    re.IGNORECASE,
)


def in_a_sentence(gold: str) -> bool:
    """Whether the gold is a sentence, which no plain answer can equal: 'The answer is 5.', or 'x = 5 if y > 0'."""
    body = read(split_condition(read(gold).source)[0]).body
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", re.sub(r"\\(?:begin|end)\{\w+\}", "", body))
    words = re.findall(r"(?<![A-Za-z\\])[A-Z]?[a-z]{2,}(?![A-Za-z])", text)
    formula = re.search(r"[\d=+^<>\\]", text) is not None
    if _OF_A_SENTENCE.search(text):
        return formula or len(words) > 1
    return formula and len([word for word in words if len(word) > 2 and re.search("[aeiou]", word)]) > 1


# ---------------------------------------------------------------------------------------------- formulas and relations


def _same_formula(answer: str, gold: str, number_wanted: bool = False) -> bool:
    try:
        given, wanted = _sides(answer), _sides(gold)
        if number_wanted and set(given[1::2]) <= {"="}:
            tree = parse(given[-1])
            return not is_uncomputed(tree) and equal_formulas(tree, parse(wanted[-1])) is True
        if len(given) == 1 and len(wanted) == 1:
            left, right = parse(answer), parse(gold)
            candidates = chain([with_names_of(right, left)], with_constants_of(right, left))
            return any(equal_formulas(one, right) is True for one in candidates)
        if len(given) == len(wanted) == 3:
            return _same_relation(given, wanted)
    except ParseError:
        pass
    return False


def _sides(body: str) -> list[str]:
    """Split a relation: ['x+1', '<', '2'] for 'x+1 < 2'."""
    parts, start = [], 0
    for match in _RELATION.finditer(body):
        parts += [body[start : match.start()], match["word"] or match["sign"]]
        start = match.end()
    return [*parts, body[start:]]


def _same_relation(given: list[str], wanted: list[str]) -> bool:
    """Whether two relations are equivalent: the differences of their sides are proportional, as for 2x - y + 3 = 0 and
    y = 2x + 3, or for y > 2x and 2x - y < 0."""
    answer, gold = (("add", parse(left), ("mul", parse("-1"), parse(right))) for left, _, right in (given, wanted))
    sign = proportional(with_names_of(gold, answer), gold)
    if sign is None:
        return False
    opposite = {"<": ">", ">": "<", "le": "ge", "ge": "le"}
    return (given[1] if sign > 0 else opposite.get(given[1], given[1])) == wanted[1]
