"""Everything about params.yaml that can be known to be wrong before the first job starts."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from eval.report.kinds import find_kind
from sfpo.config import Arm, LocalModel, Params
from sfpo.data.prompts import require_chat_template
from sfpo.data.sources import check_mirror
from sfpo.jobs.items import reports, union
from sfpo.jobs.resolve import checked_rule, resolve
from sfpo.jobs.standing import require_enough_steps
from sfpo.rewards.graders import make_grader
from sfpo.schema import ConfigError
from sfpo.settings import BenchmarkSettings, DatasetSettings, JobSettings, ModelSettings, RunSettings

log = logging.getLogger(__name__)

WORKFLOW = Path(__file__).parents[2] / "workflow"
RULE = re.compile(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", re.MULTILINE)


def check(params: Params, root: Path = Path(".")) -> dict[str, JobSettings]:
    """Rule settings, mirror files, local models, the sandbox of code tasks, steps that are done already. Writes nothing.

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
    if any(one.grader == "code" for one in [*(one.dataset for one in tables), *benchmarks]):
        _check_isolation()
    for one in settings.values():
        if isinstance(one, ModelSettings) and isinstance(one.model, LocalModel):
            require_chat_template(Path(one.model.path))
    _require_free_names(params)
    require_enough_steps([one for one in settings.values() if isinstance(one, RunSettings)], root)
    return settings


def _require_free_names(params: Params) -> None:
    """An item is also a target of the workflow, so it cannot have the name of a rule."""
    files = [WORKFLOW / "Snakefile", *WORKFLOW.glob("rules/*.smk")]
    rules = {name for file in files if file.is_file() for name in RULE.findall(file.read_text())}
    for item in params.active.items:
        if item in rules:
            raise ConfigError(f"suites.{params.suite}.items.{item}: the workflow has a rule of that name; choose another")
    writers: dict[str, str] = {}
    for one in reports(params):
        for file in find_kind(one.shows).files(one):
            if file in writers:
                other = writers[file]
                raise ConfigError(
                    f"suites.{params.suite}.items.{one.item}: it and {other} would write {file}; choose another name"
                )
            writers[file] = one.item


def _warn_if_wrong(name: str, arm: Arm) -> None:
    """No run of the active suite depends on it."""
    try:
        checked_rule(arm.rule, arm.rule_settings, f"arms.{name}")
    except ConfigError as error:
        log.warning("params.yaml: not used by the active suite, but wrong: %s", error)


def _check_isolation() -> None:
    with make_grader("code", workers=1) as grader:
        try:
            grader.check_isolation()
        except RuntimeError as error:
            raise ConfigError(f"grader = 'code': {error}") from None
