"""Partial reports: which part of an item can be shown when not all jobs of the suite have finished, and a note on the rest."""

from __future__ import annotations

from pathlib import Path

from eval.report.freshness import stale
from sfpo.settings import ReportSettings, RunId

OF_RUN = ("metrics.jsonl", "validation.jsonl")
OF_EVALUATION = "scores.parquet"


def is_finished(run: RunId, root: Path, settings: ReportSettings) -> bool:
    """Whether all files of the run (and of its evaluation, if the item shows it) exist and are not stale."""
    files = [f"runs/{run.path}/{name}" for name in OF_RUN]
    files += [f"evaluations/{run.path}/{OF_EVALUATION}"] if settings.scored else []
    folders = dict.fromkeys(str(Path(file).parent) for file in files)
    return all((root / file).is_file() for file in files) and not any(stale(folder, settings, root) for folder in folders)


def finished_part(settings: ReportSettings, root: Path = Path(".")) -> ReportSettings | None:
    """The part of an item that can be reported: the seeds that every arm has finished on every model and data set.

    If there is no such seed, the arm with the fewest finished runs is dropped, repeatedly. A model is dropped with its runs if
    its untrained checkpoint has not been evaluated.

    Returns:
        The settings of that part, with the excluded runs listed in ``missing``; None if there is nothing to report.
    """
    models = [model for model in settings.models if not any(stale(one, settings, root) for one in _of_model(settings, model))]
    part = settings.model_copy(update={"models": models})
    finished = [run for run in part.runs if is_finished(run, root, settings)]
    arms = dict(settings.arms)
    while arms and models:
        rest = part.model_copy(update={"arms": arms})
        seeds = [s for s in settings.seeds if all(run in finished for run in rest.runs if run.seed == s)]
        if seeds:
            rest = rest.model_copy(update={"seeds": seeds})
            return rest.model_copy(update={"missing": tuple(run.path for run in settings.runs if run not in rest.runs)})
        count = {arm: sum(run.arm == arm for run in finished) for arm in arms}
        del arms[min(reversed(arms), key=count.__getitem__)]
    return None


def _of_model(settings: ReportSettings, model: str) -> list[str]:
    """Folders of results that the item needs for this model besides its runs."""
    steps = [settings.trajectory(model, dataset) for dataset in settings.datasets]
    return [*([settings.base[model]] if settings.scored else []), *(one for one in steps if one in settings.made_from)]


def missing_rows(settings: ReportSettings, model: str, dataset: str) -> list[str]:
    """Arms that the report excludes for this model and data set; tables mark their rows as missing."""
    prefix = f"{settings.suite}/{model}/{dataset}/"
    arms = dict.fromkeys(path.removeprefix(prefix).split("/")[0] for path in settings.missing if path.startswith(prefix))
    return [arm for arm in arms if arm not in settings.arms]


def missing_note(settings: ReportSettings) -> list[str]:
    """A note that lists the excluded runs; empty if there are none."""
    if not settings.missing:
        return []
    return [f"INCOMPLETE: {len(settings.missing)} runs are not in this table: {', '.join(settings.missing)}."]
