"""Tables of LaTeX notation: functions, Greek letters, accents."""

_PLAIN = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch")
FUNCTIONS: dict[str, str] = {
    **{name: name for name in (*_PLAIN, "ln", "log", "exp", "max", "min", "gcd", "lcm", "sign")},
    **{f"{arc}{name}": f"a{name}" for name in _PLAIN for arc in ("arc", "ar", "a")},
    **{"tg": "tan", "ctg": "cot", "arctg": "atan", "arcctg": "acot", "cosec": "csc", "lg": "log", "sgn": "sign"},
    **{"sh": "sinh", "ch": "cosh", "th": "tanh", "Re": "re", "Im": "im"},
}
"""Name in LaTeX -> name in a tree (asin for \\arcsin and \\sin^{-1})."""
INVERSES: dict[str, str] = {name: f"a{name}" for name in _PLAIN}
GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "rho",
    "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma",
    "Upsilon", "Phi", "Psi", "Omega", "hbar", "ell", "odot", "oplus", "prime", "star", "dagger", "perp", "parallel",
})  # fmt: skip
"""Commands for Greek and similar letters, which are variables."""
SAME_LETTER: dict[str, str] = {
    **{f"var{name}": name for name in ("epsilon", "theta", "phi", "rho", "sigma", "kappa", "pi")},
    "hslash": "hbar",
}
ACCENTS = frozenset({
    "dot", "ddot", "hat", "widehat", "bar", "overline", "vec", "overrightarrow", "tilde",
    "mathcal", "mathbb", "mathscr", "mathfrak",
})  # fmt: skip
"""Commands that turn a letter into a different variable."""
APPLIED = frozenset("fghFPQ")
"""Letters that are treated as functions if a parenthesis follows."""
