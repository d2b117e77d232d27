"""The rollout engine on vLLM, inside the training process. The only file that imports vLLM.

vLLM reads its environment variables when it is imported, so settings that exist only as variables are set here first. They
limit its memory use and leave torch's threads to the trainer; none of them changes results.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # run the engine in this process
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# FlashInfer's sampler needs nvcc at the first call, which many machines lack, and is not used for requests with a seed.
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

TESTED = "0.32.0"
"""Release of vLLM that the tests run with; tests/test_internals.py names the internals of it that are used here."""
APART = "_sfpo_set_apart"
BATCHED_TOKENS = 8192
"""Maximum number of tokens per forward pass of the engine. On a CPU it is at least a whole context, since prompts are not split
there."""


def llm_arguments(
    checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine, ranks: Ranks, on_gpu: bool
) -> dict[str, Any]:
    """Arguments for vLLM's ``LLM``; parameters as for ``make_engine``."""
    context = limits.max_prompt_tokens + limits.max_completion_tokens
    if on_gpu:
        of_the_device = {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_sleep_mode": True,
            "enable_chunked_prefill": True,
            "max_num_batched_tokens": max(BATCHED_TOKENS, settings.max_sequences),
            # Autotuning covers kernels that are not used here, synchronizes all ranks of the job, and could hang without nvcc.
            "kernel_config": {"enable_flashinfer_autotune": False},
        }
    else:
        of_the_device = {
            "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
            # Splitting a prompt rewinds its generator, which vLLM's CPU generators do not support (0.32.0).
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(BATCHED_TOKENS, context),
        }
    return {
        "model": str(checkpoint),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",  # ignore the model's default sampling parameters
        "dtype": sampler.dtype,
        "max_model_len": context,
        "max_num_seqs": settings.max_sequences,
        "enforce_eager": settings.enforce_eager,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "seed": 0,  # unused: every request has its own seed
        "tensor_parallel_size": settings.tensor_parallel,
        # torchrun has already started all workers and their process group
        "distributed_executor_backend": None if ranks.mesh is None else "external_launcher",
        **of_the_device,
    }


def has_states(checkpoint: str | Path) -> bool:
    """Layers of the model carry a state from token to token (state space, linear attention, convolution), as vLLM has it."""
    names = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).architectures or []
    known = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    return any(model.inspect_model_cls().has_inner_state for model in known)


class StaleWeights(RuntimeError):
    """A weight sync would leave old weights in the engine."""


class VLLMEngine:
    """RolloutEngine on vLLM; sfpo.rollouts.engine documents the methods.

    Args:
        checkpoint, limits, sampler, settings, ranks: as for ``make_engine``.
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
        """Number of requests so far. Request ids are never reused, so that outputs left over from an interrupted call cannot be
        mistaken for those of a later one."""
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
            raise EngineFailure(f"vLLM returned log-probs as {type(output.logprobs).__name__} instead of FlatLogprobs")
        token_ids = list(output.token_ids)
        (text,) = self.tokenizer.batch_decode([token_ids], skip_special_tokens=True)
        return Completion(token_ids, list(output.logprobs.logprobs), text, truncated=output.finish_reason == "length")

    def _sampled(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, CompletionOutput]]:
        """Yield (index of the request, output) as soon as each is finished; LLM.generate would wait for all of them."""
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=self.max_completion_tokens,
                seed=request.seed,
                stop_token_ids=self._stop_token_ids,
                logprobs=0,  # only of the sampled token
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
        except Exception as fault:  # kernels, the scheduler and devices can raise anything
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
        # The failed engine must be collected now, without references from a traceback: its finalizer destroys vLLM's process
        # groups, which the new engine also uses.
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
    """Make weight syncs raise StaleWeights if vLLM would keep old weights. Its code for some models (gpt-oss) copies tensors
    directly, bypassing the weight loaders by which a reload tracks new weights (0.32.0, reload/layerwise.py)."""
    load = model.load_weights

    def load_and_check(weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        loaded = load(weights)
        stale = set()
        for layer in model.modules():
            # A layer that was reloaded has its weights on the device again; an output layer without weights is tied.
            waits = any(parameter.is_meta for parameter in layer.parameters(recurse=False))
            if waits and not get_layerwise_info(layer).loaded_weights and not isinstance(layer, ParallelLMHead):
                stale.add(type(layer).__name__)
        if stale:
            raise StaleWeights(
                f"vLLM does not update all weights of {type(model).__name__}: the layers {', '.join(sorted(stale))} would keep "
                "their old weights; set sampler.library: transformers"
            )
        return loaded

    model.load_weights = load_and_check


def forget_packed_experts(model: nn.Module) -> None:
    """Make vLLM's CPU build repack the experts at the next weight sync, as it packed the first ones. It would copy the new
    weights unpacked into a layer that already has a kernel (0.32.0, unquantized_fused_moe_method.py)."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is not None and getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


def pack_tied_head(model: nn.Module) -> None:
    """Make vLLM's CPU build repack the weights of an output layer that is tied to the input embedding. A sync sends them under
    the embedding's name, and vLLM repacks them only for that layer."""
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def set_own_class_apart(checkpoint: str | Path) -> None:
    """Give models that vLLM runs through transformers a subclass of their own, because vLLM patches methods of the class, which
    the policy's model also has."""
    config = type(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False))
    shared: Any = AutoModel._model_mapping.get(config, None)  # its type stubs do not know registered classes
    if isinstance(shared, type) and not hasattr(shared, APART):
        own = type(shared.__name__, (shared,), {"__module__": shared.__module__, APART: True})
        AutoModel.register(config, own, exist_ok=True)
