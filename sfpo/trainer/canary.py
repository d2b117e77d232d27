"""Checks before a job starts that the policy computes the same numbers as the plain model.

A few random sequences are computed by the unmodified model in transformers, one at a time, and in the layouts of
sfpo/trainer/packing.py. The fastest layout with the same log-probs and gradients is selected; a model for which none is correct
is rejected. The check is repeated on the policy with its adapters, shards and data type. Finally, the engine is loaded with
perturbed weights and samples a few tokens, whose log-probs must match the policy's (sfpo/trainer/sampler_check.py).
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
"""Compute type -> allowed mean error of log-probs in nats; the maximum may be eight times that. (SmolLM2-135M: 7e-6, 0.07.)"""
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.7}
"""Compute type -> allowed error of a parameter's gradient, relative to its norm. (SmolLM2-135M: 4e-5, 0.3. A missing or doubled
gradient has an error of 1.)"""
COMPARED = 2**16
"""Gradients are compared for parameters with at most this number of entries, to save memory: the norms of every layer, which
depend on the whole backward pass, and in small models all parameters."""
LONGEST = 160
"""Maximum length of the test sequences; longer attention windows are not tested."""
WAYS: dict[Packing, list[tuple[Layout, str]]] = {
    "groups": [("groups", ATTENTION)],
    "padded": [("padded", "sdpa"), ("padded", "eager")],
    "sequences": [("sequences", "sdpa"), ("sequences", "eager")],
}
WAYS["auto"] = [way for ways in list(WAYS.values()) for way in ways]


class UnsupportedModel(ConfigError):
    """The policy would not compute the same log-probs or gradients as the model."""


@dataclass(frozen=True)
class Gap:
    """Differences from the plain model."""

    logprob_mean: float
    """Nats."""
    logprob_max: float
    gradient: float
    """|difference| / |gradient|, maximum over the compared parameters."""

    def within(self, dtype: torch.dtype) -> bool:
        """Whether rounding can explain the differences; False if any is not finite."""
        nats = LOGPROB_TOLERANCE[dtype]
        return self.logprob_mean <= nats and self.logprob_max <= 8 * nats and self.gradient <= GRADIENT_TOLERANCE[dtype]

    def __str__(self) -> str:
        nats = f"{self.logprob_mean:.2g} nats on average and at most {self.logprob_max:.2g}"
        return f"log-probs differ by {nats}, gradients by {self.gradient:.2g} of their norm"


@dataclass(frozen=True)
class Sequences:
    """Test sequences (prompts and completions) with the plain model's log-probs and gradients."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: Tensor
    """[N], all completion tokens concatenated."""
    gradients: dict[str, Tensor]
    """Parameter -> gradient of the sum of ``loss_weights`` x log-probs."""


def loss_weights(total: int) -> Tensor:
    """[N]: weights of the log-probs in the test loss whose gradients are compared."""
    return torch.linspace(-1.0, 1.0, total)


@dataclass(frozen=True)
class Choice:
    """How this model's log-probs are computed."""

    layout: Layout
    attention: str | None
    """transformers' name of the attention function; None: the model's own, which cannot be changed."""
    gap: Gap
    found: Sequences
    passed_over: list[str]
    """Faster alternatives that were incorrect for this model, and why."""

    def report(self) -> dict[str, Any]:
        """For summary.json."""
        return {"packing": self.layout, "attention": self.attention, "passed_over": self.passed_over, **asdict(self.gap)}


def choose(model: PreTrainedModel, packing: Packing, seed: int) -> Choice:
    """Select the fastest layout and attention allowed by ``packing`` that computes the model's log-probs and gradients
    correctly.

    The selected attention function is left set on the model.

    Args:
        model: the model as loaded, in float32.

    Raises:
        UnsupportedModel: no alternative is correct.
    """
    with _undisturbed():
        try:
            _attend_by(model, "eager")
            scorer = Scorer(model, torch.float32, temperature=1.0)
            found = _plain(model, scorer, seed)
        except Exception as fault:  # a model's own code can raise anything
            raise _refusal(model, f"it cannot compute log-probs of plain token sequences: {_named(fault)}") from fault
        faults = []
        for layout, asked in WAYS[packing]:
            attention: str | None = asked
            try:
                attention = _attend_by(model, asked)
                gap = _gap(found, *_by_layout(model, scorer, layout, found))
            except Exception as fault:  # as above
                faults.append(f"{layout} ({attention} attention): {_named(fault)}")
                continue
            if gap.within(torch.float32):
                return Choice(layout, attention, gap, found, faults)
            faults.append(f"{layout} ({attention} attention): {gap}")
    remedy = "" if packing == "auto" else f"; train.packing = {packing!r} (try 'auto', which tests all of them)"
    raise _refusal(model, "\n  ".join(["no packing matches the plain model's log-probs and gradients:", *faults]) + remedy)


def prove(found: Sequences, logprobs: Tensor, gradients: dict[str, Tensor], dtype: torch.dtype, model: PreTrainedModel) -> Gap:
    """Compare the policy, with its adapters, shards and data type, with the plain model on the same sequences.

    Args:
        gradients: gradients of those compared parameters that are trained.
        dtype: compute data type of the policy.

    Raises:
        UnsupportedModel: the differences are larger than rounding can explain.
    """
    gap = _gap(found, logprobs, gradients)
    if not gap.within(dtype):
        raise _refusal(model, f"as the run trains it (data type, adapters, shards), {gap}")
    return gap


@contextmanager
def moved(parameters: list[Tensor]) -> Iterator[None]:
    """Context in which every eighth row of each parameter (of this rank's shard) is perturbed; afterwards all are restored
    exactly."""
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
    """Log-probs and gradients by the model's own forward pass, one sequence at a time."""
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
    """Two prompts with two completions each, longer than the model's attention windows and rotary lengths, up to LONGEST."""
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
    """Lengths from which attention or rotary embeddings behave differently."""
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
    # A gradient that is tiny compared with the others consists only of rounding errors.
    relative = differences / norms.clamp_min(1e-3 * norms.max().item() + 1e-12)
    return Gap(errors.mean().item(), errors.max().item(), relative.max().item())


def _attend_by(model: PreTrainedModel, attention: str) -> str | None:
    """Set the model's attention function by transformers' name; returns the name in use, or None if it cannot be set."""
    if not model._can_set_attn_implementation():
        if attention == ATTENTION:
            raise ValueError("its attention function cannot be replaced, so it cannot compute packed groups")
        return None
    model.set_attn_implementation(attention)
    return attention


def _named(fault: Exception) -> str:
    first = str(fault).strip().split("\n")[0]
    return f"{type(fault).__name__}: {first[:300]}"


def _refusal(model: PreTrainedModel, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{type(model).__name__}: {why}\n(docs/models.md lists the tested model families)")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Context that restores the state of the random number generators afterwards."""
    with torch.random.fork_rng():
        yield
