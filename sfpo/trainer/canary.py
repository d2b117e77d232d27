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
"""Allowed mean error of log-probs in float32, in nats; the maximum may be eight times that. (The largest error of all families
in docs/models.md is 3e-5, the mean of SmolLM2-135M 7e-6; Cohere with its output scaled by 1.1 has an error of 7e-3.)"""
GRADIENT_TOLERANCE = 1e-3
"""Allowed error of a parameter's gradient in float32, relative to its norm. (SmolLM2-135M: 3e-4; a missing gradient: 1.)"""
ROUNDING_MEDIAN, ROUNDING_MEAN, ROUNDING_GRADIENTS = 2.0, 4.0, 4.0
"""In bfloat16, the allowed errors as multiples of the model's own rounding errors: of the median and the mean error of
log-probs, and of all gradients together. The model's own errors are those of the unmodified model under autocast compared with
itself in float32, one sequence at a time. A fixed limit in nats would not work: a correct Mixtral has an error of 0.07, and the
incorrect Cohere above only 0.007.

Measured on random models (Llama, Qwen 2, 3, 3-MoE and 3.5, Gemma 2 and 3, Granite, Cohere, OLMo 2 and 3, Phi-3, Mistral,
gpt-oss, Mixtral, GLM-4-MoE, Bamba; three of each), correct policies have ratios of 0.59 to 1.45 (median), 0.49 to 1.64 (mean)
and 0.24 to 1.37 (gradients). Ratios of the median for incorrect ones: 2.0 and 2.9 with attention scaled by 1.1, 3.4 to 8.6 with
the output scaled by 1.1, 3.8 and 49 without the soft cap of attention or logits, 20 to 80 without the window. The median is
used because a different choice of expert changes single tokens a lot, even in a correct model."""
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
    logprob_median: float
    logprob_max: float
    gradient: float | None
    """|difference| / |gradient|, maximum over the compared parameters. None if none of them is trained (adapters)."""
    gradients: float | None
    """|difference| / |gradient| of all compared parameters together."""

    def within(self, rounding: Gap | None) -> bool:
        """Whether rounding can explain the differences; False if any is not finite.

        Args:
            rounding: the plain model's own rounding errors in the compute data type; None if that is float32.
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
        nats = f"{self.logprob_mean:.2g} nats on average and at most {self.logprob_max:.2g}"
        of_norm = "" if self.gradient is None else f", gradients by {self.gradient:.2g} of their norm"
        return f"log-probs differ by {nats}{of_norm}"


@dataclass(frozen=True)
class Sequences:
    """Test sequences (prompts and completions) with the plain model's log-probs and gradients."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: Tensor
    """[N], all completion tokens concatenated."""
    gradients: dict[str, Tensor]
    """Parameter -> gradient of the sum of ``loss_weights`` x log-probs."""
    rounding: Gap | None
    """The plain model's rounding errors in the compute data type; None if that is float32."""


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


def choose(model: PreTrainedModel, packing: Packing, seed: int, compute: torch.dtype = torch.float32) -> Choice:
    """Select the fastest layout and attention allowed by ``packing`` that computes the model's log-probs and gradients
    correctly.

    The selected attention function is left set on the model.

    Args:
        model: the model as loaded, in float32.
        compute: compute data type of the policy.

    Raises:
        UnsupportedModel: no alternative is correct.
    """
    with _undisturbed():
        try:
            _attend_by(model, "eager")
            scorer = Scorer(model, torch.float32, temperature=1.0)
            found = _plain(model, scorer, seed, compute)
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
            if gap.within(None):
                return Choice(layout, attention, gap, found, faults)
            faults.append(f"{layout} ({attention} attention): {gap}")
    remedy = "" if packing == "auto" else f"; train.packing = {packing!r} (try 'auto', which tests all of them)"
    raise _refusal(model, "\n  ".join(["no packing matches the plain model's log-probs and gradients:", *faults]) + remedy)


def prove(found: Sequences, logprobs: Tensor, gradients: dict[str, Tensor], model: PreTrainedModel) -> Gap:
    """Compare the policy, with its adapters, shards and data type, with the plain model on the same sequences.

    Args:
        gradients: gradients of those compared parameters that are trained.

    Raises:
        UnsupportedModel: the differences are larger than rounding can explain.
    """
    gap = _gap(found, logprobs, gradients)
    if not gap.within(found.rounding):
        own = f"; rounding alone causes: {found.rounding}" if found.rounding else ""
        raise _refusal(model, f"as the run trains it (data type, adapters, shards), {gap}{own}")
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


def _plain(model: PreTrainedModel, scorer: Scorer, seed: int, compute: torch.dtype) -> Sequences:
    """Log-probs and gradients by the model's own forward pass, one sequence at a time."""
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
    """Two prompts with two completions each, longer than the model's attention windows and rotary lengths, up to LONGEST."""
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
    of_logprobs = errors.mean().item(), errors.median().item(), errors.max().item()
    if not gradients:
        return Gap(*of_logprobs, None, None)
    norms = torch.stack([found.gradients[name].norm() for name in gradients])
    differences = torch.stack([(gradient - found.gradients[name]).norm() for name, gradient in gradients.items()])
    # A gradient that is tiny compared with the others consists only of rounding errors.
    relative = differences / norms.clamp_min(1e-3 * norms.max().item() + 1e-12)
    return Gap(*of_logprobs, relative.max().item(), (differences.norm() / norms.norm().clamp_min(1e-12)).item())


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
    with torch.random.fork_rng(devices=[]):
        yield
