"""Log-probs and entropies against values worked out by hand, and their gradients against autograd's on whole logits."""

import math

import pytest
import torch

from sfpo.algorithms.logprobs import token_logprobs, token_logprobs_through


def test_two_tokens_by_hand():
    # Logits (ln 3, 0) give 3/4 and 1/4; at temperature 2 they give sqrt(3)/(1 + sqrt(3)).
    hidden, weight = torch.tensor([[1.0]] * 2), torch.tensor([[math.log(3.0)], [0.0]])
    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([0, 1]), temperature=1.0)
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    assert entropy.tolist() == pytest.approx([-0.75 * math.log(0.75) - 0.25 * math.log(0.25)] * 2)
    cooler, _ = token_logprobs(hidden[:1], weight, torch.tensor([0]), temperature=2.0)
    assert cooler.item() == pytest.approx(math.log(math.sqrt(3) / (1 + math.sqrt(3))))


def test_bfloat16_logits_are_summed_in_float32():
    hidden = torch.zeros(1, 4, dtype=torch.bfloat16)
    logprobs, _ = token_logprobs(hidden, torch.ones(1000, 4), torch.tensor([3]), temperature=1.0)
    assert logprobs.dtype == torch.float32 and logprobs.item() == pytest.approx(-math.log(1000), rel=1e-6)


def test_the_entropy_of_a_certain_token_is_zero_not_less():
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[33.3], [-99.9], [-66.6]])
    _, entropy = token_logprobs(hidden, weight, torch.tensor([0]), temperature=1.0, logits_at_once=2)
    assert 0.0 <= entropy.item() < 1e-30  # about 100 e^-100


def inputs():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 5, dtype=torch.float64, generator=generator).requires_grad_() for rows in (7, 11))
    return hidden, weight, torch.randint(11, (7,), generator=generator)


@pytest.mark.parametrize("logits_at_once", [1, 25, 10_000])  # slices of 1, 3 and 11 tokens
@pytest.mark.parametrize("with_entropy", [True, False])
def test_values_and_gradients_are_those_of_whole_logits(logits_at_once, with_entropy):
    hidden, weight, tokens = inputs()
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    logprobs, entropy = token_logprobs(hidden, weight, tokens, 0.7, with_entropy, logits_at_once)
    log_p = (hidden @ weight.T / 0.7).log_softmax(-1)
    plain = log_p.gather(-1, tokens[:, None])[:, 0]
    plain_entropy = -(log_p.exp() * log_p).sum(-1) if with_entropy else torch.zeros_like(plain)
    torch.testing.assert_close(logprobs, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(entropy, plain_entropy, rtol=0, atol=1e-12)
    # A loss in both, with weights of its own for each position; without the entropy its share of the gradient is 0.
    ours = torch.autograd.grad((weights * logprobs).sum() + (weights.flip(0) * entropy).sum(), (hidden, weight))
    theirs = torch.autograd.grad((weights * plain).sum() + (weights.flip(0) * plain_entropy).sum(), (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("logits_at_once", [1, 25, None])  # slices of 1, 2 and 7 positions
def test_a_head_of_any_kind_has_the_values_and_gradients_of_whole_logits(logits_at_once):
    hidden, weight, tokens = inputs()
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64).requires_grad_()
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)

    def head(hidden):  # with a soft cap and a bias
        return 2.0 * torch.tanh(hidden @ weight.T / 2.0) + bias

    logprobs, entropy = token_logprobs_through(head, hidden, tokens, 0.7, 11, logits_at_once)
    log_p = (head(hidden) / 0.7).log_softmax(-1)
    expected, their_entropy = log_p.gather(-1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    torch.testing.assert_close((logprobs, entropy), (expected, their_entropy))
    ours, theirs = (
        torch.autograd.grad((weights * (one + 0.3 * other)).sum(), (hidden, weight, bias))
        for one, other in ((logprobs, entropy), (expected, their_entropy))
    )
    torch.testing.assert_close(ours, theirs)


def test_a_rank_without_tokens_has_a_gradient_of_zeros():
    hidden, weight, tokens = inputs()
    logprobs, entropy = token_logprobs_through(lambda hidden: hidden @ weight.T, hidden[:0], tokens[:0], 1.0, 11)
    assert logprobs.shape == entropy.shape == (0,)
    (gradient,) = torch.autograd.grad(logprobs.sum() + entropy.sum(), weight)
    assert torch.equal(gradient, torch.zeros(11, 5, dtype=torch.float64))
