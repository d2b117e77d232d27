"""The rollout engine on transformers' ``generate``: slower, but needs no vLLM."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TopPLogitsWarper,
)
from transformers.utils.logging import disable_progress_bar

from sfpo.config import Engine, ModelLimits, Sampler, Sampling
from sfpo.rollouts.engine import EngineFailure, Finished, Request, stop_token_ids
from sfpo.transformers_internals import AttentionMaskInterface, sdpa_attention_forward, sdpa_mask
from sfpo.types import Completion

ELSEWHERE = ("sliding_window", "position_ids", "cache_position", "use_cache", "output_attentions", "output_router_logits")
"""Arguments that models pass to attention functions but that do not affect the result (a sliding window is in the mask)."""


class SeededSampler(LogitsProcessor):
    """Samples each row with its own generator, and masks all other tokens so that ``generate`` must take the sampled one.

    transformers' own sampling draws all rows from the global generator, so a row would depend on the rest of the batch.
    """

    def __init__(self, seeds: list[int], sampling: Sampling) -> None:
        self.generators = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        self.temperature = sampling.temperature
        self.nucleus = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1.0 else None
        self.logprobs: list[Tensor] = []
        """Log-probs of the sampled tokens, one tensor [B] per step."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float() / self.temperature
        if self.nucleus:
            scores = self.nucleus(input_ids, scores)
        logprobs = scores.log_softmax(-1)
        # Inverse transform sampling needs one random number per row, which comes from that row's generator.
        draws = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in self.generators])
        reached = logprobs.double().exp().cumsum(-1)
        tokens = (reached < draws.to(reached.device)[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
        self.logprobs.append(logprobs.gather(-1, tokens)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0.0)


class TransformersEngine:
    """RolloutEngine on transformers; sfpo.rollouts.engine documents the methods.

    Args:
        checkpoint, limits, sampler, settings: as for ``make_engine``; only ``settings.max_sequences`` is used.
    """

    def __init__(self, checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine) -> None:
        self.max_prompt_tokens, self.max_completion_tokens = limits.max_prompt_tokens, limits.max_completion_tokens
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self._stop_token_ids = stop_token_ids(checkpoint)
        self._rows_at_once = settings.max_sequences
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, sampler.dtype)
        disable_progress_bar()  # transformers would show one for each weight sync
        model = nn.Module.to(_loaded(checkpoint, dtype=self._dtype), self._device)  # PreTrainedModel.to is untyped
        self._attention = own_attention(model)
        self._own(model)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        # Batch prompts of similar length, to reduce padding.
        order = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt_ids))
        batches = [order[start : start + self._rows_at_once] for start in range(0, len(order), self._rows_at_once)]
        completions: dict[int, Completion] = {}
        for batch in tqdm(batches, disable=not progress, desc="generate", unit="batch"):
            try:
                sampled = self._sample([requests[index] for index in batch], sampling)
            except Exception as fault:  # kernels and devices can raise anything
                raise EngineFailure(
                    f"transformers failed on {len(requests)} completions: {type(fault).__name__}: {fault}"
                ) from fault
            for index, completion in zip(batch, sampled, strict=True):
                completions[index] = completion
                if finished:
                    finished(index, completion)
        return [completions[index] for index in range(len(requests))]

    @torch.inference_mode()
    def _sample(self, requests: list[Request], sampling: Sampling) -> list[Completion]:
        width = max(len(request.prompt_ids) for request in requests)
        pad = self._stop_token_ids[0]
        padding = [width - len(request.prompt_ids) for request in requests]
        input_ids = torch.tensor([[pad] * n + request.prompt_ids for n, request in zip(padding, requests, strict=True)])
        mask = torch.arange(width) >= torch.tensor(padding)[:, None]
        sampler = SeededSampler([request.seed for request in requests], sampling)
        drawn = self._model.generate(
            input_ids=input_ids.to(self._device),
            attention_mask=mask.long().to(self._device),
            max_new_tokens=self.max_completion_tokens,
            do_sample=False,  # SeededSampler has masked all tokens but one
            logits_processor=LogitsProcessorList([sampler]),
        )[:, width:].tolist()
        logprobs = torch.stack(sampler.logprobs, dim=1).tolist()
        ends = [next((at + 1 for at, token in enumerate(row) if token in self._stop_token_ids), None) for row in drawn]
        ids = [row[:end] for row, end in zip(drawn, ends, strict=True)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Completion(token_ids=row, logprobs=numbers[: len(row)], text=text, truncated=end is None)
            for row, numbers, text, end in zip(ids, logprobs, texts, ends, strict=True)
        ]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        kind, config = type(self._model), self._model.config
        del self._model  # free the old weights before loading the new ones
        # Loaded like a checkpoint, so that transformers converts published names and layouts to its own. It keeps references to
        # the given tensors, hence the copies.
        kept = {name: tensor.to(self._device, copy=True) for name, tensor in weights}
        self._own(nn.Module.to(kind.from_pretrained(None, config=config, state_dict=kept, dtype=self._dtype), self._device))

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        del self._model
        self._own(nn.Module.to(_loaded(checkpoint, dtype=self._dtype), self._device))

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.load_weights(weights)  # the engine has no other state

    def sleep(self) -> None:
        nn.Module.to(self._model, "cpu")

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        nn.Module.to(self._model, self._device)
        self.load_weights(weights)

    def _own(self, model: PreTrainedModel) -> None:
        """Use ``model`` for sampling, without its generation_config.json, whose sampling defaults are not part of the
        policy."""
        model.set_attn_implementation(self._attention)
        model.generation_config = GenerationConfig(eos_token_id=self._stop_token_ids, pad_token_id=self._stop_token_ids[0])
        self._model = model.eval()


def own_attention(model: PreTrainedModel) -> str:
    """The fastest attention implementation of transformers that is correct for this model: 'sdpa' or 'eager'.

    torch's kernel (sdpa) silently ignores arguments that it does not support, such as soft caps of the scores or attention
    sinks. So a forward pass records the arguments that the model passes, and 'eager' is used if any of them is unsupported.
    """
    chosen = model.config._attn_implementation
    if chosen != "sdpa":
        return chosen
    handed_over: set[str] = set()

    def recorded(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
    ) -> tuple[Tensor, None]:
        handed_over.update(name for name, value in arguments.items() if value is not None)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)

    AttentionInterface.register("recorded", recorded)
    AttentionMaskInterface.register("recorded", sdpa_mask)
    model.set_attn_implementation("recorded")
    with torch.no_grad():
        model(torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    known = {*inspect.signature(sdpa_attention_forward).parameters, *ELSEWHERE}
    return "sdpa" if handed_over <= known else "eager"


def _loaded(checkpoint: str | Path, **arguments: Any) -> PreTrainedModel:
    no_defaults = GenerationConfig()  # replaces generation_config.json
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, generation_config=no_defaults, trust_remote_code=False, use_safetensors=True, **arguments
    )
