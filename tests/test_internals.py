"""Internals of other libraries that the project depends on. After an upgrade, a failed case names what the new version changed.

Behavior is tested where it is used; these tests only find out what is missing. The tested versions are those of the lock files.
"""

import ast
import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ONE_FILE = {
    "vllm": {"sfpo/rollouts/vllm_engine.py"},
    "snakemake": {"workflow/progress.py"},
    "transformers": {"sfpo/transformers_internals.py"},
}
"""Library -> the only file that may import its internals."""
DOCUMENTED = {"vllm": (), "snakemake": (), "transformers": ("transformers", "transformers.utils", "transformers.utils.logging")}
"""Modules of a library that any file may import."""


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("library", ONE_FILE)
def test_internals_are_imported_in_one_file(library):
    files = [path for top in ("sfpo", "eval", "workflow") for path in (PROJECT / top).rglob("*.py")]
    importers = {
        str(path.relative_to(PROJECT))
        for path in files
        for module in imports(path)
        if re.split(r"[._]", module)[0] == library and module not in DOCUMENTED[library]
    }
    assert importers == ONE_FILE[library]


@pytest.mark.parametrize("library", ["transformers", "vllm"])
def test_the_tested_version_is_the_locked_one(library):
    file = PROJECT / next(iter(ONE_FILE[library]))
    tested = re.search(r'^TESTED = "(.*)"', file.read_text(), re.MULTILINE)[1]
    for lock in ("cpu", "gpu"):
        packages = (PROJECT / f"requirements/{lock}.txt").read_text()
        locked = re.search(rf"^{library}(?:-cpu)?==([\d.]+)", packages, re.MULTILINE)[1]
        assert f"{locked}.".startswith(f"{tested}."), f"requirements/{lock}.txt has {library} {locked}; {file} names {tested}"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            "transformers.masking_utils.sdpa_mask",
            {"q_length", "kv_length", "mask_function", "allow_is_causal_skip"},
        ),
        (
            "transformers.core_model_loading.rename_source_key",
            {"source_key", "weight_renamings", "reverse"},
        ),
        ("vllm.LLM.sleep", {"level"}),
        ("vllm.LLM.wake_up", {"tags"}),
        ("vllm.LLM.apply_model", {"func"}),
        ("vllm.LLM.collective_rpc", {"method", "kwargs"}),
        ("vllm.v1.engine.llm_engine.LLMEngine.add_request", {"request_id", "prompt", "params"}),
        ("vllm.v1.worker.gpu_model_runner.GPUModelRunner.reload_weights", {"weights_iterator", "weights_path"}),
        ("vllm.v1.worker.gpu.model_runner.GPUModelRunner.reload_weights", set()),  # of a GPU: what it takes is read on one
    ],
)
def test_parameters(function, parameters):
    module, *names = _split(function)
    found = importlib.import_module(module)
    for name in names:
        found = getattr(found, name)
    assert parameters <= set(inspect.signature(found).parameters)


def _split(path: str) -> list[str]:
    """'vllm.LLM.sleep' -> ['vllm', 'LLM', 'sleep']: module names are lower case up to a class, or all but the last."""
    parts = path.split(".")
    first = next((place for place, part in enumerate(parts) if part[0].isupper()), len(parts) - 1)
    return [".".join(parts[:first]), *parts[first:]]


def test_attributes_of_models():
    from transformers import AutoModel, PreTrainedModel
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    assert PreTrainedModel._keys_to_ignore_on_save is None and callable(PreTrainedModel._can_set_attn_implementation)
    assert "all_tied_weights_keys" in inspect.getsource(PreTrainedModel)
    assert "_weight_conversions" in inspect.getsource(importlib.import_module("transformers.core_model_loading"))
    assert hasattr(AutoModel, "_model_mapping")
    assert {"reverse_transform", "add_tensor", "convert"} <= {*dir(WeightConverter), *dir(WeightRenaming)}


def test_attributes_of_vllms_layers():
    from vllm.model_executor.layers.fused_moe import fused_moe_method_base
    from vllm.model_executor.model_loader.reload.types import LayerReloadingInfo

    assert "loaded_weights" in {field.name for field in fields(LayerReloadingInfo)}
    assert "self.moe_kernel" in inspect.getsource(fused_moe_method_base)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_engine_arguments(on_gpu, params, limits):
    from vllm.engine.arg_utils import EngineArgs

    from sfpo.ranks import SINGLE_PROCESS
    from sfpo.rollouts.vllm_engine import llm_arguments

    suite = params.active
    arguments = llm_arguments("folder", limits, suite.sampler, suite.execution.engine, SINGLE_PROCESS, on_gpu)
    assert set(arguments) <= {field.name for field in fields(EngineArgs)}


def test_snakemakes_events_and_flags():
    from snakemake.api import Workflow  # snakemake.workflow cannot be imported first
    from snakemake_interface_logger_plugins.common import LogEvent

    from workflow.progress import SHOWN_INSTEAD

    assert {LogEvent.JOB_ERROR, *SHOWN_INSTEAD} <= set(LogEvent)
    assert isinstance(Workflow.is_main_process, property) and isinstance(Workflow.dryrun, property)
