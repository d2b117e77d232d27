r"""Normalizes notation: Unicode, formatting commands and plain text are converted to standard LaTeX.

General rules instead of lists of cases: compatibility characters are normalized by NFKC, invisible characters removed by their
Unicode category, Greek letters and digits of any script converted by their names. Every function takes linear time.
"""

from __future__ import annotations

import re
import unicodedata

# ---------------------------------------------------------------------------------------------- Unicode

_SIGNS = {
    "−": "-", "⁄": "/", "∕": "/", "÷": "/", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ",
    "∗": "*", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∖": r"\setminus ",
    "≤": r"\le ", "≦": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∞": r"\infty ", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ", "∅": r"\emptyset ", "⌀": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "′": "'", "’": "'", "‘": "'", "″": "''", "“": '"', "”": '"', "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ",
    "〉": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "ℏ": r"\hbar ",
    "ħ": r"\hbar ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∂": r"\partial ", "∆": r"\Delta ", "√": r"\sqrt ",
    "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "、": ",", "。": ".", "∠": r"\angle ", "△": r"\triangle ", "…": r"\ldots ",
    "⋯": r"\ldots ", "→": r"\to ", "∘": r"\circ ", "∶": ":",
}  # fmt: skip
_ROOT = re.compile(r"√ ?(\d[\d.]*)")
_VARIANTS = {"final sigma": "sigma", "lamda": "lambda"}


def plain_unicode(text: str) -> str:
    """Convert mathematical Unicode to LaTeX; letters of other scripts are kept."""
    if text.isascii():
        return text
    composed = _ROOT.sub(r"\\sqrt{\1}", unicodedata.normalize("NFC", text))
    out = "".join(map(_character, composed))
    return re.sub(r"([\^_])\{([^{}]*)\}(?:\1\{([^{}]*)\})+", _merged, out)


def _merged(match: re.Match[str]) -> str:
    """Merge consecutive superscript (or subscript) characters: ^{-}^{1}^{2} becomes ^{-12}."""
    return match[1] + "{" + "".join(re.findall(r"\{([^{}]*)\}", match[0])) + "}"


def _character(one: str) -> str:
    if one.isascii():
        return one
    if one in _SIGNS:
        return _SIGNS[one]
    category = unicodedata.category(one)
    if category == "Cf" or "\ufe00" <= one <= "\ufe0f" or one in "\u034f\u115f\u1160\u3164\uffa0":
        return ""  # joiners, direction marks, soft hyphens, variation selectors, fillers
    if category in ("Zs", "Zl", "Zp") or one == "\u2800":
        return " "
    if category == "Pd":
        return "-"
    if category == "Nd":
        return str(unicodedata.digit(one))
    kind, _, _ = unicodedata.decomposition(one).partition(" ")
    simple = unicodedata.normalize("NFKC", one)
    if kind == "<fraction>":
        top, _, bottom = simple.partition("⁄")
        return rf"\frac{{{top}}}{{{bottom}}}" if top and bottom else one
    if kind in ("<super>", "<sub>"):
        return ("^{" if kind == "<super>" else "_{") + "".join(map(_character, simple)) + "}"
    if simple != one:
        return "".join(map(_character, simple))
    name = unicodedata.name(one, "").lower()
    if match := re.fullmatch(r"greek (small|capital) letter (final sigma|[a-z]+)", name):
        letter = _VARIANTS.get(match[2], match[2])
        return "\\" + (letter if match[1] == "small" else letter.capitalize()) + " "
    return one


# ---------------------------------------------------------------------------------------------- the look

_STYLES = "mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|pmb|underline|emph|ensuremath|smash|mathop|mathord|fbox|boxed"
_TEXTS = "textbf|textit|textsf|textrm|texttt|textsc|textup|textnormal|textmd|text|mbox|hbox|mathrm"
_ARGUMENTS = {"textcolor": 1, "colorbox": 1, "fcolorbox": 2, "raisebox": 1, "scalebox": 1, "color": 1, "style": 1, "class": 1}
_WRAPPER = re.compile(rf"\\({_STYLES}|{_TEXTS}|{'|'.join(_ARGUMENTS)})(?![A-Za-z])\s*(?:\[[^\[\]]*\]\s*)?(?=\{{)")
_DECLARATION = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE"
    r"|huge|Huge|bfseries|itshape|rmfamily|boldmath|bf|it|rm|sf|strut|mathstrut|nonumber|notag|hfill|centering)(?![A-Za-z])"
    r"|\\(?:[hv]?phantom|[hv]space\*?|label|tag\*?) ?(?:\{[^{}]*\}|(?<=phantom).)"
)


def without_formatting(latex: str) -> str:
    r"""Remove fonts, colours, sizes, frames and phantoms: \mathbf{\frac{1}{2}} becomes {\frac{1}{2}}. \text{...} is kept."""
    if "\\" not in latex:
        return _without_markdown(latex)
    latex = _DECLARATION.sub(" ", latex)
    closing = matching_braces(latex)
    cuts: list[tuple[int, int]] = []
    for match in _WRAPPER.finditer(latex):
        name, start, opening = match[1], match.start(), match.end()
        for _ in range(_ARGUMENTS.get(name, 0)):
            if opening not in closing:
                break
            opening = closing[opening] + 1
            while latex[opening : opening + 1] == " ":
                opening += 1
        if name == "color" and latex[opening : opening + 1] != "{":
            cuts.append((start, opening))  # \color{red} 42
            continue
        if opening not in closing:
            continue
        content = latex[opening + 1 : closing[opening]]
        if re.fullmatch(_TEXTS, name) and not re.search(r"\\[A-Za-z]|(?<!\\)\$", content):
            continue
        simple = re.fullmatch(r"[^{}\\]*", content) is not None
        cuts.append((start, opening + simple))
        if simple:
            cuts.append((closing[opening], closing[opening] + 1))
    for start, end in sorted(cuts, reverse=True):
        latex = latex[:start] + latex[end:]
    return _without_markdown(latex)


def _without_markdown(text: str) -> str:
    match = re.fullmatch(r"\s*(\*\*|__|`)(.*?)\1\.?\s*", text, re.DOTALL)
    return match[2] if match else text


def matching_braces(text: str) -> dict[int, int]:
    """Position of every unescaped '{' that is closed -> position of its '}'."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for token in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if token[0] == "{":
            opened.append(token.start())
        elif token[0] == "}" and opened:
            found[opened.pop()] = token.start()
    return found


# ---------------------------------------------------------------------------------------------- plain text

_GREEK = "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi|omega"
_FUNCTIONS = "arc(?:sin|cos|tan|cot|sec|csc)h?|ar(?:sin|cos|tan)h|sinh?|cosh?|tanh?|coth?|sech?|csch?|log|ln|exp"
_WORDS = [
    (re.compile(rf"(?<![A-Za-z\\]){pattern}(?![A-Za-z])"), replacement)
    for pattern, replacement in [
        (r"a((?:sin|cos|tan)h?)(?= ?\()", r"\\arc\1"),
        (rf"({_FUNCTIONS})(?= ?[\w(\\^])", r"\\\1"),
        (r"(sin|cos|tan|ln|log)x", r"\\\1 x"),
        (rf"({_GREEK}|pi|infty)", r"\\\1 "),
        (r"(?:infinity|inf|oo)", r"\\infty "),
        (r"union", r"\\cup "),
    ]
]
_MARKS = [
    (re.compile(r"(?<=\d)\.(?= ?[/*])"), ""),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\+/?-(?= ?[\d\\a-z(])"), r"\\pm "),
    (re.compile(r"(?<![A-Za-z\\])sqrt ?(\d+|[a-z](?![A-Za-z]))"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=[\w)}\]!]) ?\* ?(?=[\w(\\{+-])"), r" \\cdot "),
    (re.compile(r"(?<!<)<=(?!>)"), r"\\le "),
    (re.compile(r"(?<!=)>="), r"\\ge "),
    (re.compile(r"^([a-z]) ?!= ?(?=-?\d)|(?<= )!=(?= )"), r"\1\\ne "),  # 5!=120 is an equation
    (re.compile(r"=="), "="),
    (re.compile(r"(?<![A-Za-z\\])([a-z]) in (?=[\[({\\]|[RZN]\b)"), r"\1 \\in "),
    (re.compile(r"(?<=[\])}]) ?U ?(?=[\[({\\])"), r"\\cup "),
]
_MODULE = re.compile(r"(?<![A-Za-z\\])(?:math|np|numpy)\.(?=[a-z])")
_TEXT_PART = re.compile(rf"(\\(?:{_TEXTS}|operatorname)\*? ?\{{[^{{}}]*\}})")
_CALL = re.compile(
    r"(?:(?<![A-Za-z\\])|(?<=(?<![A-Za-z\\])[A-Za-z])(?=sqrt))(sqrt|cbrt|abs|floor|ceil) ?\("
    r"|(?<=\^) ?\(|\\sqrt ?(?:\[\w\] ?)?\("
)
_BRACKETS = {
    "sqrt": (r"\sqrt{", "}"), "cbrt": (r"\sqrt[3]{", "}"), "abs": ("|", "|"), "floor": (r"\lfloor ", r"\rfloor "),
    "ceil": (r"\lceil ", r"\rceil "),
}  # fmt: skip


def latex_from_plain(text: str) -> str:
    r"""Convert plain-text formulas to LaTeX: pi/2, x**2+1, sqrt(2), e^(2x), x <= 3. \text{...} is kept."""
    parts = _TEXT_PART.split(_calls(_MODULE.sub("", text)))
    for index in range(0, len(parts), 2):
        for pattern, replacement in _MARKS + _WORDS:
            parts[index] = pattern.sub(replacement, parts[index])
    return "".join(parts)


def _calls(text: str) -> str:
    """Convert sqrt(x), abs(x), x^(y) and the like, whose parentheses delimit an argument, to LaTeX."""
    pieces = {match.end() - 1: match for match in _CALL.finditer(text)}
    if not pieces:
        return text
    replaced: dict[tuple[int, int], str] = {}
    opened: list[int] = []
    for position, character in enumerate(text):
        if character == "(":
            opened.append(position)
        elif character == ")" and opened:
            if (match := pieces.get(opened.pop())) is None:
                continue
            before, after = _BRACKETS.get(match[1] or "", (match[0].strip(" ")[:-1] + "{", "}"))
            replaced[match.span()], replaced[position, position + 1] = before, after
    for (start, end), new in sorted(replaced.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text
