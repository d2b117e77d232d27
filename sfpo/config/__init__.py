"""The schema of params.yaml: every key with its meaning and allowed values, one module per section.

``load_params`` reads params.yaml into a frozen, validated ``Params``; ``sfpo.jobs`` resolves that into one small settings file
per job (sfpo/settings/). An unknown key or an invalid value raises ``ConfigError``, which names the key, the value and what
is allowed. These modules do not import torch, so that they load fast.
"""

from sfpo.config.changes import changed
from sfpo.config.data import Benchmark, Dataset, GeneratedRows, KeptRows, Rows, TableRows
from sfpo.config.execution import ROUNDING, Engine, Execution, JobResources, Resources
from sfpo.config.methods import Arm, DynamicSampling, Objective, OverlongPenalty, at_rate
from sfpo.config.models import HubModel, LocalModel, Model, ModelLimits, PackageModel, PretrainedModel, ScratchModel, WarmUp
from sfpo.config.names import Count, GraderName, Instruction, Name
from sfpo.config.params import Params, load_params
from sfpo.config.recipe import Difficulty, Lora, Optimizer, Packing, Reward, Sampler, Sampling, Train, Validation
from sfpo.config.suites import CheckpointChoice, Evaluate, Item, Override, Suite

__all__ = [
    "ROUNDING",
    "Arm",
    "Benchmark",
    "CheckpointChoice",
    "Count",
    "Dataset",
    "Difficulty",
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
