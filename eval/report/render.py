"""Write tables and figures: ``python -m eval.report.render results/<suite>/items/<item>/settings.json ...``, in the project's
folder.

Reads runs/ and evaluations/, writes below results/<suite>/. Equal results give equal bytes, pictures included. With --partial
it reports what has finished of a suite, and marks what has not.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eval.report import arms, contamination, figures, selection, tables, targets_display
from eval.report.collect import Collected, ReportError, collect
from eval.report.markup import html, html_page
from eval.report.paper_values import beside_ours, paper_values
from eval.report.partial import finished_part
from eval.report.runs_page import runs_page
from eval.report.statistics import AVERAGE
from eval.report.style import context
from sfpo.config import Shows
from sfpo.data.contamination import overlaps
from sfpo.manifest import write_json, write_text
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings, load_settings

PAPER_ITEMS = frozenset(paper_values()["item"])
# Without these entries the time of drawing would be in the file.
UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def write_table(name: str, table: tables.Table, folder: Path) -> None:
    """tables/<name> as csv, md and tex, and as a page that shows the md: the workflow's report opens no other form."""
    write_text(folder / f"tables/{name}.csv", _csv(table.frame))
    write_text(folder / f"tables/{name}.md", table.markdown)
    write_text(folder / f"tables/{name}.tex", table.latex)
    write_text(folder / f"tables/{name}.html", html_page(name, html(table.markdown)))


def write_figure(name: str, drawn: tuple[Figure, pd.DataFrame], folder: Path) -> None:
    """figures/<name> as png and pdf, and the data that it shows as csv."""
    figure, data = drawn
    write_text(folder / f"figures/{name}.csv", _csv(data))
    for kind, metadata in UNDATED.items():
        buffer = io.BytesIO()
        with context():
            figure.savefig(buffer, format=kind, metadata=metadata)
        _write_bytes(folder / f"figures/{name}.{kind}", buffer.getvalue())


def _scores(c: Collected, settings: ReportSettings, folder: Path) -> None:
    table = tables.accuracy(c.scores, settings)
    write_table(settings.item, table, folder)
    write_table(f"{settings.item}_pass_at_k", tables.pass_at_least_once(c.scores, settings), folder)
    if settings.item in PAPER_ITEMS:
        titles = {**settings.arms, **settings.benchmarks}
        write_table(f"{settings.item}_beside_paper", beside_ours(settings.item, table.frame, titles), folder)


def _costs(c: Collected, settings: ReportSettings, folder: Path) -> None:
    figure, data = figures.costs(c.validation, settings)
    write_figure(settings.item, (figure, data), folder)
    if settings.item in PAPER_ITEMS:
        means = data[data["series"] == "mean"]
        write_table(f"{settings.item}_beside_paper", beside_ours(settings.item, means, settings.arms), folder)


def _arms(c: Collected, settings: ReportSettings, folder: Path) -> None:
    write_table(settings.item, arms.arms_table(c.scores, c.validation, c.metrics, c.summaries, settings), folder)
    write_figure(settings.item, arms.arms_figure(c.validation, settings), folder)


def _targets(c: Collected, settings: ReportSettings, folder: Path) -> None:
    write_table(settings.item, targets_display.targets_table(c.validation, settings), folder)
    write_figure(settings.item, targets_display.targets_figure(c.validation, settings), folder)


def _contamination(c: Collected, settings: ReportSettings, folder: Path) -> None:
    data = Path("data") / settings.suite
    found = overlaps(
        {name: data / "benchmarks" / name / "problems.parquet" for name in settings.benchmarks},
        {name: [data / "train" / name / f"{rows}.parquet" for rows in ("train", "validation")] for name in settings.datasets},
    )
    write_table(settings.item, contamination.contamination_table(c.scores, found, settings), folder)
    for dataset in settings.datasets:
        of_one = c.scores[c.scores["dataset"].isna() | (c.scores["dataset"] == dataset)]
        left = contamination.without_overlap(of_one, found)
        name, title = f"{settings.item}_without_{dataset}", f"Without overlap with {dataset}"
        alone = settings.model_copy(update={"item": name, "datasets": [dataset], "title": title})
        write_table(name, tables.accuracy(left, alone), folder)


WRITERS: dict[Shows, Callable[[Collected, ReportSettings, Path], None]] = {
    "scores": _scores,
    "arms": _arms,
    "curves": lambda c, s, folder: write_figure(s.item, figures.curves(c.validation, c.summaries, s), folder),
    "dynamics": lambda c, s, folder: write_figure(s.item, figures.dynamics(c.metrics, s), folder),
    "costs": _costs,
    "targets": _targets,
    "contamination": _contamination,
    "selection": lambda c, s, folder: write_table(s.item, selection.selection_table(c.scores, s), folder),
    "memory": lambda c, s, folder: write_figure(s.item, figures.memory(c.metrics, s), folder),
}
"""What is shown -> what makes it: tables/<item>... and figures/<item> below a folder (workflow/rules/report.smk lists them)."""


def metrics(items: Iterable[tuple[Collected, ReportSettings]]) -> dict[str, Any]:
    """Item -> model -> dataset -> arm -> benchmark -> percent (gains with intervals), and the steps at which triggers fired."""
    found: dict[str, Any] = {}
    for collected, settings in items:
        of_item = found.setdefault(settings.item, {})
        for _, row in tables.accuracy(collected.scores, settings).frame.iterrows():
            columns = [*settings.benchmarks, AVERAGE]
            if row["kind"] == "gain":
                columns = [f"{column}{suffix}" for column in columns for suffix in ("", "_low", "_high")]
            arm = {column: None if pd.isna(row[column]) else round(row[column], 4) for column in columns}
            of_item.setdefault(row["model"], {}).setdefault(row["dataset"], {})[row["arm"]] = arm
        for _, run in collected.summaries.iterrows():
            fired = of_item[run["model"]][run["dataset"]][run["arm"]].setdefault("trigger_fired_at", {})
            fired[f"seed{run['seed']}"] = None if pd.isna(run["trigger_fired_at"]) else int(run["trigger_fired_at"])
    return found


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.10g")


def _write_bytes(path: Path, content: bytes) -> None:
    """Atomic, as sfpo.manifest.write_text is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.rename(path)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.report.render", description=__doc__)
    parser.add_argument("settings", type=Path, nargs="+", help="results/<suite>/items/<item>/settings.json")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--partial", action="store_true", help="of the runs that have finished, into results/<suite>/partial/")
    what.add_argument("--metrics", action="store_true", help="write results/<suite>/metrics.json, of those that show scores")
    what.add_argument("--runs", action="store_true", help="write results/<suite>/runs.html, of the runs that these show")
    what.add_argument("--headline", action="store_true", help="print the averages of those that show scores")
    arguments = parser.parse_args(argv)
    try:
        items = [load_settings(ReportSettings, path) for path in arguments.settings]
        folder = Path("results") / items[0].suite / ("partial" if arguments.partial else "")
        if arguments.runs or arguments.partial:
            write_text(folder / "runs.html", runs_page(items))
        if arguments.runs:
            return
        if arguments.partial:
            items = [part for item in items if (part := finished_part(item))]
            if not items:
                raise ReportError("no seed of any arm has finished, so there is nothing to report")
        if arguments.metrics or arguments.headline:
            items = [item for item in items if item.shows == "scores"]
        collected = [(collect(item), item) for item in items]
    except (ConfigError, ReportError) as error:
        raise SystemExit(f"error: {error}") from None
    if arguments.metrics:
        write_json(folder / "metrics.json", metrics(collected))
        return
    for found, item in collected:
        if arguments.headline or (arguments.partial and item.shows == "scores"):
            print(tables.headline(tables.accuracy(found.scores, item), item))
        if not arguments.headline:
            WRITERS[item.shows](found, item, folder)


if __name__ == "__main__":
    main()
