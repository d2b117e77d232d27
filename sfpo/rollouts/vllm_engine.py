"""The rollout engine on vLLM, inside the training process. The only file that imports vLLM.

vLLM reads its environment while it is imported, so the settings that only exist as variables are set here first. They bound its
memory and leave torch's threads to the trainer; none of them changes a result.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine lives in this process
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# Compiled by nvcc at the first call, which many machines lack, and never used for requests with seeds of their own.
os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from vllm import LLM, ModelRegistry, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import tokens_input
from vllm.logprobs import FlatLogprobs
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from sfpo.config import Engine, ModelLimits, Sampler, Sampling
from sfpo.ranks import Ranks
from sfpo.rollouts.engine import EngineFailure, Finished, Request, stop_token_ids
from sfpo.types import Completion

APART = "_sfpo_set_apart"
BATCHED_TOKENS = 8192
"""Tokens of one forward pass of the engine, at most; on a CPU a prompt is never cut, so that a whole context must fit."""


def llm_arguments(
    checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine, ranks: Ranks, on_gpu: bool
) -> dict[str, Any]:
    """What vLLM's ``LLM`` is made with; arguments as ``make_engine``."""
    context = limits.max_prompt_tokens + limits.max_completion_tokens
    if on_gpu:
        of_the_device = {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_sleep_mode": True,
            "enable_chunked_prefill": True,
            "max_num_batched_tokens": max(BATCHED_TOKENS, settings.max_sequences),
            # It times kernels that are not used here, all ranks of the job together, and could wait for one without nvcc.
            "kernel_config": {"enable_flashinfer_autotune": False},
        }
    else:
        of_the_device = {
            "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
            # A prompt cut in two rolls its generator back, which vLLM's CPU generators cannot do (0.32.0).
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(BATCHED_TOKENS, context),
        }
    return {
        "model": str(checkpoint),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",  # sampling is ours alone, never a model's default
        "dtype": sampler.dtype,
        "max_model_len": context,
        "max_num_seqs": settings.max_sequences,
        "enforce_eager": settings.enforce_eager,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "seed": 0,  # unused: every request carries a seed of its own
        "tensor_parallel_size": settings.tensor_parallel,
        # torchrun has started all workers there are, and their process group
        "distributed_executor_backend": None if ranks.mesh is None else "external_launcher",
        **of_the_device,
    }


def has_states(checkpoint: str | Path) -> bool:
    """Layers of the model carry a state from token to token (state space, linear attention, convolution), as vLLM has it."""
    names = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).architectures or []
    known = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    return any(model.inspect_model_cls().has_inner_state for model in known)


class StaleWeights(RuntimeError):
    """A weight sync that would leave some of the old weights in the engine."""


class VLLMEngine:
    """RolloutEngine on vLLM: see sfpo.rollouts.engine for what each method does.

    Args:
        checkpoint, limits, sampler, settings, ranks: as ``make_engine``.
    """

    def __init__(self, checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine, ranks: Ranks) -> None:
        self.max_prompt_tokens, self.max_completion_tokens = limits.max_prompt_tokens, limits.max_completion_tokens
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self._stop_token_ids = stop_token_ids(checkpoint)
        self._on_gpu = torch.cuda.is_available()
        self._arguments = llm_arguments(checkpoint, limits, sampler, settings, ranks, self._on_gpu)
        if not self._on_gpu and has_states(checkpoint):  # vLLM keeps states of prefixes only where it cuts prompts
            self._arguments["enable_prefix_caching"] = False
        self._asked = 0
        """Requests so far: each has a number of its own, so that none left over from a call that was broken off is taken for
        another's."""
        self._start()

    def _start(self) -> None:
        set_own_class_apart(self._arguments["model"])
        self._llm = LLM(**self._arguments)
        self._llm.apply_model(check_loaded)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        completions: dict[int, Completion] = {}
        with tqdm(total=len(requests), disable=not progress, desc="generate", unit="completion") as bar:
            for place, output in self._sampled(requests, sampling):
                completions[place] = completion = self._completion(output)
                if finished:
                    finished(place, completion)
                bar.update()
        return [completions[place] for place in range(len(requests))]

    def _completion(self, output: CompletionOutput) -> Completion:
        if not isinstance(output.logprobs, FlatLogprobs):
            raise EngineFailure(f"vLLM gave log-probs as {type(output.logprobs).__name__}, where FlatLogprobs was asked for")
        token_ids = list(output.token_ids)
        (text,) = self.tokenizer.batch_decode([token_ids], skip_special_tokens=True)
        return Completion(token_ids, list(output.logprobs.logprobs), text, truncated=output.finish_reason == "length")

    def _sampled(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, CompletionOutput]]:
        """Each request's place and what was sampled for it, the moment it is done: LLM.generate would wait for all."""
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=self.max_completion_tokens,
                seed=request.seed,
                stop_token_ids=self._stop_token_ids,
                logprobs=0,  # of the sampled token alone
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for request in requests
        ]
        engine = self._llm.llm_engine
        try:
            first, self._asked = self._asked, self._asked + len(requests)
            for number, (request, param) in enumerate(zip(requests, params, strict=True), first):
                engine.add_request(str(number), tokens_input(request.prompt_ids), param)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if isinstance(output, RequestOutput) and int(output.request_id) >= first:
                        yield int(output.request_id) - first, output.outputs[0]
        except Exception as fault:  # whatever the kernels, the scheduler or the device raise
            raise EngineFailure(f"vLLM failed on {len(requests)} completions: {type(fault).__name__}: {fault}") from fault

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._reload(weights_iterator=iter(weights))

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        self._reload(weights_path=str(checkpoint))

    def _reload(self, **source: Any) -> None:
        if not self._on_gpu:
            self._llm.apply_model(forget_packed_experts)
        self._llm.collective_rpc("reload_weights", kwargs=source)
        if not self._on_gpu:
            self._llm.apply_model(pack_tied_head)
        self._llm.reset_prefix_cache()

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        # Nothing else may hold the failed one (a traceback, say): when it goes, it ends vLLM's process groups, which the fresh
        # one uses too.
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()
        self._start()
        self.load_weights(weights)

    def sleep(self) -> None:
        if self._on_gpu:
            self._llm.sleep(level=2)

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self._on_gpu:
            torch.cuda.empty_cache()
            self._llm.wake_up(tags=["weights"])
        self.load_weights(weights)
        if self._on_gpu:
            self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()


def check_loaded(model: Any) -> None:
    """Have a weight sync raise where vLLM would go on with old weights: its code for some models (gpt-oss) copies tensors into
    place itself, past the weight loaders by which a reload (0.32.0, reload/layerwise.py) learns what is new."""
    load = model.load_weights

    def load_and_check(weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        loaded = load(weights)
        stale = set()
        for layer in model.modules():
            # The weights of a layer that is done are on its device again; an output layer without any is a tied one.
            waits = any(parameter.is_meta for parameter in layer.parameters(recurse=False))
            if waits and not get_layerwise_info(layer).loaded_weights and not isinstance(layer, ParallelLMHead):
                stale.add(type(layer).__name__)
        if stale:
            raise StaleWeights(
                f"vLLM cannot take new weights for {type(model).__name__}: nothing reached its layers "
                f"{', '.join(sorted(stale))}, which would go on with the old ones; set sampler.library: transformers"
            )
        return loaded

    model.load_weights = load_and_check


def forget_packed_experts(model: nn.Module) -> None:
    """Have vLLM's CPU build pack the experts of the weights to come as it packed the first ones: it takes a layer that has a
    kernel for one whose weights it may copy as they are (0.32.0, unquantized_fused_moe_method.py)."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is not None and getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


def pack_tied_head(model: nn.Module) -> None:
    """Have vLLM's CPU build pack the new weights of an output layer that is tied to the input embedding: it has packed them for
    the latter alone, whose name they came under."""
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def set_own_class_apart(checkpoint: str | Path) -> None:
    """Give models that vLLM runs through transformers a class of their own: vLLM replaces methods of the class for its engine,
    and the policy is of the same one."""
    config = type(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False))
    shared: Any = AutoModel._model_mapping.get(config, None)  # its types know of no class that was registered
    if isinstance(shared, type) and not hasattr(shared, APART):
        own = type(shared.__name__, (shared,), {"__module__": shared.__module__, APART: True})
        AutoModel.register(config, own, exist_ok=True)
