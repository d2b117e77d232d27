"""Write tables, figures and pages: ``python -m eval.report.render results/<suite>/items/<item>/settings.json ...``.

Run it in the project's folder: it reads runs/ and evaluations/, and writes below results/<suite>/. Stale results are an error.
With --partial it reports the finished runs of a suite, and lists the missing ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from eval.report import tables
from eval.report.accuracy import accuracy_frame
from eval.report.collect import Collected, ReportError, collect
from eval.report.completions_page import completions_page
from eval.report.freshness import of, require_current, write_page_record, write_record
from eval.report.kinds import find_kind
from eval.report.partial import finished_part
from eval.report.report_page import report_page
from eval.report.runs_page import runs_page
from eval.report.statistics.scores import AVERAGE
from eval.report.verdicts import headline
from sfpo.manifest import write_json, write_text
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings, load_settings, settings_hash
from sfpo.staleness import record_of


def metrics(items: Iterable[tuple[Collected, ReportSettings]]) -> dict[str, Any]:
    """Content of metrics.json: item -> model -> dataset -> arm -> benchmark -> percent (gains with their intervals), and for
    each arm trigger_fired_at: seed -> the first step after its entropy trigger fired, or None."""
    found: dict[str, Any] = {}
    for collected, settings in items:
        of_item = found.setdefault(settings.item, {})
        for _, row in accuracy_frame(collected.scores, settings).iterrows():
            columns = [*settings.benchmarks, AVERAGE]
            if row["kind"] == "gain":
                columns = [f"{column}{suffix}" for column in columns for suffix in ("", "_low", "_high")]
            arm = {column: None if pd.isna(row[column]) else round(row[column], 4) for column in columns}
            of_item.setdefault(row["model"], {}).setdefault(row["dataset"], {})[row["arm"]] = arm
        for _, run in collected.summaries.iterrows():
            fired = of_item[run["model"]][run["dataset"]][run["arm"]].setdefault("trigger_fired_at", {})
            fired[f"seed{run['seed']}"] = None if pd.isna(run["trigger_fired_at"]) else int(run["trigger_fired_at"])
    return found


def main(argv: list[str] | None = None) -> None:
    """Command-line entry point."""
    parser = argparse.ArgumentParser(prog="python -m eval.report.render", description=__doc__)
    parser.add_argument("settings", type=Path, nargs="+", help="results/<suite>/items/<item>/settings.json")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--partial", action="store_true", help="report only finished runs, into results/<suite>/partial/")
    what.add_argument("--metrics", action="store_true", help="write results/<suite>/metrics.json for the accuracy tables")
    what.add_argument("--runs", action="store_true", help="write results/<suite>/runs.html for the items' runs")
    what.add_argument("--completions", action="store_true", help="write results/<suite>/completions.html for the items' runs")
    what.add_argument("--report", action="store_true", help="write results/<suite>/report.html from the items' written files")
    what.add_argument("--headline", action="store_true", help="print the averages of the accuracy tables")
    parser.add_argument("--data-mirror", help="for --report: data mirror to name in the commands that reproduce the results")
    arguments = parser.parse_args(argv)
    try:
        items = asked = [load_settings(ReportSettings, path) for path in arguments.settings]
        results = Path("results") / items[0].suite
        folder = results / "partial" if arguments.partial else results
        if arguments.runs:
            for item in items:
                require_current(item, tops=("runs",))
            write_text(folder / "runs.html", runs_page(items))
            write_page_record(results, "runs_page", items, [folder for item in items for folder in of(item, ("runs",))])
            return
        if arguments.completions:
            for item in items:
                require_current(item)
            write_text(folder / "completions.html", completions_page(items))
            write_page_record(results, "completions_page", items, [folder for item in items for folder in item.made_from])
            return
        if arguments.report:
            for item in items:
                if (record_of(f"results/{item.suite}/items/{item.item}") or {}).get("settings_hash") != settings_hash(item):
                    raise ReportError(f"{item.item}: its tables and figures are stale or missing; run the workflow again")
            write_text(folder / "report.html", report_page(items, results, arguments.data_mirror))
            write_page_record(results, "report_page", items, [str(results / "items" / item.item) for item in items])
            return
        if arguments.partial:
            write_text(folder / "runs.html", runs_page(items))
            write_text(folder / "completions.html", completions_page(items))
            items = [part for item in items if (part := finished_part(item))]
            if not items:
                raise ReportError("no seed of any arm has finished, so there is nothing to report")
        if arguments.metrics or arguments.headline:
            items = [item for item in items if find_kind(item.shows).in_metrics]
        for item in items:
            require_current(item)
        collected = [(collect(item), item) for item in items]
    except (ConfigError, ReportError) as error:
        raise SystemExit(f"error: {error}") from None
    if arguments.metrics:
        write_json(folder / "metrics.json", metrics(collected))
        write_page_record(results, "metrics", asked, [folder for item in items for folder in item.made_from])
        return
    for found, item in collected:
        if arguments.headline or (arguments.partial and find_kind(item.shows).in_metrics):
            print(headline(tables.accuracy(found.scores, item), tables.pass_at_least_once(found.scores, item), item))
        if not arguments.headline:
            find_kind(item.shows).write(found, item, folder)
            if not arguments.partial:
                write_record(results / "items" / item.item, item, item.made_from)


if __name__ == "__main__":
    main()
