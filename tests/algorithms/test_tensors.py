"""Advantages, log-probs and weight operations against values worked out by hand."""

import math

import pytest
import torch

from sfpo.algorithms.advantages import STD_EPS, group_advantages, zero_variance
from sfpo.algorithms.logprobs import token_logprobs
from sfpo.algorithms.weights import reposition_, snapshot


def test_advantages_of_one_right_answer_in_four():
    # Mean 0.25; sample variance (3 x 0.0625 + 0.5625) / 3 = 0.25, std 0.5.
    advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale_by_std=True)
    assert advantages[0].tolist() == pytest.approx([0.75 / (0.5 + STD_EPS)] + [-0.25 / (0.5 + STD_EPS)] * 3)


def test_advantages_without_scaling_are_centred_rewards():
    advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale_by_std=False)
    assert advantages[0].tolist() == [0.75, -0.25, -0.25, -0.25]


def test_a_group_without_variance_teaches_nothing():
    # 0.1 is not a binary fraction: without care its mean differs from it by rounding.
    rewards = torch.tensor([[0.1] * 7, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert zero_variance(rewards).tolist() == [True, False]
    assert group_advantages(rewards, scale_by_std=True)[0].tolist() == [0.0] * 7


def test_logprobs_and_entropy_of_two_tokens():
    # Logits (ln 3, 0) give 3/4 and 1/4; at temperature 2 they give sqrt(3)/(1 + sqrt(3)).
    logits = torch.tensor([[math.log(3.0), 0.0]] * 2)
    logprobs, entropy = token_logprobs(logits, torch.tensor([0, 1]), temperature=1.0)
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    assert entropy.tolist() == pytest.approx([-0.75 * math.log(0.75) - 0.25 * math.log(0.25)] * 2)
    cooler, _ = token_logprobs(logits[:1], torch.tensor([0]), temperature=2.0)
    assert cooler.item() == pytest.approx(math.log(math.sqrt(3) / (1 + math.sqrt(3))))


def test_logprobs_of_bfloat16_logits_are_summed_in_float32():
    logprobs, _ = token_logprobs(torch.zeros(1, 1000, dtype=torch.bfloat16), torch.tensor([3]), temperature=1.0)
    assert logprobs.dtype == torch.float32 and logprobs.item() == pytest.approx(-math.log(1000), rel=1e-6)


def test_reposition_moves_between_the_ends():
    parameters = [torch.tensor([3.0, 5.0]), torch.tensor([[1.0]])]
    start = [torch.tensor([1.0, 1.0]), torch.tensor([[0.0]])]
    reposition_(parameters, start, alpha=0.25)
    assert parameters[0].tolist() == [1.5, 2.0] and parameters[1].tolist() == [[0.25]]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_reposition_is_exact_at_the_ends(alpha):
    generator = torch.Generator().manual_seed(0)
    moved, start = (torch.randn(1000, generator=generator) for _ in range(2))
    parameter = moved.clone()
    reposition_([parameter], [start], alpha)
    assert torch.equal(parameter, moved if alpha else start)


def test_a_snapshot_does_not_follow_the_weights():
    parameter = torch.nn.Parameter(torch.ones(2))
    copy = snapshot([parameter])
    with torch.no_grad():
        parameter.add_(1.0)
    assert copy[0].tolist() == [1.0, 1.0] and not copy[0].requires_grad


def test_a_snapshot_of_another_model_is_refused():
    with pytest.raises(ValueError, match="does not match"):
        reposition_([torch.ones(2)], [torch.ones(3)], 0.5)
