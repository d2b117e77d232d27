r"""Answers in words: no, Evelyn, an ellipse, A and C. Words are compared as words, never as products of letters.

Without \text, adjacent letters are words if they could be one: with a vowel, or all in capitals. So "no" does not equal "on",
nor ACBD ABCD, and neither "n o" nor "n \cdot o" equals "no"; "ba" for "ab" is rejected too, while xy and mgh are products.
"""

from __future__ import annotations

import re

_LETTERS_ONLY = re.compile(r"[A-Za-z][A-Za-z '.,=:;?!-]*")
_RUN = re.compile(r"[A-Za-z]{2,}")
_SMALL = frozenset({"no", "yes", "odd", "all", "any", "one", "two", "six", "ten"})
_ARTICLE = re.compile(r"^(?:the|an?) (?=[a-z]{3})|^(?:option|choice|answer) (?=\(?[a-zA-Z]\)?$)", re.IGNORECASE)
_IN_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBERS = {word: str(value) for value, word in enumerate(_IN_WORDS)} | {
    f"{ten}{separator}{unit}": str(10 * tens + units)
    for tens, ten in enumerate(_TENS, 2)
    for units, unit in enumerate(("", *_IN_WORDS[1:10]))
    for separator in (("-", " ") if unit else ("",))
}
"""Integers in words -> digits."""


def in_words(body: str) -> bool:
    """Whether a body without \\text consists of words: only letters, of which some could form a word."""
    return _LETTERS_ONLY.fullmatch(body) is not None and any(
        re.search("[aeiouAEIOU]", run) or run.isupper() for run in _RUN.findall(body)
    )


def rearranged(given: str, wanted: str) -> bool:
    """Whether one is the other's letters in a different order, with spaces or product signs in between."""
    letters = re.sub(r"\\(?:cdot|times|,)(?![A-Za-z])|[ .,*{}]", "", given)
    return letters.isalpha() and sorted(letters.casefold()) == sorted(re.sub(r"[^A-Za-z]", "", wanted).casefold())


def lowercased(body: str) -> str:
    """Convert letters that are certainly words to lower case: plain words of at least four letters, and a few short ones."""

    def fold(match: re.Match[str]) -> str:
        word = match[0]
        plain = word.islower() or word.isupper() or word.istitle()
        long = len(word) > 3 and re.search("[aeiouyAEIOUY]", word) is not None
        return word.casefold() if plain and (long or word.casefold() in _SMALL) else word

    return re.sub("[A-Za-z]+", fold, body)


def same_words(given: str, wanted: str) -> bool:
    """Whether the words are the same in the same order, ignoring articles. Letters of a multiple choice may have any order, and
    the sides of an equation may be swapped."""
    return _members(given) == _members(wanted)


def _members(body: str) -> list[str]:
    if body.count("=") == 1:
        return ["=", *sorted(side.strip() for side in body.split("="))]
    members = [_ARTICLE.sub("", re.sub(r" +", " ", member).strip("(). ")).strip("()") for member in body.split(",")]
    return sorted(members) if all(len(member) == 1 for member in members) else members
