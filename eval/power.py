"""Power analysis: how many training seeds, samples and hours are needed to detect a gain of a given size.

Run in the project's folder: ``python -m eval.power results/<suite>/items/table1/settings.json --gain 2``. It reads a finished
suite. For each arm compared with the first, it prints the sources of the uncertainty of the average gain, and the number of
seeds and of samples per benchmark (``evaluate.samples_of``) with which a true gain of that many points is detected with 80%
power. The number of seeds is given as a range, because a standard deviation estimated from few seeds is itself uncertain. Hours
are the total job time of training and evaluating both arms, extrapolated from this suite. A suite with one seed has no
variance over seeds to estimate; ``--seed-sd`` sets an assumed standard deviation.
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
"""Numbers of completions to plan for, as multiples of the suite's."""
ASSUMED = (0.5, 1.0, 2.0)
"""Standard deviations over seeds, in points, to plan for if the suite has one seed."""


@dataclass(frozen=True)
class Cost:
    """Hours per training seed, both arms together."""

    training: float
    evaluation: float

    def hours(self, seeds: int, completions: float) -> float:
        """Total hours; ``completions``: number of evaluated completions as a multiple of the suite's."""
        return seeds * (self.training + completions * self.evaluation)


def plan(settings: ReportSettings, gain: float, seed_sd: float | None = None, root: Path = Path(".")) -> str:
    """The power analysis as Markdown: one section per model, data set and arm.

    Args:
        gain: gain to detect, in points, averaged over benchmarks.
        seed_sd: standard deviation over seeds of the average gain, in points; None: estimated from the suite.
        root: folder that contains runs/ and evaluations/.

    Raises:
        ReportError: a result is missing or corrupt.
        ValueError: a benchmark has only one problem, or one sample per problem, so its variance cannot be estimated.
    """
    collected, (first, *others) = collect(settings, root), settings.arms
    parts = [f"# Needed to detect a gain of {gain:g} points (80% power, two-sided 5%): suite {settings.suite}"]
    spreads = [seed_sd] if seed_sd is not None else [None] if len(settings.seeds) > 1 else list(ASSUMED)
    for group in groups_of(collected.scores, settings):
        for arm in others:
            cost = _cost(settings, group, (first, arm), root)
            title = f"{group.model}, trained on {group.dataset}: {settings.arms[arm]} - {settings.arms[first]}"
            for spread in spreads:
                found = arm_components(group, arm, first, settings, None if spread is None else (spread / 100) ** 2)
                assumed = "" if spread is None else f", assumed standard deviation over seeds {spread:g} points"
                parts += [f"## {title}{assumed}", *_of_one(found, settings, gain, cost)]
    return "\n\n".join(parts) + "\n"


def _of_one(found: Components, settings: ReportSettings, gain: float, cost: Cost) -> Iterator[str]:
    errors = found.errors()
    ends = " to ".join(f"{100 * np.sqrt(end):.2f}" for end in (found.seed_low, found.seed_high))
    sources = ", ".join(f"{source} {100 * errors[source]:.2f}" for source in SOURCES)
    yield (
        f"Standard errors of the average gain by source, points, with {found.seeds} seeds: {sources}. Standard deviation over "
        f"seeds: {100 * np.sqrt(found.seed):.2f} points ({ends})."
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
        "Completions: per seed, relative to this suite. The first row uses the suite's k; the other rows distribute the "
        "samples over benchmarks to minimize the sampling variance of the average. Range: from the 90% confidence interval of "
        "the standard deviation over seeds."
    )


def _seeds(found: Components, gain: float, cost: Cost, share: float) -> list[str]:
    """Number of seeds needed, its range, and the hours for that number."""
    low, own, high = (found.seeds_needed(gain / 100, spread) for spread in (found.seed_low, found.seed, found.seed_high))
    words = [f">{MOST_SEEDS}" if seeds is None else str(seeds) for seeds in (own, low, high)]
    return [words[0], f"{words[1]} to {words[2]}", "-" if own is None else f"{cost.hours(own, share):.2g}"]


def _cost(settings: ReportSettings, group: Group, arms: tuple[str, str], root: Path) -> Cost:
    """Mean hours of training and of evaluation per seed in this suite, both arms together."""
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
    parser.add_argument("settings", type=Path, help="results/<suite>/items/<item>/settings.json of an accuracy table")
    parser.add_argument("--gain", type=float, default=2.0, help="gain to detect, in points (default: 2)")
    parser.add_argument("--seed-sd", type=float, help="assumed standard deviation of the average gain over seeds, in points")
    arguments = parser.parse_args(argv)
    if not arguments.gain > 0:
        parser.error(f"--gain {arguments.gain:g}: must be above 0")
    if arguments.seed_sd is not None and not arguments.seed_sd >= 0:
        parser.error(f"--seed-sd {arguments.seed_sd:g}: must not be below 0")
    try:
        settings = load_settings(ReportSettings, arguments.settings)
        if not settings.scored or len(settings.arms) < 2:
            raise ConfigError(f"{arguments.settings}: not an accuracy table with at least two arms; pass the settings of one")
        require_current(settings)
        print(plan(settings, arguments.gain, arguments.seed_sd), end="")
    except (ConfigError, ReportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
