"""Results that no suite uses any more: ``python -m sfpo.clean`` lists them, ``python -m sfpo.clean --remove`` deletes them.

These are data, models, runs and evaluations that are in no suite of params.yaml, saved states of other recipes, and scores of
evaluations with other settings. Nothing else deletes them: changing a setting keeps the earlier results. A run that is being
trained is not touched.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from sfpo.config import Params, load_params
from sfpo.jobs import resolve
from sfpo.schema import ConfigError
from sfpo.settings import EvaluationSettings, FilterSettings, JobSettings, RunSettings, settings_hash
from sfpo.trainer.lock import RunLocked, run_lock

FOLDERS = (
    "data/*/*/*",
    "models/*/*",
    "runs/*/*/*/*/seed*",
    "evaluations/*/*/base*",
    "evaluations/*/*/*/*/seed*",
    "evaluations/*/*/*/trajectory-*",
)
"""Folders of jobs whose results are expensive to recompute."""


def named(params: Params, root: Path = Path(".")) -> dict[str, JobSettings]:
    """Folder of every job of every suite -> its settings, with the data mirror that the suite's data were prepared from.

    Suites without any results on disk are skipped.

    Raises:
        ConfigError: a suite cannot be resolved, so its jobs are not known.
    """
    found: dict[str, JobSettings] = {}
    for suite in params.suites:
        if any((root / top / suite).is_dir() for top in ("data", "models", "runs", "evaluations")):
            mirror = _recorded_mirror(root / "data" / suite, params.data_mirror)
            of_suite = resolve(params.model_copy(update={"suite": suite, "data_mirror": mirror}))
            found |= {str(Path(path).parent): settings for path, settings in of_suite.items()}
    return found


def _recorded_mirror(data: Path, otherwise: str | None) -> str | None:
    """The mirror in the prepared settings: ``snakemake --config data_mirror=...`` overrides that of params.yaml."""
    for path in sorted(data.glob("*/*/settings.json")):
        settings = json.loads(path.read_text())
        if "data_mirror" in settings:
            return settings["data_mirror"]
    return otherwise


def unnamed(params: Params, root: Path = Path(".")) -> Iterator[tuple[Path, str]]:
    """(folder, reason) of everything that no suite uses."""
    known = named(params, root)
    for folder in sorted(path for pattern in FOLDERS for path in root.glob(pattern) if path.is_dir()):
        settings = known.get(str(folder.relative_to(root)))
        if settings is None:
            yield folder, "in no suite"
        elif isinstance(settings, RunSettings):
            yield from _other_states(folder, settings)
        elif isinstance(settings, (EvaluationSettings, FilterSettings)):
            for state in sorted(folder.glob("state/*")):
                if state.name != settings_hash(settings)[:12]:
                    yield state, "scores of other settings"


def _other_states(folder: Path, settings: RunSettings) -> Iterator[tuple[Path, str]]:
    for recipe in sorted(folder.glob("state/*/recipe.json")):
        theirs, mine = json.loads(recipe.read_text()), settings.recipe.model_dump(mode="json")
        for one in (theirs, mine):
            one["train"].pop("steps")
        if theirs != mine:
            yield recipe.parent, "another recipe"


def remove(folder: Path, root: Path = Path(".")) -> None:
    """Delete a folder that ``unnamed`` has listed.

    Raises:
        RunLocked: it belongs to a run that is being trained.
    """
    parts = folder.relative_to(root).parts
    with run_lock(root / Path(*parts[:6])) if parts[0] == "runs" else nullcontext():
        shutil.rmtree(folder)


def size(folder: Path) -> int:
    """Bytes that deleting the folder frees. A file with several hard links counts if all of them are in the folder."""
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    inside = Counter(status.st_ino for status in files.values())
    return sum(status.st_size // status.st_nlink for status in files.values() if inside[status.st_ino] == status.st_nlink)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sfpo.clean", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--remove", action="store_true", help="delete the listed folders")
    arguments = parser.parse_args(argv)
    try:
        found = list(unnamed(load_params(arguments.params, every_suite=True)))
    except ConfigError as error:
        sys.exit(f"{error}\nNothing is listed or removed: correct this first, so that the jobs of all suites are known")
    removed = 0
    for folder, why in found:
        line = f"{folder}: {why}, {size(folder) / 2**20:.1f} MiB"
        try:
            if arguments.remove:
                remove(folder)
                removed += 1
        except RunLocked as error:
            line += f", not removed: {error}"
        print(line)
    print(
        f"{removed} folders removed" if arguments.remove else f"{len(found)} folders that no suite uses; --remove deletes them"
    )


if __name__ == "__main__":
    main()
