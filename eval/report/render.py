"""Write the report: ``python -m eval.report.render results/<suite>/settings.json table1 figure2 ...``, in the project's folder.

Reads runs/ and evaluations/, writes below results/<suite>/. Equal results give equal bytes, pictures included. With --partial
it reports what has finished of a suite, and marks what has not.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eval.report import arms, figures, tables
from eval.report.collect import Collected, ReportError, collect
from eval.report.partial import finished_part
from eval.report.statistics import AVERAGE
from eval.report.style import context
from sfpo.manifest import write_json, write_text
from sfpo.schema import ConfigError
from sfpo.settings import ReportSettings, load_settings

# Without these entries the time of drawing would be in the file.
UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def write_table1(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    """tables/table1 and tables/table1_pass_at_k, as csv, md and tex."""
    for name, make in (("table1", tables.table1), ("table1_pass_at_k", tables.table1_pass_at_k)):
        write_table(name, make(collected.scores, settings), folder)


def write_arms(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    """tables/arms as csv, md and tex; figures/arms as png, pdf and csv."""
    c = collected
    write_table("arms", arms.arms_table(c.scores, c.validation, c.metrics, c.summaries, settings), folder)
    write_figure("arms", arms.arms_figure(c.validation, settings), folder)


def write_table(name: str, table: tables.Table, folder: Path) -> None:
    """tables/<name> as csv, md and tex."""
    write_text(folder / f"tables/{name}.csv", _csv(table.frame))
    write_text(folder / f"tables/{name}.md", table.markdown)
    write_text(folder / f"tables/{name}.tex", table.latex)


def write_figure(name: str, drawn: tuple[Figure, pd.DataFrame], folder: Path) -> None:
    """figures/<name> as png and pdf, and the data that it shows as csv."""
    figure, data = drawn
    write_text(folder / f"figures/{name}.csv", _csv(data))
    for kind, metadata in UNDATED.items():
        buffer = io.BytesIO()
        with context():
            figure.savefig(buffer, format=kind, metadata=metadata)
        _write_bytes(folder / f"figures/{name}.{kind}", buffer.getvalue())


def write_metrics(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    """metrics.json: model -> dataset -> arm -> benchmark -> percent, gains with intervals, steps at which triggers fired."""
    frame = tables.table1(collected.scores, settings).frame
    found: dict[str, Any] = {}
    for _, row in frame.iterrows():
        columns = [*settings.benchmarks, AVERAGE]
        if row["kind"] == "gain":
            columns = [f"{column}{suffix}" for column in columns for suffix in ("", "_low", "_high")]
        arm = {column: None if pd.isna(row[column]) else round(row[column], 4) for column in columns}
        found.setdefault(row["model"], {}).setdefault(row["dataset"], {})[row["arm"]] = arm
    for _, run in collected.summaries.iterrows():
        fired = found[run["model"]][run["dataset"]][run["arm"]].setdefault("trigger_fired_at", {})
        fired[f"seed{run['seed']}"] = None if pd.isna(run["trigger_fired_at"]) else int(run["trigger_fired_at"])
    write_json(folder / "metrics.json", found)


ITEMS: dict[str, Callable[[Collected, ReportSettings, Path], None]] = {
    "table1": write_table1,
    "figure2": lambda c, s, folder: write_figure("figure2", figures.figure2(c.validation, c.summaries, s), folder),
    "figure3": lambda c, s, folder: write_figure("figure3", figures.figure3(c.metrics, s), folder),
    "figure4": lambda c, s, folder: write_figure("figure4", figures.figure4(c.validation, s), folder),
    "arms": write_arms,
    "metrics": write_metrics,
    "headline": lambda c, s, _: print(tables.headline(tables.table1(c.scores, s), s)),
}
"""What can be asked for, and what makes it."""


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
    parser.add_argument("settings", type=Path, help="results/<suite>/settings.json")
    parser.add_argument("items", nargs="*", metavar="item", help=f"of {', '.join(ITEMS)}; none: all")
    parser.add_argument("--partial", action="store_true", help="of the runs that have finished, into results/<suite>/partial/")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.items) - set(ITEMS):
        parser.error(f"{', '.join(sorted(unknown))}: no such item; there are {', '.join(ITEMS)}")
    try:
        settings = load_settings(ReportSettings, arguments.settings)
        folder = Path("results") / settings.suite
        if arguments.partial:
            settings, folder = finished_part(settings), folder / "partial"
        if settings is None:
            raise ReportError("no seed of any arm has finished, so there is nothing to report")
        collected = collect(settings)
    except (ConfigError, ReportError) as error:
        raise SystemExit(f"error: {error}") from None
    for item in arguments.items or ITEMS:
        ITEMS[item](collected, settings, folder)


if __name__ == "__main__":
    main()
