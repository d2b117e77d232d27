"""Runs all benchmarks of speed and memory: ``python -m benchmarks.run`` (or ``make bench``), in the project's folder.

Writes benchmarks/results/<benchmark>.json with every turn, and after each benchmark the summary of all that have run:
summary.json, summary.md, and the table and figure of docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import time
from importlib import metadata
from pathlib import Path

from benchmarks.sides import Options
from benchmarks.summary import summarize
from sfpo.manifest import write_json
from sfpo.provenance import hardware, versions

BENCHMARKS = (
    "grpo_step",
    "grpo_step_tiny",
    "update",
    "memory",
    "save",
    "planner",
    "logprobs",
    "scaling",
    "ranks",
    "evaluation",
)
"""Modules of this package, each with a function ``run``."""
PAGE = Path("docs/performance.md")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="models", help="folder of the prepared checkpoints (default: models)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder to write to")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=BENCHMARKS, nargs="+", default=BENCHMARKS, help="run only these benchmarks")
    parser.add_argument("--quick", action="store_true", help="smoke test: one repetition of everything on the tiny model")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = Options(arguments.models, arguments.repetitions)
    if arguments.quick:
        options = Options(arguments.models, repetitions=1, patience=0.0, quick=True)
    # The page only has figures of complete runs.
    page = None if arguments.quick or arguments.only != BENCHMARKS else PAGE
    # Before any file is written, since result files would make the git tree dirty.
    machine = {key: value for key, value in hardware().items() if key != "threads"}  # each side has its own
    made_by = {"versions": {**versions(), "trl": metadata.version("trl")}, "machine": machine}
    for name in arguments.only:
        started = time.perf_counter()
        logging.info("%s", name)
        result = importlib.import_module(f"benchmarks.{name}").run(options)
        minutes = round((time.perf_counter() - started) / 60, 1)
        write_json(arguments.out / f"{name}.json", {**result, "minutes": minutes, **made_by})
        summarize(arguments.out, BENCHMARKS, page)


if __name__ == "__main__":
    main()
