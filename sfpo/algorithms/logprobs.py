"""Log-probabilities and entropies of tokens under a policy, without materializing the logits of all positions.

At a vocabulary of 152,000 the float32 logits of 4,096 positions take 2.5 GB, and autograd would keep several tensors of that
size. Here the output layer is computed for one slice of the vocabulary at a time, in the forward and again in the backward
pass, as in Cut Cross-Entropy (arXiv 2411.09009), together with the entropy. (Slices of positions, as in Liger Kernel,
accumulate the full weight gradient once per slice, which was three times slower here.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**26}
"""Positions x vocabulary per slice: on a CPU 8 MiB of float32 fit into the caches (2**23 is 1.3 times slower); a GPU needs
large matrix products."""


def token_logprobs(
    hidden: Tensor,
    output_weight: Tensor,
    tokens: Tensor,
    temperature: float,
    with_entropy: bool = True,
    logits_at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and the entropy of the distribution that it was sampled from, both in nats.

    The distribution is softmax(hidden @ output_weight^T / temperature): that of the sampler at top_p 1.

    Args:
        hidden: [N, width], hidden states of the positions that predict the tokens; the matrix product is in their data type.
        output_weight: [vocabulary, width].
        tokens: [N] token ids.
        with_entropy: False: zeros are returned for the entropy, which saves time.
        logits_at_once: largest number of logits in memory at a time; None: LOGITS_AT_ONCE.

    Returns:
        (logprobs [N], entropy [N]), float32 (float64 stays float64); gradients flow through both.
    """
    logits_at_once = logits_at_once or LOGITS_AT_ONCE[hidden.device.type]
    columns = max(1, logits_at_once // max(1, len(tokens)))
    return _TokenLogprobs.apply(hidden, output_weight, tokens, temperature, with_entropy, columns)


def token_logprobs_through(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    temperature: float,
    vocabulary: int,
    logits_at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As ``token_logprobs``, for an output layer that is more than a matrix product (with a bias, soft cap or scale).

    It runs on slices of positions, recomputed in the backward pass, so that only one slice's logits are in memory.

    Args:
        head: [n, width] -> logits [n, vocabulary].
        hidden: [N, width].
        logits_at_once: largest number of logits in memory at a time; None: eight times LOGITS_AT_ONCE, since each slice
            accumulates the full gradient of the output layer.
    """
    if not len(tokens):  # a rank without tokens: its output layer needs a zero gradient, for the collectives with other ranks
        one, zero = hidden.new_zeros(1, hidden.shape[-1]), tokens.new_zeros(1)
        logprobs, entropy = token_logprobs_through(head, torch.cat([hidden, one]), zero, temperature, vocabulary)
        return logprobs[:0], entropy[:0]
    rows = max(1, (logits_at_once or 8 * LOGITS_AT_ONCE[hidden.device.type]) // vocabulary)

    def of_slice(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(hidden)
        logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
        logprobs = logits.log_softmax(-1)
        return logprobs.gather(-1, tokens[:, None])[:, 0], torch.special.entr(logprobs.exp()).sum(-1)

    parts = [
        checkpoint(of_slice, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(hidden.split(rows), tokens.split(rows), strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


class _TokenLogprobs(torch.autograd.Function):
    """With z the logits divided by the temperature: d logp/dz = onehot - p; dH/dz = -p (log p + H).

    Slices are combined by the chain rule of entropy: H = sum over slices of w H(slice) - w log w, with w a slice's probability.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, output_weight: Tensor, tokens: Tensor, temperature: float, with_entropy: bool, columns: int
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        chosen, entropy = (torch.zeros(len(tokens), dtype=dtype, device=hidden.device) for _ in range(2))
        normalizer = torch.full_like(chosen, -torch.inf)
        with torch.autocast(hidden.device.type, enabled=False):
            for part, weight in _slices(output_weight, columns, hidden.dtype):
                logits = _logits(hidden, weight, temperature, dtype)
                place, inside = _within(tokens, part)
                chosen = torch.where(inside, logits.gather(-1, place).squeeze(-1), chosen)
                top = logits.amax(-1, keepdim=True)
                logits.sub_(top)
                weights = logits.exp() if with_entropy else logits.exp_()
                total = weights.sum(-1)
                before, of_slice = normalizer, total.log() + top.squeeze(-1)
                normalizer = torch.logaddexp(before, of_slice)
                if with_entropy:
                    entropy_of_slice = total.log() - torch.linalg.vecdot(weights, logits) / total
                    earlier, here = (before - normalizer).exp(), (of_slice - normalizer).exp()
                    entropy = (
                        earlier * entropy + here * entropy_of_slice + torch.special.entr(earlier) + torch.special.entr(here)
                    )
        ctx.save_for_backward(hidden, output_weight, tokens, normalizer, entropy)
        ctx.temperature, ctx.columns = temperature, columns
        if not with_entropy:
            ctx.mark_non_differentiable(entropy)
        ctx.set_materialize_grads(False)  # an entropy without gradient costs nothing in the backward pass
        return chosen - normalizer, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, output_weight, tokens, normalizer, entropy = ctx.saved_tensors
        of_logprobs = torch.zeros_like(normalizer) if grad_logprobs is None else grad_logprobs / ctx.temperature
        grad_hidden = torch.zeros(hidden.shape, dtype=normalizer.dtype, device=hidden.device)
        grad_weight = torch.empty_like(output_weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part, weight in _slices(output_weight, ctx.columns, hidden.dtype):
                log_p = _logits(hidden, weight, ctx.temperature, normalizer.dtype).sub_(normalizer[:, None])
                if grad_entropy is None:
                    grad = log_p.exp_().mul_(-of_logprobs[:, None])
                else:
                    of_entropy = (log_p + entropy[:, None]).mul_(grad_entropy[:, None] / ctx.temperature)
                    grad = log_p.exp_().mul_(of_entropy.add_(of_logprobs[:, None])).neg_()
                place, inside = _within(tokens, part)
                grad = grad.scatter_add_(-1, place, (of_logprobs * inside)[:, None]).to(hidden.dtype)
                grad_hidden += grad @ weight
                if grad_weight is not None:
                    grad_weight[part] = grad.T @ hidden
        return grad_hidden.to(hidden.dtype), grad_weight, None, None, None, None


def _slices(output_weight: Tensor, columns: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the vocabulary, each with its rows of the output weight, in data type ``dtype``."""
    for start in range(0, len(output_weight), columns):
        part = slice(start, min(start + columns, len(output_weight)))
        yield part, output_weight[part].to(dtype)


def _logits(hidden: Tensor, weight: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    logits = functional.linear(hidden, weight).to(dtype)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _within(tokens: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Column of each token in the slice ([N, 1], arbitrary if the token is in another slice), and whether it is in the slice
    ([N])."""
    place = tokens - part.start
    size = part.stop - part.start
    return place.clamp(0, size - 1)[:, None], (place >= 0) & (place < size)
