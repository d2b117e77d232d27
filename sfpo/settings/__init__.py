"""The settings file of each job: everything that determines its result, and how it is computed. ``sfpo.jobs`` writes them.

``settings_hash`` is the identity of a job's result: a hash of the settings that determine it, including the identities of its
inputs. How a job is computed (execution), paths, and titles in the report are not part of it. Each result records the identity
of its settings; if that differs from the current identity, the result is stale.
"""

from sfpo.settings.evaluation import ArmStep, EvaluationSettings, TrajectorySettings
from sfpo.settings.job import JobSettings, load_settings, settings_hash, to_json
from sfpo.settings.preparation import BenchmarkSettings, DatasetSettings, FilterSettings, ModelSettings
from sfpo.settings.report import PageSettings, ReportSettings
from sfpo.settings.training import Recipe, RuleSettings, RunId, RunSettings

__all__ = [
    "ArmStep",
    "BenchmarkSettings",
    "DatasetSettings",
    "EvaluationSettings",
    "FilterSettings",
    "JobSettings",
    "ModelSettings",
    "PageSettings",
    "Recipe",
    "ReportSettings",
    "RuleSettings",
    "RunId",
    "RunSettings",
    "TrajectorySettings",
    "load_settings",
    "settings_hash",
    "to_json",
]
