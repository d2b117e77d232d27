"""Coverage and error rates of the report's statistics: ``python -m benchmarks.report_statistics`` simulates suites with known
true values, and writes benchmarks/results/report_statistics.md: coverage of intervals, type I errors between equal arms,
reported ratios of costs, and the same for earlier versions of the statistics. About 5 minutes on one core.

A simulated suite: chance of a right answer = logistic(difficulty of the problem + shift of the seed + of seed and benchmark +
of arm and problem + of run and problem), k = 4 samples. "sd": spread of a run's average over seeds, in points; the tiny suite
showed 0.5 (GRPO) and 1.5 (SFPO).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from eval.report.budgets import at_budget
from eval.report.choice import chosen
from eval.report.statistics.comparisons import holm, paired_gain, paired_p_value, pooled_over_models
from eval.report.statistics.intervals import interval
from eval.report.statistics.power import POWER, Components, detectable_gain
from eval.report.statistics.scores import Values
from eval.report.statistics.target_time import Curves, isotonic, ratio_of_costs

RESULT = Path(__file__).parent / "results" / "report_statistics.md"
TINY = (100,) * 6
REAL = (500, 30, 30, 83, 272, 675)
"""Problems of MATH-500, AIME24, AIME25, AMC, Minerva, OlympiadBench."""
POINTS_A_LOGIT = 18.0
"""Increase of the average accuracy, in points per unit by which all logits are shifted."""


def suite(
    generator: np.random.Generator, seeds: int, spread: float, problems: Sequence[int] = TINY, gain: float = 0.0, arms: int = 2
) -> tuple[list[Values], list[float]]:
    """Scores of arms [seeds, problems], and the true accuracy of each over all problems and seeds, to 0.1 points.

    Args:
        spread: sd over seeds, in points.
        gain: true gain of the other arms over the first, in points.
    """
    spread, gain = spread / POINTS_A_LOGIT, gain / POINTS_A_LOGIT
    found: list[Values] = [{} for _ in range(arms)]
    of_seed = generator.normal(0, spread, (arms, seeds, 1))
    for number, count in enumerate(problems):
        difficulty = generator.normal(-0.3, 1.5, count)
        for arm, values in enumerate(found):
            logits = difficulty + of_seed[arm] + generator.normal(0, spread / 2, (seeds, 1))
            logits = logits + generator.normal(0, 0.3, (1, count)) + generator.normal(0, 0.3, (seeds, count)) + gain * (arm > 0)
            right = generator.binomial(4, 1 / (1 + np.exp(-logits))) / 4
            values[str(number)] = pd.DataFrame(right, index=pd.RangeIndex(seeds, name="seed"))
    return found, [_true_accuracy(spread, gain * (arm > 0)) for arm in range(arms)]


def _true_accuracy(spread: float, gain: float) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    width = np.sqrt(1.5**2 + 1.25 * spread**2 + 2 * 0.3**2)
    return float(weights @ (1 / (1 + np.exp(-(-0.3 + gain + width * points)))) / weights.sum())


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def share(values: Sequence[bool] | np.ndarray) -> str:
    return f"{np.mean(values):.3f}".removeprefix("0") if len(values) else "-"


# ---------------------------------------------------------------------------------------------- accuracies and gains


OLD_COVERAGE = {
    3: (".97 .96 .94", "1.0 .98 .95", ".001 .019 .053", ".01 .03 .12", "- - .022"),
    5: (".97 .96 .95", "1.0 .98 .95", ".002 .021 .047", ".01 .03 .10", "- - -"),
}


def coverage(trials: int) -> str:
    """Coverage of the intervals of accuracies and gains, and type I errors between equal arms."""
    rows = []
    for seeds in (3, 5, 8):
        cells: list[list[str]] = [[], [], [], [], []]
        for spread in (0.0, 1.0, 3.0):
            generator = np.random.default_rng(100 * seeds + int(spread))
            held, of_gain, p_values = [], [], []
            for _ in range(trials):
                (first, second), (truth, _) = suite(generator, seeds, spread)
                own, gain = interval(first).loc["average"], paired_gain(second, first).loc["average"]
                held.append(own["low"] <= truth <= own["high"])
                of_gain.append(gain["low"] <= 0 <= gain["high"])
                p_values.append(paired_p_value(second, first).to_numpy())
            p = np.array(p_values)
            any_column = np.array([holm(one).min() for one in p[:, :-1]])
            found: list[list[bool] | np.ndarray]
            found = [held, of_gain, p[:, -1] < 0.05, any_column < 0.05, p[:, -1] < 0.01]
            for cell, values in zip(cells, found, strict=True):
                cell.append(share(values))
        rows.append([f"{seeds} seeds, now", *(" ".join(cell) for cell in cells)])
        if seeds in OLD_COVERAGE:
            rows.append([f"{seeds} seeds, before", *OLD_COVERAGE[seeds]])
    heads = ["sd 0 / 1 / 3", "arm covers", "gain covers", "type I, average", "any of 6 columns", "p < .01"]
    return table([heads[0], *heads[1:]], rows) + (
        "\n\nAny of 6 columns: now after Holm's correction, before uncorrected. With one seed nothing is tested any more "
        "(before: type I .05 .28 .69)."
    )


def many_comparisons(trials: int) -> str:
    """Fraction of reports with any false positive, for 15 arms that do not differ from the first."""
    rows = []
    for seeds, spread in ((3, 1.0), (3, 3.0), (5, 3.0)):
        generator = np.random.default_rng(seeds)
        false = []
        for _ in range(trials // 4):
            (first, *others), _ = suite(generator, seeds, spread, (60,) * 3, arms=16)
            false.append(holm(np.array([paired_p_value(arm, first)["average"] for arm in others])).min() < 0.05)
        rows.append([f"{seeds} seeds, sd {spread:g}", share(false), ".145" if (seeds, spread) == (3, 3.0) else "-"])
    return table(["15 comparisons, any false claim after Holm", "now", "before"], rows)


def pooled(trials: int) -> str:
    """Type I errors of a gain pooled over five models with one seed each, if no model differs."""
    generator = np.random.default_rng(5)
    rows = []
    for spread in (0.0, 1.0, 3.0):
        p_values = []
        for _ in range(trials // 4):
            suites = [suite(generator, 1, spread, (60,) * 3)[0] for _ in range(5)]
            gains = pooled_over_models([{name: two[name] - one[name] for name in one} for one, two in suites])
            p_values.append(paired_p_value(gains, {name: 0.0 * gain for name, gain in gains.items()})["average"])
        rows.append([f"sd {spread:g}", share(np.array(p_values) < 0.05), share(np.array(p_values) < 0.01)])
    return table(["5 models, one seed each", "p < .05", "p < .01"], rows)


def adding_seeds(trials: int) -> str:
    """Type I errors if seeds are added until p is below 5%, for equal arms (the warning below the tables)."""
    rows = []
    for spread, old in ((1.0, ".31"), (3.0, ".71")):
        generator, found = np.random.default_rng(int(spread)), []
        for _ in range(trials // 2):
            (one, two), _ = suite(generator, 8, spread, (100,) * 3)
            looks = [
                paired_p_value(*({name: frame.iloc[:n] for name, frame in arm.items()} for arm in (two, one)))["average"]
                for n in range(2, 9)
            ]
            found.append((min(looks) < 0.05, min(looks) < 0.05 / len(looks)))
        rows.append([f"sd {spread:g}", *(share(one) for one in zip(*found, strict=True)), old])
    return table(["after each of 2 to 8 seeds", "any p < .05", "any p < .05 / 7", "before (1 to 5)"], rows)


def low_accuracies(trials: int) -> str:
    """Coverage for 30 problems that are rarely solved, with beta-distributed success probabilities."""
    rows = []
    for truth in (0.02, 0.05, 0.1):
        cells = []
        for seeds in (1, 3):
            generator, held = np.random.default_rng(int(100 * truth)), []
            for _ in range(trials):
                chance = generator.beta(0.3, 0.3 * (1 - truth) / truth, 30)
                right = generator.binomial(4, chance, (seeds, 30)) / 4
                found = interval({"a": pd.DataFrame(right)}).loc["a"]
                held.append(found["low"] <= truth <= found["high"])
            cells.append(share(held))
        rows.append([f"{truth:.0%}", *cells, ".80 to .94"])
    return table(["accuracy", "1 seed", "3 seeds", "before"], rows)


# ---------------------------------------------------------------------------------------------- power


OLD_POWER = {
    0.5: (".53", ".87", ".99", "1", "1"),
    1.0: (".32", ".59", ".92", "1", "1"),
    1.5: (".18", ".40", ".68", ".88", ".98"),
    3.0: (".16", ".22", ".32", ".44", ".71"),
}


def power(trials: int) -> str:
    """Power of the suite's test for a gain of 2.8 points on the six real benchmarks."""
    rows, counts = [], (3, 5, 8, 12, 20)
    for spread, old in OLD_POWER.items():
        generator, found = np.random.default_rng(int(10 * spread)), []
        for seeds in counts:
            hits = []
            for _ in range(trials // 8):
                (one, two), _ = suite(generator, seeds, spread, REAL, gain=2.8)
                hits.append(paired_p_value(two, one)["average"] < 0.05)
            found.append(share(hits))
        rows += [[f"sd {spread:g}, now", *found], [f"sd {spread:g}, before", *old]]
    return table(["power of finding 2.8 points", *(f"{seeds} seeds" for seeds in counts)], rows)


def ranges(trials: int) -> str:
    """Coverage of the range of the smallest detectable gain. Normal scores: sd 2 points over seeds, 20 per cell, 60
    problems."""
    rows = []
    for seeds in (2, 3, 5, 8):
        nothing, noise = np.zeros(1), np.array([0.2**2])
        true = Components(0.02**2, 0.02**2, 0.02**2, nothing, nothing, noise, np.array([60]), np.ones(1), seeds)
        truth = next(size for size in np.linspace(0.005, 0.6, 1200) if true.power(size, seeds) >= POWER)
        generator, found = np.random.default_rng(seeds), []
        for _ in range(trials):
            gains = generator.normal(0, 0.02, (seeds, 1)) + generator.normal(0, 0.2, (seeds, 60))
            values = {"a": pd.DataFrame(gains, index=pd.RangeIndex(seeds, name="seed"))}
            found.append(detectable_gain(values, {"a": 0.0 * values["a"]}))
        ends = np.array(found)
        held = share((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
        rows.append([seeds, held, f"{np.mean(ends[:, 1] / ends[:, 0]):.1f}"])
    note = "Before: one number, of which the true power was .61 to .68 on average with 3 seeds, .17 to .96 for a single report."
    return table(["seeds", "range holds the truth", "upper end over lower"], rows) + f"\n\n{note}"


# ---------------------------------------------------------------------------------------------- curves


def curves(generator: np.random.Generator, speed: float, seeds: int, noise: float) -> Curves:
    """Learning curves like those of the tiny suite: from 45% toward 65%, validated every 5 of 60 steps."""
    steps = np.arange(0, 61, 5)
    grown = 1 - np.exp(-steps * speed / 25)
    shift = generator.normal(0, 0.01, (seeds, 1)) * grown
    accuracy = 0.45 + 0.2 * grown + shift + generator.normal(0, noise, (seeds, len(steps)))
    return Curves(accuracy, {"steps": np.tile(steps.astype(float), (seeds, 1))})


def first_crossing(arm: Curves, level: float) -> float:
    """The report's earlier estimate: geometric mean over seeds of the first validation at or above the level, or of the end."""
    steps = arm.costs["steps"][0]
    at = [steps[1:][row[1:] >= level][0] if (row[1:] >= level).any() else steps[-1] for row in arm.accuracy]
    return float(np.exp(np.mean(np.log(at))))


def half_of_gain(first: Curves) -> float:
    curve = isotonic(first)
    return float(curve[0] + 0.5 * (curve[-1] - curve[0]))


def target_time(trials: int) -> str:
    """The ratio of two arms' costs of reaching half of the first arm's gain."""
    rows = []
    for truth in (1.0, 2.0):
        for seeds in (3, 5, 10):
            for noise in (0.01, 0.03):
                generator, found, old = np.random.default_rng(1), [], []
                for _ in range(trials // 2):
                    first, other = (curves(generator, speed, seeds, noise) for speed in (1.0, truth))
                    found.append(ratio_of_costs(first, other, half_of_gain, "steps"))
                    mean = first.accuracy.mean(axis=0)
                    level = mean[0] + 0.5 * (mean.max() - mean[0])
                    old.append(first_crossing(first, level) / first_crossing(other, level))
                known = [one for one in found if not np.isnan(one.low)]
                rows.append(
                    [
                        f"{truth:g}x, {seeds} seeds, noise {100 * noise:g}",
                        f"{np.nanmean([one.value for one in found]):.2f}",
                        share([one.low <= truth <= one.high for one in known]),
                        share([np.isnan(one.low) for one in found]),
                        f"{np.mean(old):.2f}",
                    ]
                )
    return table(["true ratio", "mean, now", "covers", "without interval", "mean, before"], rows)


def area(trials: int) -> str:
    """Bias of areas and endpoints between two equal curves, one of which has a fourth of the validations in the budget."""
    rows = []
    for seeds in (3, 5):
        generator = np.random.default_rng(seeds)
        gains: list[list[float]] = [[], []]
        false: list[bool] = []
        for _ in range(trials // 2):
            by_seed = []
            for _ in range(seeds):
                of_arm = []
                for every in (1, 4):  # passes between validations: equally good, but validated less often
                    passes = np.arange(0, 61, 5 * every).astype(float)
                    accuracy = 0.45 + 0.2 * (1 - np.exp(-passes / 25)) + generator.normal(0, 0.02, len(passes))
                    run = pd.DataFrame({"step": passes / every, "accuracy": accuracy, "passes": passes})
                    of_arm.append(at_budget(run, "passes", 60.0))
                by_seed.append({name: of_arm[1][name] - of_arm[0][name] for name in ("area", "accuracy")})
            frame = pd.DataFrame(by_seed)
            for values, name in zip(gains, ("area", "accuracy"), strict=True):
                values.append(float(frame[name].mean()))
            t = frame["area"].mean() / (frame["area"].std() / np.sqrt(seeds))
            false.append(abs(t) > {3: 4.3027, 5: 2.7764}[seeds])
        means = [f"{100 * np.mean(values):+.2f}" for values in gains]
        rows.append([f"{seeds} seeds", *means, share(false), "-1.9, .13" if seeds == 3 else "-"])
    return table(["an equally good arm", "area, points", "at the end, points", "area, type I", "before"], rows)


def luck(trials: int) -> str:
    """Selection bias with six checkpoints, one of them better by 1 point: accuracy on the scored problems minus true
    accuracy."""
    generator = np.random.default_rng(0)
    shown, folds, true = [], [], []
    for _ in range(max(trials // 5, 20)):
        difficulty = generator.normal(-0.3, 1.5, 200)
        frames, accuracies = [], {}
        for number in range(6):
            chance = 1 / (1 + np.exp(-(difficulty + generator.normal(0, 0.3, 200) + (1.0 / POINTS_A_LOGIT) * (number == 5))))
            right = generator.random((200, 2)) < chance[:, None]
            name = f"step_{number}"
            accuracies[name] = chance.mean()
            frames.append(
                pd.DataFrame(
                    {
                        "checkpoint": name,
                        "benchmark": "a",
                        "problem_id": np.repeat([f"a/{k}" for k in range(200)], 2),
                        "sample": np.tile([0, 1], 200),
                        "correct": right.ravel(),
                    }
                )
            )
        scores = pd.concat(frames, ignore_index=True)
        best = chosen(scores, "best_on_benchmarks")
        shown.append(best["correct"].mean())
        true.append(accuracies[best["checkpoint"].iloc[0]])
        folds.append(chosen(scores, "best_on_other_folds")["correct"].mean())
    of_truth, of_folds = (100 * np.mean(np.subtract(shown, other)) for other in (true, folds))
    error = 100 * np.std(np.subtract(shown, folds)) / np.sqrt(len(shown))
    row = ["luck, points", f"{of_truth:.2f}", f"{of_folds:.2f} +- {error:.2f}", ".48 for .33"]
    return table(["6 checkpoints, 200 problems", "true", "estimated with 10 folds", "before, with halves"], [row])


PARTS = {
    "Intervals and p-values": coverage,
    "Many comparisons": many_comparisons,
    "A gain over several models": pooled,
    "Adding seeds until something is significant": adding_seeds,
    "Low accuracies, 30 problems": low_accuracies,
    "Power": power,
    "The range of a gain that can be found": ranges,
    "Time to a target": target_time,
    "Area up to a budget": area,
    "Luck of a choice of checkpoints": luck,
}


def parts(trials: int) -> Iterator[str]:
    """The parts of the page."""
    yield "# Statistics of the report on simulated suites"
    yield (
        f"`python -m benchmarks.report_statistics`, {trials:,} suites a row (fewer where a row takes long). Before: the "
        "report's earlier statistics on simulations of the same kind, an audit's figures or the earlier way computed here."
    )
    started = time.perf_counter()
    for title, part in PARTS.items():
        yield f"## {title}\n\n{part(trials)}"
    yield f"Computed in {time.perf_counter() - started:.0f} s on one core."


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="simulated suites per row (default: 1000)")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(argv)
    text = ""
    for part in parts(arguments.trials):
        print(part, end="\n\n", flush=True)
        text += part + "\n\n"
    arguments.out.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
