"""Overlap of the benchmarks with the training data, and scores without the overlapping problems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eval.report.kinds.base import TABLE, Files, Kind
from sfpo.settings import ReportSettings

if TYPE_CHECKING:
    from eval.report.collect import Collected


def write(collected: Collected, settings: ReportSettings, folder: Path) -> None:
    from eval.report import contamination, tables
    from eval.report.output import write_table
    from sfpo.data.contamination import overlaps

    data = Path("data") / settings.suite
    found = overlaps(
        {name: data / "benchmarks" / name / "problems.parquet" for name in settings.benchmarks},
        {name: [data / "train" / name / f"{rows}.parquet" for rows in ("train", "validation")] for name in settings.datasets},
    )
    write_table(settings.item, contamination.contamination_table(collected.scores, found, settings), folder)
    for dataset in settings.datasets:
        of_one = collected.scores[collected.scores["dataset"].isna() | (collected.scores["dataset"] == dataset)]
        left = contamination.without_overlap(of_one, found)
        name, title = f"{settings.item}_without_{dataset}", f"Without overlap with {dataset}"
        one_dataset = settings.model_copy(update={"item": name, "datasets": [dataset], "title": title})
        write_table(name, tables.accuracy(left, one_dataset), folder)


def files(item: ReportSettings) -> Files:
    """The table of overlaps, and for each data set a table of the scores without the overlapping problems."""
    without = {f"tables/{item.item}_without_{dataset}": ("scores", TABLE) for dataset in item.datasets}
    return {f"tables/{item.item}": ("contamination", TABLE), **without}


KIND = Kind(files=files, write=write, scored=True, reads_texts=True)
