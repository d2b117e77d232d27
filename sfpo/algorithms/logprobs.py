"""Log-probabilities and entropies of tokens under a policy."""

from __future__ import annotations

from torch import Tensor


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and the entropy of the distribution that it was drawn from, both in nats.

    The distribution is softmax(logits / temperature): the one that the sampler draws from at top_p 1.

    Args:
        logits: [N, vocabulary], any float type; the sums are taken in float32 (float64 stays float64).
        tokens: [N] token ids.

    Returns:
        (logprobs [N], entropy [N]); gradients flow through both.
    """
    logits = (logits if logits.dtype.itemsize == 8 else logits.float()) / temperature
    log_probs = logits.log_softmax(dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), entropy
