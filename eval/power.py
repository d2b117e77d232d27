"""How many seeds, samples and hours find a gain: ``python -m eval.power results/<suite>/items/table1/settings.json --gain 2``,
in the project's folder.

Reads a finished suite and says, for each arm against the first, where the uncertainty of its average gain comes from, and with
how many seeds and how many samples of each benchmark (``evaluate.samples_of``) a true gain of so many points is found with 80%
power. Every number of seeds is a range, since few seeds say little of their own spread. Hours are those of the suite's runs and
evaluations of both arms, added up. A suite of one seed shows no spread over seeds: ``--seed-sd`` assumes one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.report.accuracy import SOURCES, Group, arm_components, groups_of
from eval.report.collect import ReportError, collect, read
from eval.report.freshness import require_current
from eval.report.statistics.power import MOST_SEEDS, Components
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings, RunId, load_settings

MULTIPLES = (1, 2, 4, 8)
"""Numbers of completions that are planned for, in those of the suite."""
ASSUMED = (0.5, 1.0, 2.0)
"""Spreads over seeds, in points, that are planned for where one seed shows none."""


@dataclass(frozen=True)
class Cost:
    """Hours of one seed of both arms."""

    training: float
    evaluation: float

    def hours(self, seeds: int, completions: float) -> float:
        """Of a whole suite; ``completions``: in those of the suite at hand."""
        return seeds * (self.training + completions * self.evaluation)


def plan(settings: ReportSettings, gain: float, seed_sd: float | None = None, root: Path = Path(".")) -> str:
    """The tables, as Markdown.

    Args:
        gain: points, on average over benchmarks.
        seed_sd: standard deviation over seeds of an average gain, in points; None: as the suite shows it.
        root: folder that holds runs/ and evaluations/.

    Raises:
        ReportError: a result is missing or damaged.
        ValueError: a benchmark has one problem, or one sample of each: they show no variance.
    """
    collected, (first, *others) = collect(settings, root), settings.arms
    parts = [f"# What it takes to find a gain of {gain:g} points (80% power, two-sided 5%): suite {settings.suite}"]
    spreads = [seed_sd] if seed_sd is not None else [None] if len(settings.seeds) > 1 else list(ASSUMED)
    for group in groups_of(collected.scores, settings):
        for arm in others:
            cost = _cost(settings, group, (first, arm), root)
            title = f"{group.model}, trained on {group.dataset}: {settings.arms[arm]} - {settings.arms[first]}"
            for spread in spreads:
                found = arm_components(group, arm, first, settings, None if spread is None else (spread / 100) ** 2)
                assumed = "" if spread is None else f", seeds assumed to differ by {spread:g} points"
                parts += [f"## {title}{assumed}", *_of_one(found, settings, gain, cost)]
    return "\n\n".join(parts) + "\n"


def _of_one(found: Components, settings: ReportSettings, gain: float, cost: Cost) -> Iterator[str]:
    errors = found.errors()
    ends = " to ".join(f"{100 * np.sqrt(end):.2f}" for end in (found.seed_low, found.seed_high))
    sources = ", ".join(f"{source} {100 * errors[source]:.2f}" for source in SOURCES)
    yield (
        f"Standard errors of the average gain by source, points, with {found.seeds} seeds: {sources}. Spread over seeds: "
        f"{100 * np.sqrt(found.seed):.2f} points ({ends})."
    )
    heads = ["completions", *(f"k: {title}" for title in settings.benchmarks.values()), "seeds", "range", "hours"]
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)]]
    completions = float(found.samples @ found.problems)
    for multiple in MULTIPLES:
        spread_well = found.best_samples(multiple * completions)
        for samples in (found.samples, spread_well) if multiple == 1 else (spread_well,):
            share = float(samples @ found.problems) / completions
            needed = _seeds(found.with_samples(samples), gain, cost, share)
            lines.append([f"{share:.2f} x", *map(str, samples), *needed])
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    yield (
        "Completions: a seed's, in those of the suite. The first row has the suite's own k; the others spread theirs so that "
        "the average has the least noise. Range: of the spread over seeds, which holds the truth in 90% of suites."
    )


def _seeds(found: Components, gain: float, cost: Cost, share: float) -> list[str]:
    """Seeds needed, their range, and the hours of those needed."""
    low, own, high = (found.seeds_needed(gain / 100, spread) for spread in (found.seed_low, found.seed, found.seed_high))
    words = [f">{MOST_SEEDS}" if seeds is None else str(seeds) for seeds in (own, low, high)]
    return [words[0], f"{words[1]} to {words[2]}", "-" if own is None else f"{cost.hours(own, share):.2g}"]


def _cost(settings: ReportSettings, group: Group, arms: tuple[str, str], root: Path) -> Cost:
    """Means over seeds of what the suite's runs and evaluations took, of both arms."""
    training, evaluation = 0.0, 0.0
    for arm in arms:
        for seed in settings.seeds:
            run = RunId(suite=settings.suite, model=group.model, dataset=group.dataset, arm=arm, seed=seed)
            summary, results = root / "runs" / run.path / "summary.json", root / "evaluations" / run.path / "results.json"
            training += _json(summary)["seconds"]["total"]
            scored = _json(results)["checkpoints"]
            evaluation += sum(one["seconds"]["evaluate"] for one in scored.values())
    per_seed = 3600.0 * len(settings.seeds)
    return Cost(training / per_seed, evaluation / per_seed)


def _json(path: Path) -> dict:
    return read(path, lambda: json.loads(path.read_text()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.power", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path, help="results/<suite>/items/<item>/settings.json of a table of scores")
    parser.add_argument("--gain", type=float, default=2.0, help="points that are to be found (default: 2)")
    parser.add_argument("--seed-sd", type=float, help="assume that average gains of seeds differ by so many points")
    arguments = parser.parse_args(argv)
    if not arguments.gain > 0:
        parser.error(f"--gain {arguments.gain:g}: must be above 0")
    if arguments.seed_sd is not None and not arguments.seed_sd >= 0:
        parser.error(f"--seed-sd {arguments.seed_sd:g}: must not be below 0")
    try:
        settings = load_settings(ReportSettings, arguments.settings)
        if not settings.scored or len(settings.arms) < 2:
            raise ConfigError(f"{arguments.settings}: shows no scores of two arms or more; take a table of scores")
        require_current(settings)
        print(plan(settings, arguments.gain, arguments.seed_sd), end="")
    except (ConfigError, ReportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
