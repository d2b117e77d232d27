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
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import tokens_input
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind

from sfpo.config import Engine, ModelLimits, Sampler, Sampling
from sfpo.ranks import Ranks
from sfpo.rollouts.engine import EngineFailure, Finished, Request, stop_token_ids
from sfpo.types import Completion

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


class VLLMEngine:
    """RolloutEngine on vLLM: see sfpo.rollouts.engine for what each method does.

    Args:
        checkpoint, limits, sampler, settings, ranks: as ``make_engine``.
    """

    def __init__(self, checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine, ranks: Ranks) -> None:
        self.max_prompt_tokens, self.max_completion_tokens = limits.max_prompt_tokens, limits.max_completion_tokens
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self._stop_token_ids = stop_token_ids(checkpoint)
        self._on_gpu = torch.cuda.is_available()
        self._arguments = llm_arguments(checkpoint, limits, sampler, settings, ranks, self._on_gpu)
        self._llm = LLM(**self._arguments)
        self._asked = 0
        """Requests so far: each has a number of its own, so that none left over from a call that was broken off is taken for
        another's."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        completions: dict[int, Completion] = {}
        with tqdm(total=len(requests), disable=not progress, desc="generate", unit="completion") as bar:
            for place, output in self._sampled(requests, sampling):
                completions[place] = completion = Completion(
                    token_ids=list(output.token_ids),
                    logprobs=list(output.logprobs.logprobs),
                    text=self.tokenizer.decode(output.token_ids, skip_special_tokens=True),
                    truncated=output.finish_reason == "length",
                )
                if finished:
                    finished(place, completion)
                bar.update()
        return [completions[place] for place in range(len(requests))]

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
                    if int(output.request_id) >= first:
                        yield int(output.request_id) - first, output.outputs[0]
        except Exception as fault:  # whatever the kernels, the scheduler or the device raise
            raise EngineFailure(f"vLLM failed on {len(requests)} completions: {type(fault).__name__}: {fault}") from fault

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        # All entries, tied ones under both names: vLLM's CPU kernels keep a repacked copy of the output layer that stays stale
        # otherwise.
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self._llm.reset_prefix_cache()

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto", trust_remote_code=False, use_safetensors=True)
        self.load_weights(model.state_dict().items())

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        # Nothing else may hold the failed one (a traceback, say): when it goes, it ends vLLM's process groups, which the fresh
        # one uses too.
        self._llm = None
        gc.collect()
        cleanup_dist_env_and_memory()
        self._llm = LLM(**self._arguments)
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
