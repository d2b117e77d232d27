"""Gold answers of published mathematics data sets, converted from their formats to strings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sfpo.data.tables import plain_number, sound_text
from sfpo.rewards.boxes import extract_boxed
from sfpo.schema import ConfigError

_BARE_BOX = re.compile(r"\\boxed\s*(-?\d[\d.,/]*)")
_THOUSANDS = re.compile(r"([^\d()\[\]{}]*)(\d{1,3}(?:,\d{3})+)((?:\.\d+)?[^\d,()\[\]{}]*)")


def golds(where: str, value: Any, answer_format: str = "plain") -> tuple[str, ...]:
    """The gold answers of one row; several if the value is a list.

    Raises:
        ConfigError: the value has a type that is not allowed.
    """
    value = ANSWER_FORMATS[answer_format](where, value)
    return tuple(_unboxed(_text(where, one)) for one in (value if isinstance(value, list) else [value]))


def last_boxed(text: str) -> str:
    r"""Content of the last \boxed{...}, as the grader reads it; without one, the number after the last bare \boxed, as in
    '\boxed 7'; empty where there is neither. A \boxed in prose boxes nothing."""
    boxed = extract_boxed(text)
    if boxed is not None:
        return boxed
    bare = _BARE_BOX.findall(text)
    return bare[-1].rstrip(".,/") if bare else ""


def _unboxed(gold: str) -> str:
    r"""A gold that comes with its box, as '\boxed{7}', '$\boxed 7$' or 'So \boxed{7}.', is what is in it."""
    return last_boxed(gold) or gold if r"\boxed" in gold else gold


def _last_boxed(where: str, solution: Any) -> str:
    return last_boxed(_text(where, solution))


def _first_of_list(where: str, answers: Any) -> str:
    if not isinstance(answers, list):
        raise ConfigError(f"{where}: answer_format is first_of_list, but the answer is of type {type(answers).__name__}")
    return _text(where, answers[0]).replace("$", "") if answers else ""


def _first_of_json_list(where: str, text: Any) -> str:
    try:
        return _first_of_list(where, json.loads(_text(where, text)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: answer_format is first_of_json_list, but the answer is not JSON ({error})") from None


def _after_hashes(where: str, solution: Any) -> str:
    """The text after '####', without thousands separators ('1,200' but not '(1,2)'); empty if there is no '####'."""
    _, mark, answer = _text(where, solution).rpartition("####")
    number = _THOUSANDS.fullmatch(answer.strip())
    return (number[1] + number[2].replace(",", "") + number[3] if number else answer.strip()) if mark else ""


ANSWER_FORMATS: dict[str, Callable[[str, Any], Any]] = {
    "plain": lambda where, answer: answer,
    "last_boxed": _last_boxed,
    "first_of_list": _first_of_list,
    "first_of_json_list": _first_of_json_list,
    "after_hashes": _after_hashes,
}


def _text(where: str, value: Any) -> str:
    """A gold as a string, with integers in canonical form ('033' and 33.0 become '33') and None as ''."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ConfigError(
            f"{where}: the answer is of type {type(value).__name__}; allowed are a string, a number, or a list of them"
        )
    text = sound_text(where, "the answer", value).strip() if isinstance(value, str) else plain_number(value)
    return re.sub(r"^(-?)0+(?=\d+$)", r"\1", text)
