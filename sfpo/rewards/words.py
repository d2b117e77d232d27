r"""Answers in words: no, Evelyn, an ellipse, A and C. Words are equal as words, never as products of letters.

Without \text, letters side by side are words if they could be one: with a vowel, or all in capitals. So "no" is not "on" and
ACBD not ABCD, nor is "n o" or "n \cdot o"; "ba" for "ab" is rejected too, while xy and mgh are products.
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
"""Whole numbers in words."""


def in_words(body: str) -> bool:
    """Whether a body without \\text reads as words: letters alone, of which some could be a word."""
    return _LETTERS_ONLY.fullmatch(body) is not None and any(
        re.search("[aeiouAEIOU]", run) or run.isupper() for run in _RUN.findall(body)
    )


def scrambled(given: str, wanted: str) -> bool:
    """The letters of the words in another order, with blanks or signs of a product between."""
    letters = re.sub(r"\\(?:cdot|times|,)(?![A-Za-z])|[ .,*{}]", "", given)
    return letters.isalpha() and sorted(letters.casefold()) == sorted(re.sub(r"[^A-Za-z]", "", wanted).casefold())


def folded(body: str) -> str:
    """In small letters, where the letters are surely words: plain words of four letters and more, and a few small ones."""

    def fold(match: re.Match[str]) -> str:
        word = match[0]
        plain = word.islower() or word.isupper() or word.istitle()
        long = len(word) > 3 and re.search("[aeiouyAEIOUY]", word) is not None
        return word.casefold() if plain and (long or word.casefold() in _SMALL) else word

    return re.sub("[A-Za-z]+", fold, body)


def same_words(given: str, wanted: str) -> bool:
    """Words in their order, without an article; the letters of a choice of several in any; an equation from either side."""
    return _members(given) == _members(wanted)


def _members(body: str) -> list[str]:
    if body.count("=") == 1:
        return ["=", *sorted(side.strip() for side in body.split("="))]
    members = [_ARTICLE.sub("", re.sub(r" +", " ", member).strip("(). ")).strip("()") for member in body.split(",")]
    return sorted(members) if all(len(member) == 1 for member in members) else members
