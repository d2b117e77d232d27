"""Fault injection in real training jobs: ``python -m benchmarks.chaos`` (``make chaos``), in the project's root folder.

Each job is a separate process (``python -m sfpo.train``) on the tiny model after a short warm-up. After every fault its results
must be bitwise equal to those of an undisturbed run, except for times and memory. Writes chaos.json and chaos.md; the exit
status is 1 if a job did not recover. Disk faults mount a tmpfs, which requires root.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import chaos_faults as faults
from benchmarks.chaos_faults import Kill, Skipped
from benchmarks.chaos_jobs import ARMS, SAVE_EVERY, SEEDS, STEPS, Lab, make_lab
from sfpo.manifest import write_json, write_text
from sfpo.provenance import hardware, versions
from sfpo.trainer.loop import Interrupted

JOBS_AT_ONCE = 2


@dataclass(frozen=True)
class Outcome:
    fault: str
    expected: str
    seen: str
    as_expected: bool | None
    """None: skipped."""


SAME = "continues; ends with the same bits"
STOPPED = f"exit status {Interrupted.EXIT_CODE} after the step; {SAME}"
FULL = f"stops, last state intact; with more room {SAME}"
OTHERS: list[tuple[str, str, Callable[[Lab, str], str], str]] = [
    ("SIGTERM", STOPPED, faults.terminated, "grpo"),
    ("SIGTERM", STOPPED, faults.terminated, "sfpo"),
    ("Disk too small for the second save", FULL, faults.too_small, "sfpo"),
    ("Disk fills up during the second save", FULL, faults.filled_up, "grpo"),
    ("Newest state corrupted, twice", f"detected by checksum, the previous state used; {SAME}", faults.corrupted, "sfpo"),
    ("A second process on the run", "stops and names the first, which is not disturbed", faults.locked, "grpo"),
    ("Rewards that overflow", "updates skipped and counted; then stops with the batch saved", faults.poisoned, "grpo"),
    ("A learning rate that destroys the weights", "stops with the batch saved", faults.destroyed, "grpo"),
    (
        "SIGKILL of one of two processes, 10 times",
        f"the job ends within a minute, says why; {SAME}",
        faults.rank_killed,
        "sfpo",
    ),
    (
        "SIGKILL, then other settings of execution",
        f"its state used, another recipe's left alone; {SAME}",
        faults.reconfigured,
        "sfpo",
    ),
    ("SIGKILL while the metrics are rewritten", f"no line is lost; {SAME}", faults.rewritten, "grpo"),
    (
        "SIGKILL between validation and save, then two processes",
        "continues; best/ is of the trajectory that was continued",
        faults.other_ranks,
        "sfpo",
    ),
    ("SIGKILL while publishing, 3 times", f"{SAME}, best/ and last/ whole", faults.published, "sfpo"),
]
"""Fault, what is expected, the function that does it, the arm."""


def outcome(fault: str, expected: str, act: Callable[[], str]) -> Outcome:
    """Inject a fault; any error is reported in the table."""
    try:
        return Outcome(fault, expected, act(), True)
    except Skipped as reason:
        return Outcome(fault, expected, f"skipped: {reason}", None)
    except Exception as error:  # one fault must not hide the others
        return Outcome(fault, expected, f"FAILED: {type(error).__name__}: {error}", False)


def run_all(folder: Path) -> tuple[list[Outcome], list[Kill]]:
    """Every fault, two jobs at a time."""
    lab = make_lab(folder)
    runs = list(lab.settings)

    def kills_of(arm: str) -> str:
        return faults.describe_kills([kill for seed in SEEDS for kill in kills[arm, seed].result()])

    with ThreadPoolExecutor(JOBS_AT_ONCE) as pool:
        list(pool.map(lambda run: lab.measure(*run), runs))
        kills = {run: pool.submit(faults.killed, lab, *run) for run in runs}
        others = [
            pool.submit(outcome, f"{fault} ({arm})", expected, partial(act, lab, arm)) for fault, expected, act, arm in OTHERS
        ]
        of_arms = [outcome(f"SIGKILL at random moments ({arm})", SAME, partial(kills_of, arm)) for arm in ARMS]
        all_kills = [kill for future in kills.values() if future.exception() is None for kill in future.result()]
        return of_arms + [future.result() for future in others], all_kills


def markdown(outcomes: list[Outcome], kills: list[Kill], seconds: float) -> str:
    marks = {True: "yes", False: "**NO**", None: "skipped"}
    cells = [(one.fault, one.expected, one.seen, marks[one.as_expected]) for one in outcomes]
    landed = [
        (
            kill.run,
            kill.aim,
            kill.landed,
            kill.after_step,
            kill.newest_state or "none",
            "; ".join(f"{name}: {', '.join(files) or 'empty'}" for name, files in kill.unfinished.items()),
        )
        for kill in kills
    ]
    return "\n".join(
        [
            f"`make chaos`: {STEPS} steps a run, a save every {SAVE_EVERY}; {seconds / 60:.0f} minutes in all. "
            "Same bits: best/, last/, metrics.jsonl, validation.jsonl and summary.json are those of an undisturbed run, but "
            "for seconds and memory.",
            "",
            *table(("fault", "expected", "seen", "as expected"), cells),
            "",
            "Every SIGKILL, and what the process left unfinished:",
            "",
            *table(("run", "aimed at", "landed in", "after step", "newest state", "unfinished"), landed),
            "",
        ]
    )


def table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    escaped = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *escaped)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of chaos.json and chaos.md")
    results = parser.parse_args().results
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="chaos-"))
    outcomes, kills = run_all(folder)
    seconds = time.monotonic() - began
    facts = {"seconds": round(seconds), "versions": versions(), "hardware": hardware()}
    record = {"outcomes": [asdict(one) for one in outcomes], "kills": [asdict(kill) for kill in kills]}
    write_json(results / "chaos.json", {**record, **facts})
    write_text(results / "chaos.md", markdown(outcomes, kills, seconds))
    print((results / "chaos.md").read_text())
    if any(one.as_expected is False for one in outcomes):
        sys.exit(f"jobs did not recover from all faults; the runs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
