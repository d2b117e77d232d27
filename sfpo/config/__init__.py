"""The schema of params.yaml: every key, with what it means and what is allowed. One module a subject.

``load_params`` turns params.yaml into a frozen, checked ``Params``; ``sfpo.jobs`` resolves that into one small settings file a
job (sfpo/settings.py). An unknown key or an impossible value raises ``ConfigError``, which names the key, the value and what is
allowed. No torch in here: it must load fast.
"""

from sfpo.config.data import Benchmark, Dataset, GeneratedRows, KeptRows, Rows, TableRows
from sfpo.config.execution import ROUNDING, Engine, Execution, JobResources, Resources
from sfpo.config.methods import Arm, DynamicSampling, Objective, OverlongPenalty, at_rate
from sfpo.config.models import HubModel, LocalModel, Model, ModelLimits, PackageModel, PretrainedModel, ScratchModel, WarmUp
from sfpo.config.names import Count, GraderName, Instruction, Name
from sfpo.config.params import Params, load_params
from sfpo.config.recipe import Lora, Optimizer, Packing, Reward, Sampler, Sampling, Train, Validation
from sfpo.config.suites import CheckpointChoice, Evaluate, Item, Override, Suite, changed

__all__ = [
    "ROUNDING",
    "Arm",
    "Benchmark",
    "CheckpointChoice",
    "Count",
    "Dataset",
    "DynamicSampling",
    "Engine",
    "Evaluate",
    "Execution",
    "GeneratedRows",
    "GraderName",
    "HubModel",
    "Instruction",
    "Item",
    "JobResources",
    "KeptRows",
    "LocalModel",
    "Lora",
    "Model",
    "ModelLimits",
    "Name",
    "Objective",
    "Optimizer",
    "OverlongPenalty",
    "Override",
    "PackageModel",
    "Packing",
    "Params",
    "PretrainedModel",
    "Resources",
    "Reward",
    "Rows",
    "Sampler",
    "Sampling",
    "ScratchModel",
    "Suite",
    "TableRows",
    "Train",
    "Validation",
    "WarmUp",
    "at_rate",
    "changed",
    "load_params",
]
