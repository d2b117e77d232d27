"""Contamination: benchmark problems that are also in a training set, verbatim or nearly so.

Held-out validation rows count as part of the training set, since the best checkpoint is selected on them. Three kinds of
overlap between a benchmark problem and a training problem are tested separately, so a pair can have several:
    exact       the same text up to whitespace
    normalized  the same text up to formatting (``sfpo.data.cleaning.normalized``)
    8-gram      a fraction of at least THRESHOLD of the benchmark problem's distinct word 8-grams is in the training problem
The third finds rephrased problems. It follows PaLM (arXiv 2204.02311, section 8), where the threshold is 70% and the 8-grams
may be anywhere in the training data. Here they must be in one problem, so that stock phrases from many problems do not add up.

Limitations: a template with different numbers may share most of its 8-grams and is then counted (as are nine in ten of the
generated programs of ``sfpo.data.programs``); a translation is not found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pandas as pd

from sfpo.data.cleaning import normalized
from sfpo.data.prompts import load_problems
from sfpo.data.rows import Row

KINDS = ("exact", "normalized", "8-gram")
EXACT, NORMALIZED, NEAR = KINDS
WORDS = 8
"""Words of an n-gram."""
THRESHOLD = 0.8
COLUMNS = ["benchmark", "problem_id", "dataset", "kind", "row_id", "share"]

Gram = tuple[str, ...]
"""WORDS consecutive words."""
K = TypeVar("K", str, Gram)

_LAYOUT = re.compile(r"\\(?:left|right|q?quad)(?![a-z])|\\[dt](?=frac(?![a-z]))")
_WORD = re.compile(r"[^\W\d_]+|\d+")


def overlaps(benchmarks: dict[str, Path], datasets: dict[str, list[Path]]) -> pd.DataFrame:
    """``overlaps_of_rows`` of prepared parquet files (``sfpo.data.prepare``).

    Args:
        benchmarks: name -> its problems.parquet.
        datasets: name -> its train.parquet and validation.parquet.

    Raises:
        ConfigError: a file is missing, damaged, or has other columns.
    """
    return overlaps_of_rows(
        {name: load_problems(path) for name, path in benchmarks.items()},
        {name: [row for path in paths for row in load_problems(path)] for name, paths in datasets.items()},
    )


def overlaps_of_rows(benchmarks: dict[str, Iterable[Row]], datasets: dict[str, Iterable[Row]]) -> pd.DataFrame:
    """Every pair of a benchmark problem and a row of a data set that overlap; answers are not compared.

    Args:
        benchmarks: name -> problems, each id once.
        datasets: name -> rows, those for training and those for validation.

    Returns:
        One row per pair and kind, in the order of the benchmarks, their problems, the data sets, ``KINDS`` and the data sets'
        rows: benchmark, problem_id, dataset, kind, row_id (of the data set), share (0 to 1: of the problem's 8-grams for
        kind '8-gram', 1 for the others).
    """
    problems = [(benchmark, row) for benchmark, rows in benchmarks.items() for row in rows]
    index = _Index([row.problem for _, row in problems])
    found = [
        (place, number, KINDS.index(kind), row.id, share)
        for number, rows in enumerate(datasets.values())
        for row in rows
        for kind, place, share in index.matches(row.problem)
    ]
    found.sort(key=lambda match: match[:3])  # stable: rows of a data set stay in their order
    names = list(datasets)
    records = [
        (problems[place][0], problems[place][1].id, names[number], KINDS[kind], row_id, share)
        for place, number, kind, row_id, share in found
    ]
    return pd.DataFrame(records, columns=COLUMNS).astype({"share": float})


class _Index:
    """An index of the benchmark problems by text and 8-grams; data sets, which are larger, are streamed."""

    def __init__(self, problems: list[str]) -> None:
        grams = [_grams(text) for text in problems]
        self.sizes = [len(of_problem) for of_problem in grams]
        self.by_text = _places([_blanks_collapsed(text)] for text in problems)
        self.by_normalized = _places([normalized(text)] for text in problems)
        self.by_gram = _places(grams)

    def matches(self, text: str) -> Iterator[tuple[str, int, float]]:
        """(kind, index of the benchmark problem, share) for each overlap with the text of a training problem."""
        for place in self.by_text.get(_blanks_collapsed(text), ()):
            yield EXACT, place, 1.0
        for place in self.by_normalized.get(normalized(text), ()):
            yield NORMALIZED, place, 1.0
        shared = Counter(place for gram in self.by_gram.keys() & _grams(text) for place in self.by_gram[gram])
        for place, count in shared.items():
            if count / self.sizes[place] >= THRESHOLD:
                yield NEAR, place, count / self.sizes[place]


def _places(keys: Iterable[Iterable[K]]) -> dict[K, list[int]]:
    """Key -> indices of the problems that have it."""
    places: dict[K, list[int]] = {}
    for place, of_problem in enumerate(keys):
        for key in of_problem:
            places.setdefault(key, []).append(place)
    return places


def _blanks_collapsed(text: str) -> str:
    return " ".join(text.split())


def _grams(text: str) -> set[Gram]:
    """The distinct 8-grams of a text; none if it has fewer words."""
    words = _words(text)
    return set(zip(*(words[start:] for start in range(WORDS)), strict=False))


def _words(text: str) -> list[str]:
    """Runs of letters and runs of digits in lower case, so that $2n$ and $2 n$ are equal. LaTeX commands are words, except
    those for layout."""
    return _WORD.findall(_LAYOUT.sub(" ", text.casefold()))
