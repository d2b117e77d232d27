"""Before a job costs anything: are the policy's numbers those of the plain model?

A few random sequences go through the model as transformers computes it, one at a time, and through the layouts of
sfpo/trainer/packing.py. The fastest layout that gives the same log-probs and the same gradient is taken; a model for which
none does is refused. After adapters, shards and data type are in place the same sequences go through the policy once more.
At last the engine, loaded with weights that have been moved, samples a few tokens, of which the policy must say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sfpo.config import Packing
from sfpo.schema import ConfigError
from sfpo.seeding import rng
from sfpo.trainer.attention import ATTENTION
from sfpo.trainer.packing import Layout, micro_batches
from sfpo.trainer.scorer import Scorer

LOGPROB_TOLERANCE = 5e-5
"""Of the mean error of log-probs in nats, in float32; the largest may be eight times that. (The largest error of all families
of docs/models.md is 3e-5, and the mean of SmolLM2-135M 7e-6; Cohere with its output scaled by 1.1 is off by 7e-3.)"""
GRADIENT_TOLERANCE = 1e-3
"""Of the error of a parameter's gradient in float32, relative to its norm. (SmolLM2-135M: 3e-4; a missing gradient: 1.)"""
ROUNDING_MEDIAN, ROUNDING_MEAN, ROUNDING_GRADIENTS = 2.0, 4.0, 4.0
"""In bfloat16, how many times the model's own rounding errors may be: of the median error of log-probs, of their mean, and of
all gradients together. Its own are those of the unmodified model under autocast, one sequence at a time, against itself in
float32. A number of nats would not do: a right Mixtral is off by 0.07, and the wrong Cohere above by 0.007.

Measured on random models (Llama, Qwen 2, 3, 3-MoE and 3.5, Gemma 2 and 3, Granite, Cohere, OLMo 2 and 3, Phi-3, Mistral, gpt-
oss, Mixtral, GLM-4-MoE, Bamba; three of each): right policies are at 0.59 to 1.45 by the median, 0.49 to 1.64 by the mean,
0.24 to 1.37 by the gradients. Wrong ones, by the median: attention scaled by 1.1 2.0 and 2.9, output scaled by 1.1 3.4 to
8.6, no soft cap 3.8 (of attention) and 49 (of logits), no window 20 to 80. The median, since an expert chosen otherwise takes
a token far away in a right model too."""
COMPARED = 2**16
"""Gradients of parameters up to this number of entries are compared: the norms of every layer, so that all that flows back is
seen, and of a small model all. They cost no memory to speak of."""
LONGEST = 160
"""Tokens of a sequence, at most: a window that is longer is not crossed."""
WAYS: dict[Packing, list[tuple[Layout, str]]] = {
    "groups": [("groups", ATTENTION)],
    "padded": [("padded", "sdpa"), ("padded", "eager")],
    "sequences": [("sequences", "sdpa"), ("sequences", "eager")],
}
WAYS["auto"] = [way for ways in list(WAYS.values()) for way in ways]


class UnsupportedModel(ConfigError):
    """The policy's numbers would not be those of the model."""


@dataclass(frozen=True)
class Gap:
    """How far numbers are from the plain model's."""

    logprob_mean: float
    """Nats."""
    logprob_median: float
    logprob_max: float
    gradient: float | None
    """The largest of all compared parameters: |difference| / |gradient|. None: none of them is trained (adapters are)."""
    gradients: float | None
    """The same of all of them together."""

    def within(self, rounding: Gap | None) -> bool:
        """It is what rounding can do. (A number that is not finite is not.)

        Args:
            rounding: the plain model's own gap in the compute type; None: it is float32.
        """
        if rounding is None:
            nats = LOGPROB_TOLERANCE
            near = self.logprob_mean <= nats and self.logprob_max <= 8 * nats
            return near and (self.gradient is None or self.gradient <= GRADIENT_TOLERANCE)
        return (
            self.logprob_median <= ROUNDING_MEDIAN * rounding.logprob_median + LOGPROB_TOLERANCE
            and self.logprob_mean <= ROUNDING_MEAN * rounding.logprob_mean + LOGPROB_TOLERANCE
            and (
                self.gradients is None
                or self.gradients <= ROUNDING_GRADIENTS * (rounding.gradients or 0.0) + GRADIENT_TOLERANCE
            )
        )

    def __str__(self) -> str:
        nats = f"{self.logprob_mean:.2g} nats in the mean and {self.logprob_max:.2g} at most"
        of_norm = "" if self.gradient is None else f", gradients by {self.gradient:.2g} of their norm"
        return f"log-probs differ by {nats}{of_norm}"


@dataclass(frozen=True)
class Sequences:
    """Completions, each with its prompt, and what the plain model says of them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: Tensor
    """[N], of all completion tokens end to end."""
    gradients: dict[str, Tensor]
    """Of ``loss_weights`` x log-probs, by parameter."""
    rounding: Gap | None
    """What the compute type alone changes; None: it is float32."""


def loss_weights(total: int) -> Tensor:
    """[N]: what each token's log-prob is multiplied by for the gradient that is compared."""
    return torch.linspace(-1.0, 1.0, total)


@dataclass(frozen=True)
class Choice:
    """How this model's log-probs are computed."""

    layout: Layout
    attention: str | None
    """By transformers' name of it; None: the model's own, which cannot be set."""
    gap: Gap
    found: Sequences
    passed_over: list[str]
    """Faster ways that did not give the model's numbers, and why."""

    def report(self) -> dict[str, Any]:
        """For summary.json."""
        return {"packing": self.layout, "attention": self.attention, "passed_over": self.passed_over, **asdict(self.gap)}


def choose(model: PreTrainedModel, packing: Packing, seed: int, compute: torch.dtype = torch.float32) -> Choice:
    """The fastest way to compute the model's log-probs and gradients, of those that ``packing`` allows.

    The model is left attending by it.

    Args:
        model: as it was loaded, in float32.
        compute: data type that the policy will compute in.

    Raises:
        UnsupportedModel: no way gives the plain model's numbers.
    """
    with _undisturbed():
        try:
            _attend_by(model, "eager")
            scorer = Scorer(model, torch.float32, temperature=1.0)
            found = _plain(model, scorer, seed, compute)
        except Exception as fault:  # it is the model's own code, and may raise anything
            raise _refusal(model, f"it does not compute log-probs of plain sequences of tokens: {_named(fault)}") from fault
        faults = []
        for layout, asked in WAYS[packing]:
            attention: str | None = asked
            try:
                attention = _attend_by(model, asked)
                gap = _gap(found, *_by_layout(model, scorer, layout, found))
            except Exception as fault:  # likewise
                faults.append(f"{layout} ({attention} attention): {_named(fault)}")
                continue
            if gap.within(None):
                return Choice(layout, attention, gap, found, faults)
            faults.append(f"{layout} ({attention} attention): {gap}")
    remedy = "" if packing == "auto" else f"; train.packing = {packing!r}: 'auto' tries all that there are"
    raise _refusal(model, "\n  ".join(["no packing gives the plain model's numbers:", *faults]) + remedy)


def prove(found: Sequences, logprobs: Tensor, gradients: dict[str, Tensor], model: PreTrainedModel) -> Gap:
    """Compare what the policy says of the same sequences after adapters, shards and data type are in place.

    Args:
        gradients: of as many of the compared parameters as are trained.

    Raises:
        UnsupportedModel: they are not the plain model's.
    """
    gap = _gap(found, logprobs, gradients)
    if not gap.within(found.rounding):
        own = f"; the data type alone does this: {found.rounding}" if found.rounding else ""
        raise _refusal(model, f"as the run trains it (data type, adapters, shards), {gap}{own}")
    return gap


@contextmanager
def moved(parameters: list[Tensor]) -> Iterator[None]:
    """While it is open, every eighth row of each parameter (of this rank's shard) is another; then all are what they were, to
    the bit."""
    rows = [_whole_or_shard(parameter)[::8] for parameter in parameters]
    saved = [row.clone() for row in rows]
    try:
        for row in rows:
            row.mul_(1.5).add_(0.01)
        yield
    finally:
        for row, before in zip(rows, saved, strict=True):
            row.copy_(before)


def _whole_or_shard(parameter: Tensor) -> Tensor:
    parameter = parameter.detach()
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _plain(model: PreTrainedModel, scorer: Scorer, seed: int, compute: torch.dtype) -> Sequences:
    """One sequence at a time by the model's own forward pass."""
    prompts, completions = _random_sequences(model, scorer, seed)
    logprobs, gradients, first = _one_by_one(model, scorer, prompts, completions, torch.float32)
    _require_causal(model, scorer, prompts[0] + completions[0], first)
    found = Sequences(prompts, completions, logprobs, gradients, None)
    if compute == torch.float32:
        return found
    rounded = _one_by_one(model, scorer, prompts, completions, compute)
    return replace(found, rounding=_gap(found, *rounded[:2]))


def _one_by_one(
    model: PreTrainedModel, scorer: Scorer, prompts: list[list[int]], completions: list[list[int]], compute: torch.dtype
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """(log-probs [N], gradients, logits of the first sequence [t, vocabulary])."""
    device = next(model.parameters()).device
    parameters = _compared(model)
    weights = loss_weights(sum(map(len, completions))).to(device).split([len(completion) for completion in completions])
    logprobs, gradients, first = [], [torch.zeros_like(parameter) for parameter in parameters.values()], torch.empty(0)
    for prompt, completion, weight in zip(prompts, completions, weights, strict=True):
        scorer.forget_lengths()
        with torch.autocast(device.type, compute, enabled=compute != torch.float32):
            logits = model(input_ids=torch.tensor([prompt + completion], device=device), **scorer.without_cache)[0]
        if logits.dim() != 3 or logits.shape[:2] != (1, len(prompt) + len(completion)):
            raise ValueError(f"logits of shape {list(logits.shape)} for {len(prompt) + len(completion)} tokens")
        targets = torch.tensor(completion, device=device)[:, None]
        of_tokens = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1).gather(-1, targets)[:, 0]
        logprobs.append(of_tokens.detach())
        first = first if len(first) else logits[0].detach()
        _add(gradients, (weight * of_tokens).sum(), parameters)
    return torch.cat(logprobs), dict(zip(parameters, gradients, strict=True)), first


def _require_causal(model: PreTrainedModel, scorer: Scorer, tokens: list[int], logits: Tensor) -> None:
    """``logits`` [t, vocabulary], but for the last token's, do not change where the last token is left out. (Beyond the length
    from which on rotary embeddings depend on the length they do, in the model itself.)"""
    if scorer.alone_from is not None and len(tokens) > scorer.alone_from:
        return
    scorer.forget_lengths()
    with torch.no_grad():
        cut = model(input_ids=torch.tensor([tokens[:-1]], device=logits.device), **scorer.without_cache)[0][0]
    if (logits[:-1].log_softmax(-1) - cut.log_softmax(-1)).abs().max() > 1e-3:
        raise ValueError("a token's log-prob depends on the tokens after it (is_decoder in its config.json may be false)")


def _random_sequences(model: PreTrainedModel, scorer: Scorer, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Two prompts with two completions each, longer than the model's windows and the lengths of its rotary embeddings where
    these are short."""
    draw = rng("canary", seed)
    vocabulary = min(len(model.get_input_embeddings().get_parameter("weight")), scorer.head.vocabulary)
    lengths = [length for length in _windows(model) if length + 8 <= LONGEST]
    longer = max(lengths, default=0)
    prompts, completions = [], []
    for prompt, of_prompt in ((7 + longer // 2, (13 + longer - longer // 2, 20)), (4, (9, 24))):
        tokens = [draw.randrange(3, vocabulary) for _ in range(prompt)]
        for length in of_prompt:
            prompts.append(tokens)
            completions.append([draw.randrange(3, vocabulary) for _ in range(length)])
    return prompts, completions


def _windows(model: PreTrainedModel) -> Iterator[int]:
    """Lengths from which on attention, or rotary embeddings, are others."""
    for key, value in model.config.to_dict().items():
        if isinstance(value, int) and not isinstance(value, bool) and ("window" in key or "chunk_size" in key):
            yield value


def _by_layout(model: PreTrainedModel, scorer: Scorer, layout: Layout, found: Sequences) -> tuple[Tensor, dict[str, Tensor]]:
    parameters = _compared(model)
    logprobs = torch.full_like(found.logprobs, math.nan)
    weights = loss_weights(len(logprobs)).to(logprobs)
    gradients = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for micro in micro_batches(
        found.prompts, found.completions, 10**6, logprobs.device, layout=layout, alone_from=scorer.alone_from
    ):
        of_tokens, _ = scorer(micro, with_entropy=False)
        logprobs[micro.tokens] = of_tokens.detach()
        _add(gradients, (weights[micro.tokens] * of_tokens).sum(), parameters)
    return logprobs, dict(zip(parameters, gradients, strict=True))


def _compared(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight.numel() <= COMPARED}


def _add(sums: list[Tensor], loss: Tensor, parameters: dict[str, Tensor]) -> None:
    for total, gradient in zip(sums, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True):
        if gradient is not None:
            total += gradient


def _gap(found: Sequences, logprobs: Tensor, gradients: dict[str, Tensor]) -> Gap:
    errors = (logprobs - found.logprobs).abs()
    of_logprobs = errors.mean().item(), errors.median().item(), errors.max().item()
    if not gradients:
        return Gap(*of_logprobs, None, None)
    norms = torch.stack([found.gradients[name].norm() for name in gradients])
    differences = torch.stack([(gradient - found.gradients[name]).norm() for name, gradient in gradients.items()])
    # A gradient that is nothing beside the others is rounding alone.
    relative = differences / norms.clamp_min(1e-3 * norms.max().item() + 1e-12)
    return Gap(*of_logprobs, relative.max().item(), (differences.norm() / norms.norm().clamp_min(1e-12)).item())


def _attend_by(model: PreTrainedModel, attention: str) -> str | None:
    """Let the model attend by this function of transformers; returns what it attends by, None where that cannot be set."""
    if not model._can_set_attn_implementation():
        if attention == ATTENTION:
            raise ValueError("its attention is not set by name, so that it cannot take rows of groups")
        return None
    model.set_attn_implementation(attention)
    return attention


def _named(fault: Exception) -> str:
    first = str(fault).strip().split("\n")[0]
    return f"{type(fault).__name__}: {first[:300]}"


def _refusal(model: PreTrainedModel, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{type(model).__name__}: {why}\n(docs/models.md lists the families that were tried)")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random numbers go on as if nothing had been drawn in between."""
    with torch.random.fork_rng():
        yield
