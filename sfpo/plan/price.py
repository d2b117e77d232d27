"""The relative cost of rollouts (rho), and what SFPO must save to pay off: ``python -m sfpo.plan.price
runs/.../metrics.jsonl``.

rho is the cost of a step that does not depend on the update rule (sampling, grading, old log-probs, weight sync), divided by
the cost of one pass over its batch (forward, backward, optimizer). A step with p passes costs rho + p. So with K + 1 passes,
SFPO must reach a given accuracy in at most (rho + 1)/(rho + K + 1) of GRPO's rollouts to be as cheap. For the logs of other
trainers, give both times in seconds: ``python -m sfpo.plan.price --seconds 310 24``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PER_STEP = ("generate", "grade", "old_logprobs", "sync")
"""Phases that cost the same whatever the update rule."""
PAPER = {"Qwen3-4B": 8.1, "DS-Qwen-1.5B": 12.6, "DS-Qwen-7B": 15.9}
"""rho implied by the paper's Figure 4: from its ratios of rollouts and of hours, with K + 1 = 4 passes per step."""


def rho_of(first: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """rho of the steps between two lines of a run's metrics.jsonl.

    Args:
        first: the earlier line; after the run's first step, which includes the engine's start.
        last: a later line. Both have step, backward_passes, and ``seconds`` by phase, all cumulative.

    Raises:
        ValueError: there is no step or no pass between the two.
    """
    steps, passes = (last[key] - first[key] for key in ("step", "backward_passes"))
    spent = {phase: last["seconds"][phase] - first["seconds"][phase] for phase in (*PER_STEP, "update")}
    if steps <= 0 or passes <= 0 or spent["update"] <= 0:
        raise ValueError("no step with an update between the two lines")
    return (sum(spent[phase] for phase in PER_STEP) / steps) / (spent["update"] / passes)


def rho_of_run(path: Path) -> float:
    """rho of a run, over all of its steps except the first.

    Raises:
        ValueError: the file has fewer than two steps, or is not a metrics.jsonl.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if len(lines) < 2 or any("seconds" not in line for line in (lines[0], lines[-1])):
        raise ValueError(f"{path}: not the metrics.jsonl of a run with at least two steps")
    return rho_of(lines[0], lines[-1])


def break_even(rho: float, passes: float, first: float = 1.0) -> float:
    """The ratio of rollouts, of a rule with ``first`` passes per step (GRPO: 1) to one with ``passes``, at which both cost the
    same."""
    return (rho + passes) / (rho + first)


def explanation(rho: float, passes: int) -> str:
    """The text that the command prints: rho and what it means for SFPO."""
    ratio = break_even(rho, passes)
    nearest = min(PAPER, key=lambda model: abs(PAPER[model] - rho))
    low, high = min(PAPER.values()), max(PAPER.values())
    return (
        f"rho = {rho:.2f}: the rollouts of a step cost as much as {rho:.2f} passes over them.\n"
        f"A step of {passes} passes costs as much as {ratio:.2f} steps of one pass: SFPO (K = {passes - 1}) pays off if GRPO "
        f"needs more than {ratio:.2f} times its rollouts for the same accuracy.\n"
        f"The paper's runs imply rho from {low:g} to {high:g} (nearest: {nearest}, {PAPER[nearest]:g}, where that is "
        f"{break_even(PAPER[nearest], passes):.2f})."
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sfpo.plan.price", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metrics", type=Path, nargs="*", help="metrics.jsonl of one or several runs")
    parser.add_argument(
        "--seconds", type=float, nargs=2, metavar=("ROLLOUTS", "PASS"), help="seconds of a step's rollouts and of one pass"
    )
    parser.add_argument("--passes", type=int, default=4, help="K + 1 (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if bool(arguments.metrics) == bool(arguments.seconds):
        parser.error("give either metrics.jsonl files or --seconds")
    if arguments.seconds:
        rollouts, one_pass = arguments.seconds
        if rollouts < 0 or one_pass <= 0:
            parser.error(f"--seconds {rollouts:g} {one_pass:g}: ROLLOUTS must be at least 0, PASS above 0")
        print(explanation(rollouts / one_pass, arguments.passes))
        return
    try:
        found = {path: rho_of_run(path) for path in arguments.metrics}
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
    for path, rho in found.items():
        print(f"{path}\n{explanation(rho, arguments.passes)}")


if __name__ == "__main__":
    main()
