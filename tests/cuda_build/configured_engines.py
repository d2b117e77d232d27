"""A program of test_cuda_build: vLLM's own check of every engine that params.yaml leads to, as JSON on standard output.

``configured_engines.py <folder>``, with $FAKED_GPUS devices: alone, as one process; with several, as the last of their ranks.
"""

import json
import os
import sys
from pathlib import Path

import tests.cuda_build.faked_devices as faked

# isort: split
from transformers import AutoConfig, GenerationConfig

from sfpo.config import HubModel, Model, PackageModel, Params, load_params
from sfpo.jobs import resolve
from sfpo.plan.shapes import PUBLISHED
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.rollouts.vllm_engine import llm_arguments
from sfpo.settings import EvaluationSettings, RunSettings

MAX_POSITIONS = {
    "Qwen/Qwen2.5-Math-1.5B": 4096,
    "Qwen/Qwen2.5-Math-7B": 4096,
    "Qwen/Qwen3-4B-Base": 32768,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 131072,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 131072,
}
"""``max_position_embeddings`` of each config.json on the hub."""
SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def config_of(model: Model) -> dict:
    if isinstance(model, HubModel):
        return {**PUBLISHED[model.id], "max_position_embeddings": MAX_POSITIONS[model.id]}
    if isinstance(model, PackageModel):
        return SMOLLM2_135M
    sizes = model.model_dump(include={"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    return {**sizes, "model_type": model.architecture, "vocab_size": model.vocabulary_size, "tie_word_embeddings": True}


def write_checkpoint(model: Model, folder: Path) -> Path:
    """Its configuration alone: no weight is read here."""
    config = dict(config_of(model))
    kind = config.pop("model_type")
    special = {"architectures": [ARCHITECTURES[kind]], "dtype": "bfloat16", "eos_token_id": 0}
    AutoConfig.for_model(kind, **config, **special).save_pretrained(folder)
    GenerationConfig(eos_token_id=0).save_pretrained(folder)
    return folder


def engines(params: Params) -> dict[str, tuple]:
    """The first job of each sort of engine -> (model, limits, sampler, engine settings, ranks)."""
    found: dict[tuple, str] = {}
    for suite in params.suites:
        for path, job in resolve(params.model_copy(update={"suite": suite})).items():
            if isinstance(job, RunSettings):
                ranks, engine = job.execution.resources.ranks, job.execution.engine
                engine = engine.for_at_most(job.recipe.most_sequences(max(1, ranks // engine.tensor_parallel)))
                sort = (job.run.model, job.recipe.limits, job.recipe.sampler, engine, ranks)
            elif isinstance(job, EvaluationSettings):
                sort = (job.model, job.limits, job.sampler, job.engine, job.engine.tensor_parallel)
            else:
                continue
            found.setdefault(sort, path)
    return {path: sort for sort, path in found.items()}


def checked(params: Params, folder: Path, path: str, sort: tuple) -> dict:
    """What vLLM makes of the arguments."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.abstract import Executor

    name, limits, sampler, engine, size = sort
    ranks = SINGLE_PROCESS if size == 1 else Ranks(size - 1, size, mesh=object())  # of the mesh only that there is one matters
    own = {"RANK": size - 1, "LOCAL_RANK": size - 1, "WORLD_SIZE": size} if size > 1 else {}
    os.environ |= {key: str(value) for key, value in own.items()}
    checkpoint = write_checkpoint(params.models[name], folder / name)
    arguments = llm_arguments(checkpoint, limits, sampler, engine, ranks, on_gpu=True)
    config = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
    compilation, scheduler = config.compilation_config, config.scheduler_config
    return {
        "ranks": size,
        "executor": Executor.get_class(config).__name__,
        "model_runner_v2": config.use_v2_model_runner,
        "world_size": config.parallel_config.world_size,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_model_len": config.model_config.max_model_len,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "sleep_mode": config.model_config.enable_sleep_mode,
        "cumem_allocator": config.model_config.enable_cumem_allocator,
        "cuda_graphs": compilation.cudagraph_mode.name,
        "largest_capture": compilation.max_cudagraph_capture_size,
        "flashinfer_autotune": config.kernel_config.enable_flashinfer_autotune,
        "logprobs_mode": config.model_config.logprobs_mode,
        "dtype": str(config.model_config.dtype),
    }


def main() -> None:
    params, folder = load_params(), Path(sys.argv[1])
    several = faked.COUNT > 1
    chosen = {path: sort for path, sort in engines(params).items() if (sort[-1] > 1) == several}
    if several:  # none of the suites holds an engine on two devices: the largest model of them does here
        name, limits, sampler, engine, size = next(sort for sort in chosen.values() if sort[0] == "qwen2.5-math-7b")
        chosen["tensor_parallel 2"] = (name, limits, sampler, engine.model_copy(update={"tensor_parallel": 2}), size)
    print(json.dumps({path: checked(params, folder, path, sort) for path, sort in chosen.items()}))


if __name__ == "__main__":
    main()
