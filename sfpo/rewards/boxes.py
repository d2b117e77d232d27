r"""Where a response gives its answer: the last box, or the last boxes that belong together. No sympy in here.

A box is \boxed{...} or another command that draws a frame, and \boxed 7 without braces. Data preparation reads golds out of
solutions with ``extract_boxed`` too, so that a solution's answer and a response's answer are found by one rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRAMES = "boxed|Boxed|fbox|framebox|ovalbox|Ovalbox|doublebox|shadowbox|bbox|mathbox"
_RUN = r"(?!\\f?box)(?:\\[^\sA-Za-z]|[^\s${}]|\{(?:[^{}]|\{[^{}]*\})*\})"
_TOKEN = re.compile(
    rf"\\(?:{_FRAMES})(?![A-Za-z])\*?\s*(?:\[[^\[\]{{}}]*\]\s*)*\{{"
    r"|\\(?:colorbox|fcolorbox\s*\{[^{}]*\})\s*\{[^{}]*\}\s*\{"
    # \boxed 7: up to a blank or a dollar sign, as the authors of MATH read it; a word of prose is no answer
    rf"|\\(?:boxed|fbox)(?:(?=[^A-Za-z\s])|\s+)(?:"
    rf"(?P<closed>(?!\{{)(?:{_RUN})+)(?=\$)|(?P<bare>[-+]?(?:[\d.(]|\\[A-Za-z{{$])(?:{_RUN})*)|(?P<letter>[A-Za-z])(?=\s*(?:\.|\Z)))"
    r"|\\.|[{}]",
    re.DOTALL,
)
_SPACE = r"\s|\$|\*\*|\\[,;:! ]|\\q?quad(?![A-Za-z])|~"
_UNIT = r"\^ ?\{?\\circ\}?|°|\\%|%|\\text\s*\{[a-z /.]*\}|(?:mm|cm|km|m|kg|g|s|degrees|units|dollars)(?![A-Za-z])"
_FRAME = re.compile(rf"\\(?:{_FRAMES}|colorbox|fcolorbox)(?![A-Za-z])")
_CLOSERS = rf"(?:{_SPACE}|\\[\])]|\}}|{_UNIT})*"
_MARKER = r"[-*•](?=\s)|\(?(?:[a-h]|\d{1,2}|[ivx]{1,4})[.)](?=\s)|\\item(?![A-Za-z])|\\\\|&"
_OPENERS = rf"(?:{_SPACE}|\\[\[(]|{_MARKER})*"
_VARIABLE = r"(?:[A-Za-z]|\\[a-z]{2,8})(?:_\s*(?:\{\w+\}|\w))?'?(?:\([a-z]\))?|\([a-z](?:\s*,\s*[a-z])+\)"
_NAME = rf"(?:(?:{_VARIABLE})\s*&?=)?\s*"
_JOIN = r"(?:[,;]?\s*(?:\\text\s*\{\s*)?(?:,\s*)?(?:and|or|as well as)(?![A-Za-z])\s*\}?|[,;&])"
_JOINED = re.compile(rf"{_CLOSERS}{_JOIN}{_OPENERS}(?P<name>{_NAME}){_OPENERS}")
_NEXT_LINE = re.compile(rf"{_CLOSERS}\.?{_CLOSERS}{_OPENERS}(?P<name>{_NAME}){_OPENERS}")
# Two boxes of one sentence, or of two lines, each with a label of its own: the smallest is ... and the largest is ...
_LABEL = r"the [a-z]+(?: [a-z]+)? (?:is|are|equals|=)"
_LINE_LABEL = r"[-* ]*[A-Z]?[a-z]+(?: [a-z]+){0,2}:"
_LABELLED = (
    (re.compile(rf"(?i:{_LABEL})[\s$]*$"), re.compile(rf"{_CLOSERS}{_JOIN}\s*{_LABEL}[\s$]*")),
    (re.compile(rf"(?:^|\n){_LINE_LABEL}[\s$]*$"), re.compile(rf"{_CLOSERS}\.?{_CLOSERS}\n\s*{_LINE_LABEL}[\s$]*")),
)
_ANOTHER_MIND = re.compile(
    r"\b(?:wait|no|not|actual|but|so|thus|hence|therefore|then|instead|rather|correct\w*|sorry|check\w*|final\w*|revis\w*|answer"
    r"|should|wrong|mistake|update\w*|total|sum|result|value|reflection|better|improved|review|initial\w*|attempt|guess|hmm|oops"
    r"|verif\w*|double|recheck\w*|right|true|real|proper|exact|later|again|new|old|first|previous|original|solution)\b",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(rf"(?:^|[\s$(\[,;])(?P<name>{_NAME})[\s$]*$")
MAX_BETWEEN = 80
"""Characters between two boxes that belong together, at most."""
MAX_LABEL = 60
"""Characters before a box that may be its label."""
MAX_CHOICE = 200
"""Characters of a choice and its text, at most."""
MAX_JOINED = 32
"""Boxes of one answer, at most."""


@dataclass(frozen=True)
class Boxes:
    """What a response boxed at its end."""

    last: str
    """Content of the last box."""
    together: str | None = None
    r"""The boxes that end in the last one and belong together, as one list: '3; 5' for \boxed{3} and \boxed{5}."""
    listed: bool = False
    """They are joined by a comma, 'and' or 'or': all of them are the answer, not the last alone."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The readings of which one must be the gold."""
        if self.together is None:
            return (self.last, *_choice_and_text(self.last))
        return (self.together,) if self.listed else (self.last, self.together)


_LABEL_OF_CHOICE = r"(?P<label>\([A-J]\)|[A-J][.):])"
_CHOICES = [
    re.compile(pattern)
    for pattern in (
        rf"\\(?:text|math)[a-z]{{,6}}\s*\{{\s*{_LABEL_OF_CHOICE}\s*\}}(?:{_SPACE})*(?P<text>[^\s].*)",
        rf"(?P<font>\\(?:text|math)[a-z]{{,6}}\s*)\{{\s*{_LABEL_OF_CHOICE}(?:{_SPACE})+(?P<text>[^{{}}]+)\}}",
        rf"{_LABEL_OF_CHOICE}(?:{_SPACE})+(?P<text>.+)",
    )
]
_NOT_ITS_TEXT = re.compile(
    r"\s*(?:\\text\s*\{\s*)?(?:(?:or|and|nor|but|not|is|has|are)(?![A-Za-z])|-(?!\d|\\frac)|[+*/=^_<>,;&|:]|[A-J]$|\\(?:cup|cap|cdot|times|pm)(?![a-z]))"
)
_ANY_LABEL = re.compile(r"\([A-J]\)|(?<![A-Za-z])[A-J][.):](?!\d)")


def _choice_and_text(content: str) -> tuple[str, ...]:
    r"""'(C)' and '10' for a choice that is given with its text, \textbf{(C) } 10; nothing for anything else."""
    if len(content) > MAX_CHOICE:
        return ()
    for pattern in _CHOICES:
        if match := pattern.fullmatch(content.strip()):
            text = match["text"].strip()
            if _NOT_ITS_TEXT.match(text) or _ANY_LABEL.search(text):
                return ()
            text = f"{match['font']}{{{text}}}" if match.groupdict().get("font") else text
            return (match["label"].rstrip(".:"), text)
    return ()


def find_boxes(text: str) -> Boxes | None:
    """The last box with content, and the ones before it that belong to it; None where no box is complete."""
    boxes = _spans(text)
    if not boxes:
        return None
    filled = [box for box in boxes if text[box[1] : box[2]].strip()] or boxes[-1:]
    group, listed = [filled[-1]], True
    for earlier in reversed(filled[:-1]):
        if len(group) == MAX_JOINED:
            break
        joined = _join(text[max(0, earlier[0] - MAX_LABEL) : earlier[0]], text[earlier[3] : group[0][0]])
        if joined is None:
            break
        listed &= joined
        group.insert(0, earlier)
    contents = [text[start:end].strip() for _, start, end, _ in group]
    if len(set(contents)) == 1 and len(group) > 1:
        listed = False  # the same answer again
    if len(group) == 1:
        return Boxes(contents[-1])
    names = [_name_before(text[max(0, begin - 40) : begin]) for begin, *_ in group]
    named = [content if "=" in content else name + content for name, content in zip(names, contents, strict=True)]
    return Boxes(contents[-1], "; ".join(named), listed)


def _join(before: str, between: str) -> bool | None:
    """How two boxes belong together, from the texts before the first and between them: True by a sign of a list, False by a new
    line or a label for each. None: they do not."""
    if len(between) > MAX_BETWEEN:
        return None
    plain = re.sub(r"\s+", " ", between)
    if _JOINED.fullmatch(plain):
        return True
    if _NEXT_LINE.fullmatch(plain):
        return False
    for first, second in _LABELLED:
        if (label := first.search(before)) and second.fullmatch(between) and not _ANOTHER_MIND.search(label[0] + between):
            return False
    return None


def extract_boxed(text: str) -> str | None:
    r"""Content of the last box that is complete (of nested boxes the inner one); None where there is none."""
    boxes = find_boxes(text)
    return boxes.last if boxes else None


def _spans(text: str) -> list[tuple[int, int, int, int]]:
    """Of every complete box that holds no other: where its command, its content, the content's end and its own end are."""
    if (first := _FRAME.search(text)) is None:
        return []
    found: list[tuple[int, int, int, int]] = []
    opened: list[tuple[int, int, bool]] = []
    for token in _TOKEN.finditer(text, first.start()):
        if token.lastgroup:
            found.append((token.start(), *_without_stop(text, *token.span(token.lastgroup)), token.end()))
        elif token[0] == "}":
            if opened:
                begin, start, boxed = opened.pop()
                if boxed and not (found and found[-1][0] > begin):
                    found.append((begin, start, token.start(), token.end()))
        elif token[0][-1] == "{" and len(token[0]) != 2:  # an escaped brace has length 2
            opened.append((token.start(), token.end(), len(token[0]) > 1))
    return found


def _without_stop(text: str, start: int, end: int) -> tuple[int, int]:
    while end > start + 1 and text[end - 1] in ".,;:":
        end -= 1
    return start, end


def _name_before(text: str) -> str:
    match = _NAME_BEFORE.search(text)
    return match["name"].replace("&", "").strip() + " " if match and match["name"].strip() else ""
