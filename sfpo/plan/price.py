"""What rollouts cost beside updates, and what SFPO must save to pay: ``python -m sfpo.plan.price runs/.../metrics.jsonl``.

rho is what a step costs whatever the update rule (sampling, grading, old log-probs, the sync of the weights), over one pass on
its batch (forward, backward, optimizer). A step with p passes costs rho + p, so that with K + 1 passes SFPO must reach an
accuracy in (rho + 1)/(rho + K + 1) of GRPO's rollouts to be as cheap. For another trainer's logs give the two times:
``python -m sfpo.plan.price --seconds 310 24``.
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
"""rho that the paper's Figure 4 implies: from its ratios of rollouts and of hours, at K + 1 = 4 passes."""


def rho_of(first: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """rho of the steps between two lines of a run's metrics.jsonl.

    Args:
        first: the earlier line. Not before the run's first step, which includes the engine's start.
        last: a later one. Both: step, backward_passes, and ``seconds``, cumulative, by phase.

    Raises:
        ValueError: there is no step or no pass between the two.
    """
    steps, passes = (last[key] - first[key] for key in ("step", "backward_passes"))
    spent = {phase: last["seconds"][phase] - first["seconds"][phase] for phase in (*PER_STEP, "update")}
    if steps <= 0 or passes <= 0 or spent["update"] <= 0:
        raise ValueError("no step with an update between the two lines")
    return (sum(spent[phase] for phase in PER_STEP) / steps) / (spent["update"] / passes)


def rho_of_run(path: Path) -> float:
    """rho of a run, over all of its steps but the first.

    Raises:
        ValueError: the file has fewer than two steps, or is none of metrics.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if len(lines) < 2 or any("seconds" not in line for line in (lines[0], lines[-1])):
        raise ValueError(f"{path}: not the metrics of a run of two steps or more")
    return rho_of(lines[0], lines[-1])


def break_even(rho: float, passes: float, first: float = 1.0) -> float:
    """Rollouts of a rule with ``first`` passes a step (GRPO: 1) over those of one with ``passes``, at which both cost the
    same."""
    return (rho + passes) / (rho + first)


def explanation(rho: float, passes: int) -> str:
    """rho and its meaning, in words."""
    ratio = break_even(rho, passes)
    nearest = min(PAPER, key=lambda model: abs(PAPER[model] - rho))
    low, high = min(PAPER.values()), max(PAPER.values())
    return (
        f"rho = {rho:.2f}: the rollouts of a step cost as much as {rho:.2f} passes over them.\n"
        f"A step of {passes} passes costs as much as {ratio:.2f} steps of one pass: SFPO (K = {passes - 1}) pays where GRPO "
        f"needs more than {ratio:.2f} times its rollouts for the same accuracy.\n"
        f"The paper's runs imply rho from {low:g} to {high:g} (nearest: {nearest}, {PAPER[nearest]:g}, where that is "
        f"{break_even(PAPER[nearest], passes):.2f})."
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sfpo.plan.price", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metrics", type=Path, nargs="*", help="metrics.jsonl of one or several runs")
    parser.add_argument("--seconds", type=float, nargs=2, metavar=("ROLLOUTS", "PASS"), help="of a step, from other logs")
    parser.add_argument("--passes", type=int, default=4, help="K + 1 (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if bool(arguments.metrics) == bool(arguments.seconds):
        parser.error("name metrics.jsonl of a run, or --seconds")
    if arguments.seconds:
        rollouts, one_pass = arguments.seconds
        if rollouts < 0 or one_pass <= 0:
            parser.error(f"--seconds {rollouts:g} {one_pass:g}: rollouts take 0 or more, a pass more than 0")
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
