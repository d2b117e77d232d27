"""Advantages and weight operations against values worked out by hand."""

import pytest
import torch

from sfpo.algorithms.advantages import STD_EPS, group_advantages, zero_variance
from sfpo.algorithms.weights import gradient_norm, gradients, reposition_, snapshot


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


def test_a_snapshot_on_the_host_repositions_the_same():
    parameters = [torch.tensor([3.0, 5.0])]
    start = snapshot([torch.tensor([1.0, 1.0])], on_host=True)
    assert start[0].device.type == "cpu"
    reposition_(parameters, start, alpha=0.25)
    assert parameters[0].tolist() == [1.5, 2.0]


def test_gradients_are_copies_and_their_norm_is_that_of_one_vector():
    weights = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    weights[0].grad, weights[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    assert gradient_norm(weights) == pytest.approx(7.0)  # 4 + 9 + 36 = 49
    copies = gradients(weights)
    weights[0].grad.zero_()
    assert [copy.tolist() for copy in copies] == [[2.0, 3.0], [6.0]]


@pytest.mark.parametrize("of", [gradients, gradient_norm])
def test_a_weight_without_a_gradient_is_named(of):
    with pytest.raises(ValueError, match=r"a weight of shape \[2\] has no gradient"):
        of([torch.zeros(2, requires_grad=True)])
