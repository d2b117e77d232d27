"""All errors in params.yaml that can be detected before the first job starts."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from eval.report.kinds import find_kind
from sfpo.config import Arm, LocalModel, Params
from sfpo.data.prompts import require_chat_template
from sfpo.data.sources import check_mirror
from sfpo.jobs.items import reports, runs, union
from sfpo.jobs.overrides import overrides_of
from sfpo.jobs.resolve import checked_rule, resolve
from sfpo.jobs.status import require_enough_steps
from sfpo.rewards.code_tests import CodeGrader
from sfpo.schema import ConfigError
from sfpo.settings import BenchmarkSettings, DatasetSettings, JobSettings, ModelSettings, ReportSettings, RunSettings

log = logging.getLogger(__name__)

WORKFLOW = Path(__file__).parents[2] / "workflow"
RULE = re.compile(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", re.MULTILINE)


def check(params: Params, root: Path = Path(".")) -> dict[str, JobSettings]:
    """Check rule settings, mirror files, local models, the sandbox of code tasks, and numbers of steps. Writes nothing.

    Args:
        root: folder that holds runs/.

    Returns:
        What ``resolve`` returns.

    Raises:
        ConfigError: names the key, the value and the remedy.
    """
    settings = resolve(params)
    used = union(item.arms or params.active.arms for item in params.active.items.values())
    for name, arm in params.arms.items():
        if name not in used:
            _warn_if_wrong(name, arm)
    tables = [one for one in settings.values() if isinstance(one, DatasetSettings)]
    for one in tables:
        for rows in one.dataset.parts.values():
            check_mirror(rows, params.data_mirror)
    benchmarks = [one.benchmark for one in settings.values() if isinstance(one, BenchmarkSettings)]
    for benchmark in benchmarks:
        check_mirror(benchmark.rows, params.data_mirror, "test")
    if "code" in {*(one.dataset.grader for one in tables), *(benchmark.grader for benchmark in benchmarks)}:
        _check_isolation()
    for job in settings.values():
        if isinstance(job, ModelSettings) and isinstance(job.model, LocalModel):
            require_chat_template(Path(job.model.path))
    _require_free_names(params)
    _warn_of_idle_overrides(params)
    require_enough_steps([one for one in settings.values() if isinstance(one, RunSettings)], root)
    return settings


def _require_free_names(params: Params) -> None:
    """An item is also a workflow target, so it cannot have the name of a Snakemake rule."""
    files = [WORKFLOW / "Snakefile", *WORKFLOW.glob("rules/*.smk")]
    rules = {name for file in files if file.is_file() for name in RULE.findall(file.read_text())}
    for item in params.active.items:
        if item in rules:
            raise ConfigError(f"suites.{params.suite}.items.{item}: the workflow has a rule of that name; choose another")
    writers: dict[str, str] = {}
    for one in reports(params):
        _require_titles_apart(params.suite, one)
        for file in find_kind(one.shows).files(one):
            if file in writers:
                other = writers[file]
                raise ConfigError(
                    f"suites.{params.suite}.items.{one.item}: {other} would also write {file}; rename one of the two"
                )
            writers[file] = one.item


def _require_titles_apart(suite: str, item: ReportSettings) -> None:
    """Rows, columns and curves are identified by their titles."""
    for what, titles in (("arms", item.arms), ("benchmarks", item.benchmarks)):
        for name, title in titles.items():
            others = [other for other in titles if titles[other] == title and other != name]
            if others:
                both = f"{what} {name} and {others[0]} have the same title, '{title}'"
                raise ConfigError(f"suites.{suite}.items.{item.item}: {both}; give one of them another")


def _warn_if_wrong(name: str, arm: Arm) -> None:
    """Only a warning: no run of the active suite depends on this arm."""
    try:
        checked_rule(arm.rule, arm.rule_settings, f"arms.{name}")
    except ConfigError as error:
        log.warning("params.yaml: invalid, but not used by the active suite: %s", error)


def _warn_of_idle_overrides(params: Params) -> None:
    trained = runs(reports(params))
    for place, override in enumerate(params.active.overrides):
        if not any(override in overrides_of(params, run.model, run.dataset, run.arm) for run in trained):
            log.warning("suites.%s.overrides[%d] applies to no run of the suite", params.suite, place)


def _check_isolation() -> None:
    with CodeGrader(workers=1) as grader:
        try:
            grader.check_isolation()
        except RuntimeError as error:
            raise ConfigError(f"grader = 'code': {error}") from None
