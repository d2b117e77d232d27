"""The rollout engine without vLLM: transformers' own ``generate``, slower, for machines that have torch alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from sfpo.config import Engine, ModelLimits, Sampler, Sampling
from sfpo.rollouts.engine import EngineFailure, Finished, Request, stop_token_ids
from sfpo.types import Completion


class SeededSampler(LogitsProcessor):
    """Samples each row with a generator of its own, and leaves ``generate`` no other token to take.

    Its own sampling draws from the global generator for all rows at once, so a row would depend on its neighbours.
    """

    def __init__(self, seeds: list[int], sampling: Sampling) -> None:
        self.generators = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        self.temperature = sampling.temperature
        self.nucleus = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1.0 else None
        self.logprobs: list[Tensor] = []
        """[B] of each step's tokens."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float() / self.temperature
        if self.nucleus:
            scores = self.nucleus(input_ids, scores)
        logprobs = scores.log_softmax(-1)
        # Inverse of the distribution function: one number a row, so that each row is its own generator's.
        draws = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in self.generators])
        reached = logprobs.double().exp().cumsum(-1)
        tokens = (reached < draws.to(reached.device)[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
        self.logprobs.append(logprobs.gather(-1, tokens)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0.0)


class TransformersEngine:
    """RolloutEngine on transformers: see sfpo.rollouts.engine for what each method does.

    Args:
        checkpoint, limits, sampler, settings: as ``make_engine``; of the settings only max_sequences is used.
    """

    def __init__(self, checkpoint: str | Path, limits: ModelLimits, sampler: Sampler, settings: Engine) -> None:
        self.max_prompt_tokens, self.max_completion_tokens = limits.max_prompt_tokens, limits.max_completion_tokens
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        self._stop_token_ids = stop_token_ids(checkpoint)
        self._rows_at_once = settings.max_sequences
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, sampler.dtype)
        self._model = self._loaded(checkpoint).to(self._device).eval()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: bool = False, finished: Finished | None = None
    ) -> list[Completion]:
        # Rows of like length together: the padding of a batch is as long as its longest prompt.
        order = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt_ids))
        batches = [order[start : start + self._rows_at_once] for start in range(0, len(order), self._rows_at_once)]
        completions: dict[int, Completion] = {}
        for batch in tqdm(batches, disable=not progress, desc="generate", unit="batch"):
            try:
                sampled = self._sample([requests[index] for index in batch], sampling)
            except Exception as fault:  # whatever the kernels or the device raise
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
            do_sample=False,  # the sampler has left one token
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=self._stop_token_ids,
            pad_token_id=pad,
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

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        own = self._model.state_dict()  # tied ones under both names
        for name, tensor in weights:
            own[name].copy_(tensor)

    def load_checkpoint(self, checkpoint: str | Path) -> None:
        self.load_weights(self._loaded(checkpoint).state_dict().items())

    def restart(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.load_weights(weights)  # nothing else outlives a call

    def sleep(self) -> None:
        self._model.to("cpu")

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._model.to(self._device)
        self.load_weights(weights)

    def _loaded(self, checkpoint: str | Path) -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=self._dtype, trust_remote_code=False, use_safetensors=True
        )
