"""Log-probabilities and entropies of tokens under a policy, without ever holding the logits of all positions.

At a vocabulary of 152,000 the float32 logits of 4,096 positions are 2.5 GB, and autograd would keep several tensors of that
size. Here the output layer runs over a few positions at a time, forward and again backward: the idea of the fused linear
cross-entropy of Liger Kernel (arXiv 2410.10989), with the entropy beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS_AT_ONCE = 2**23
"""Positions x vocabulary in one chunk: 32 MiB of float32."""


def token_logprobs(
    hidden: Tensor,
    output_weight: Tensor,
    tokens: Tensor,
    temperature: float,
    with_entropy: bool = True,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and the entropy of the distribution that it was drawn from, both in nats.

    The distribution is softmax(hidden @ output_weight^T / temperature): the one that the sampler draws from at top_p 1.

    Args:
        hidden: [N, width], of the positions that predict the tokens. The matrix product runs in its data type.
        output_weight: [vocabulary, width].
        tokens: [N] token ids.
        with_entropy: False: the entropy comes back as zeros, and its cost is saved.
        logits_at_once: bound on the logits held at one time.

    Returns:
        (logprobs [N], entropy [N]), float32 (float64 stays float64); gradients flow through both.
    """
    rows = max(1, logits_at_once // len(output_weight))
    return _TokenLogprobs.apply(hidden, output_weight, tokens, temperature, with_entropy, rows)


class _TokenLogprobs(torch.autograd.Function):
    """d logp/dz = onehot - p; dH/dz = -p (log p + H), with z the logits over the temperature."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, output_weight: Tensor, tokens: Tensor, temperature: float, with_entropy: bool, rows: int
    ) -> tuple[Tensor, Tensor]:
        weight = output_weight.to(hidden.dtype)
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprobs, normalizer, entropy = (torch.zeros(len(tokens), dtype=dtype, device=hidden.device) for _ in range(3))
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _parts(len(tokens), rows):
                logits = _logits(hidden[part], weight, temperature, dtype)
                normalizer[part] = logits.logsumexp(-1)
                logprobs[part] = logits.gather(-1, tokens[part, None]).squeeze(-1) - normalizer[part]
                if with_entropy:
                    log_p = logits.sub_(normalizer[part, None])
                    entropy[part] = -torch.linalg.vecdot(log_p.exp(), log_p)
        ctx.save_for_backward(hidden, output_weight, tokens, normalizer, entropy)
        ctx.temperature, ctx.with_entropy, ctx.rows = temperature, with_entropy, rows
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, output_weight, tokens, normalizer, entropy = ctx.saved_tensors
        weight = output_weight.to(hidden.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(output_weight)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _parts(len(tokens), ctx.rows):
                log_p = _logits(hidden[part], weight, ctx.temperature, normalizer.dtype).sub_(normalizer[part, None])
                factor = -grad_logprobs[part, None]
                if ctx.with_entropy:
                    factor = factor - grad_entropy[part, None] * (log_p + entropy[part, None])
                grad = log_p.exp_().mul_(factor)
                grad.scatter_add_(-1, tokens[part, None], grad_logprobs[part, None])
                grad = grad.div_(ctx.temperature).to(hidden.dtype)
                grad_hidden[part] = grad @ weight
                grad_weight += grad.T @ hidden[part]
        return grad_hidden, grad_weight, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    return functional.linear(hidden, weight).to(dtype).div_(temperature)


def _parts(total: int, rows: int) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, total, rows)]
