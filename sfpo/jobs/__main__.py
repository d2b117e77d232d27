"""Check params.yaml and list the jobs of the active suite: ``python -m sfpo.jobs``.

Reports which results are stale, which runs will be resumed, and the time already spent on them. Writes nothing without --write,
which writes the settings file of every job, for use without the workflow (which writes them itself).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sfpo.config import load_params
from sfpo.jobs import check, describe, reports, write_settings
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sfpo.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--suite", help="active suite, overriding that of params.yaml")
    parser.add_argument("--data-mirror", help="overrides data_mirror of params.yaml, like `snakemake --config data_mirror=...`")
    parser.add_argument("--write", action="store_true", help="write the settings file of every job")
    arguments = parser.parse_args(argv)
    try:
        changes = {"data_mirror": arguments.data_mirror} if arguments.data_mirror else {}
        params = load_params(arguments.params, arguments.suite, changes)
        settings = check(params)
    except ConfigError as error:
        sys.exit(str(error))
    print(f"suite {params.suite}: {len(settings)} jobs")
    print(runs_by_item(reports(params)))
    for path in settings:
        print(f"  {path}")
    for line in describe(settings):
        print(line)
    if arguments.write:
        print(f"{len(write_settings(settings))} settings files written or changed")


def runs_by_item(items: list[ReportSettings]) -> str:
    """For each table and figure: the number of its training runs, and of those that no earlier one shows."""
    lines, known = [], set()
    for item in items:
        parts = [(item.models, "model"), (item.datasets, "data set"), (item.arms, "arm"), (item.seeds, "seed")]
        parts += [(item.learning_rate_scales, "learning rate")] if len(item.learning_rate_scales) > 1 else []
        matrix = " x ".join(f"{len(names)} {word}{'s' * (len(names) > 1)}" for names, word in parts)
        new = [run for run in item.runs if run not in known]
        known.update(new)
        evaluated = f", evaluated on {len(item.benchmarks)} benchmarks" if item.scored else ""
        lines.append(f"  {item.item:<10} {len(item.runs):>3} runs ({matrix}), {len(new)} of them new{evaluated}")
    return "\n".join([f"{len(known)} training runs:", *lines])


if __name__ == "__main__":
    main()
