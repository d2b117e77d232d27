"""What a suite's settings no longer name: ``python -m sfpo.clean`` lists it, ``python -m sfpo.clean --remove`` deletes it.

Listed are the saved states of other recipes, runs and evaluations that no suite of params.yaml has, and scores of evaluations
with other settings. Nothing else removes them: a changed setting leaves what was computed before in its place.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from sfpo.config import Params, load_params
from sfpo.jobs import resolve
from sfpo.schema import ConfigError
from sfpo.settings import EvaluationSettings, JobSettings, RunSettings, settings_hash

RUN_DEPTH = "*/*/*/*/seed*"
"""<suite>/<model>/<dataset>/<arm>/seed<k>"""


def named(params: Params) -> dict[str, JobSettings]:
    """Folder of every run and evaluation of every suite -> its settings.

    Raises:
        ConfigError: a suite cannot be resolved, so that what it names is not known.
    """
    found: dict[str, JobSettings] = {}
    for suite in params.suites:
        for path, settings in resolve(params.model_copy(update={"suite": suite})).items():
            if isinstance(settings, RunSettings | EvaluationSettings):
                found[str(Path(path).parent)] = settings
    return found


def unnamed(params: Params, root: Path = Path(".")) -> Iterator[tuple[Path, str]]:
    """(folder, why) of everything that no recipe names."""
    known = named(params)
    for top in ("runs", "evaluations"):
        for folder in sorted((root / top).glob(RUN_DEPTH)):
            settings = known.get(str(folder.relative_to(root)))
            if settings is None:
                yield folder, "no suite has it"
            elif isinstance(settings, RunSettings):
                yield from _other_states(folder, settings)
    for path, job in known.items():
        if isinstance(job, EvaluationSettings):
            for state in sorted((root / path).glob("state/*")):
                if state.name != settings_hash(job)[:12]:
                    yield state, "scores of other settings"


def _other_states(folder: Path, settings: RunSettings) -> Iterator[tuple[Path, str]]:
    for state in sorted(folder.glob("state/*")):
        recipe = json.loads((state / "recipe.json").read_text())
        mine = settings.recipe.model_dump(mode="json")
        for one in (recipe, mine):
            one["train"].pop("steps")
        if recipe != mine:
            yield state, "another recipe"


def size(folder: Path) -> int:
    """Bytes of a folder's files; a file with several hard links counts where it would be freed."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(status.st_size for status in files if status.st_nlink == 1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sfpo.clean", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--data-mirror", help="as `snakemake --config data_mirror=...` had it")
    parser.add_argument("--remove", action="store_true", help="delete what is listed")
    arguments = parser.parse_args(argv)
    try:
        changes = {"data_mirror": arguments.data_mirror} if arguments.data_mirror else {}
        found = list(unnamed(load_params(arguments.params, changes=changes)))
    except ConfigError as error:
        sys.exit(str(error))
    for folder, why in found:
        print(f"{folder}: {why}, {size(folder) / 2**20:.1f} MiB")
        if arguments.remove:
            shutil.rmtree(folder)
    print(f"{len(found)} folders {'removed' if arguments.remove else 'that no recipe names; --remove deletes them'}")


if __name__ == "__main__":
    main()
