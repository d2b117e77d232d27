r"""Extracts the answer from a response: the last box, or the last boxes that belong together.

A box is \boxed{...}, \boxed 7 without braces, or another command that draws a frame. Data preparation extracts golds from
worked solutions with ``extract_boxed`` too, so both follow the same rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRAMES = "boxed|Boxed|fbox|framebox|ovalbox|Ovalbox|doublebox|shadowbox|bbox|mathbox"
_RUN = r"(?!\\f?box)(?:\\[^\sA-Za-z]|[^\s${}]|\{(?:[^{}]|\{[^{}]*\})*\})"
_TOKEN = re.compile(
    rf"\\(?:{_FRAMES})(?![A-Za-z])\*?\s*(?:\[[^\[\]{{}}]*\]\s*)*\{{"
    r"|\\(?:colorbox|fcolorbox\s*\{[^{}]*\})\s*\{[^{}]*\}\s*\{"
    # \boxed 7: up to a space or a dollar sign, as in the code of MATH (Hendrycks et al.); a word of prose is not an answer
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
"""Maximum number of characters between two boxes that belong together."""
MAX_LABEL = 60
"""Number of characters before a box that are searched for its label."""
MAX_CHOICE = 200
"""Maximum number of characters of a multiple-choice label with its text."""
MAX_JOINED = 32
"""Maximum number of boxes of one answer."""


@dataclass(frozen=True)
class Boxes:
    """The boxes at the end of a response."""

    last: str
    """Content of the last box."""
    together: str | None = None
    r"""The last boxes that belong together, as one list: '3; 5' for \boxed{3} and \boxed{5}. None if there is only one."""
    listed: bool = False
    """They are joined by a comma, 'and' or 'or': then only all of them together are the answer, never only the last."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Possible interpretations of the answer; it is correct if any of them equals the gold."""
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
    r"""('(C)', '10') for a multiple-choice label with its text, \textbf{(C) } 10; empty for anything else."""
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
    """The last non-empty box, and those before it that belong to the same answer; None if there is no complete box."""
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
        listed = False  # the same answer, repeated
    if len(group) == 1:
        return Boxes(contents[-1])
    names = [_name_before(text[max(0, begin - 40) : begin]) for begin, *_ in group]
    named = [content if "=" in content else name + content for name, content in zip(names, contents, strict=True)]
    return Boxes(contents[-1], "; ".join(named), listed)


def _join(before: str, between: str) -> bool | None:
    """Whether two boxes belong together, given the texts before the first and between them. True: by a list separator; False:
    by a line break, or a label for each; None: they do not."""
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
    r"""Content of the last complete box (for nested boxes, of the innermost); None if there is none."""
    boxes = find_boxes(text)
    return boxes.last if boxes else None


def _spans(text: str) -> list[tuple[int, int, int, int]]:
    """Positions of every complete innermost box: start of its command, start and end of its content, end of the box."""
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
