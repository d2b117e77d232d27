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
from dataclasses import asdict, dataclass
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

LOGPROB_TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 0.25}
"""Of the mean error of log-probs in nats, by compute type; the largest may be eight times that. (SmolLM2-135M: 7e-6, 0.07.)"""
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.7}
"""Of the error of a parameter's gradient, relative to its norm. (4e-5 and 0.3; a missing gradient, or a doubled one: 1.)"""
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
    logprob_max: float
    gradient: float
    """The largest of all compared parameters: |difference| / |gradient|."""

    def within(self, dtype: torch.dtype) -> bool:
        """It is what rounding can do. (A number that is not finite is not.)"""
        nats = LOGPROB_TOLERANCE[dtype]
        return self.logprob_mean <= nats and self.logprob_max <= 8 * nats and self.gradient <= GRADIENT_TOLERANCE[dtype]

    def __str__(self) -> str:
        nats = f"{self.logprob_mean:.2g} nats in the mean and {self.logprob_max:.2g} at most"
        return f"log-probs differ by {nats}, gradients by {self.gradient:.2g} of their norm"


@dataclass(frozen=True)
class Sequences:
    """Completions, each with its prompt, and what the plain model says of them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: Tensor
    """[N], of all completion tokens end to end."""
    gradients: dict[str, Tensor]
    """Of ``loss_weights`` x log-probs, by parameter."""


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


def choose(model: PreTrainedModel, packing: Packing, seed: int) -> Choice:
    """The fastest way to compute the model's log-probs and gradients, of those that ``packing`` allows.

    The model is left attending by it.

    Args:
        model: as it was loaded, in float32.

    Raises:
        UnsupportedModel: no way gives the plain model's numbers.
    """
    with _undisturbed():
        try:
            _attend_by(model, "eager")
            scorer = Scorer(model, torch.float32, temperature=1.0)
            found = _plain(model, scorer, seed)
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
            if gap.within(torch.float32):
                return Choice(layout, attention, gap, found, faults)
            faults.append(f"{layout} ({attention} attention): {gap}")
    remedy = "" if packing == "auto" else f"; train.packing = {packing!r}: 'auto' tries all that there are"
    raise _refusal(model, "\n  ".join(["no packing gives the plain model's numbers:", *faults]) + remedy)


def prove(found: Sequences, logprobs: Tensor, gradients: dict[str, Tensor], dtype: torch.dtype, model: PreTrainedModel) -> Gap:
    """Compare what the policy says of the same sequences after adapters, shards and data type are in place.

    Args:
        gradients: of as many of the compared parameters as are trained.
        dtype: compute type of the policy.

    Raises:
        UnsupportedModel: they are not the plain model's.
    """
    gap = _gap(found, logprobs, gradients)
    if not gap.within(dtype):
        raise _refusal(model, f"as the run trains it (data type, adapters, shards), {gap}")
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


def _plain(model: PreTrainedModel, scorer: Scorer, seed: int) -> Sequences:
    """One sequence at a time by the model's own forward pass."""
    device = next(model.parameters()).device
    prompts, completions = _random_sequences(model, scorer, seed)
    parameters = _compared(model)
    weights = loss_weights(sum(map(len, completions))).to(device).split([len(completion) for completion in completions])
    logprobs, gradients = [], [torch.zeros_like(parameter) for parameter in parameters.values()]
    for prompt, completion, weight in zip(prompts, completions, weights, strict=True):
        scorer.forget_lengths()
        logits = model(input_ids=torch.tensor([prompt + completion], device=device), **scorer.without_cache)[0]
        if logits.dim() != 3 or logits.shape[:2] != (1, len(prompt) + len(completion)):
            raise ValueError(f"logits of shape {list(logits.shape)} for {len(prompt) + len(completion)} tokens")
        targets = torch.tensor(completion, device=device)[:, None]
        of_tokens = logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, targets)[:, 0]
        logprobs.append(of_tokens.detach())
        _add(gradients, (weight * of_tokens).sum(), parameters)
    _require_causal(model, scorer, prompts[0] + completions[0], device)
    return Sequences(prompts, completions, torch.cat(logprobs), dict(zip(parameters, gradients, strict=True)))


def _require_causal(model: PreTrainedModel, scorer: Scorer, tokens: list[int], device: torch.device) -> None:
    with torch.no_grad():
        whole, cut = (
            model(input_ids=torch.tensor([part], device=device), **scorer.without_cache)[0][0].log_softmax(-1)
            for part in (tokens, tokens[:-1])
        )
    if (whole[:-1] - cut).abs().max() > 1e-3:
        raise ValueError("a token's log-prob depends on the tokens after it (is_decoder in its config.json may be false)")


def _random_sequences(model: PreTrainedModel, scorer: Scorer, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Two prompts with two completions each, longer than the model's windows and the lengths of its rotary embeddings where
    these are short."""
    draw = rng("canary", seed)
    vocabulary = min(len(model.get_input_embeddings().get_parameter("weight")), scorer.head.vocabulary)
    lengths = [length for length in _windows(model) if length + 8 <= LONGEST]
    longer = max(lengths, default=0)
    prompts, completions = [], []
    for prompt, of_prompt in ((7 + longer // 2, (5 + longer - longer // 2, 9)), (4, (3, 12))):
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
    if not gradients:
        return Gap(errors.mean().item(), errors.max().item(), 0.0)
    norms = torch.stack([found.gradients[name].norm() for name in gradients])
    differences = torch.stack([(gradient - found.gradients[name]).norm() for name, gradient in gradients.items()])
    # A gradient that is nothing beside the others is rounding alone.
    relative = differences / norms.clamp_min(1e-3 * norms.max().item() + 1e-12)
    return Gap(errors.mean().item(), errors.max().item(), relative.max().item())


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
