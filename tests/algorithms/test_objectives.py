"""The loss against values worked out by hand, and its independence of the cut into micro-batches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfpo.algorithms.objectives import policy_loss, token_weights
from sfpo.config import Objective

LENGTHS = torch.tensor([1, 3])


def loss_of(objective: Objective, log_ratio: list[float], advantages: list[float], max_tokens: int = 10):
    old = torch.full((4,), -1.0)
    weights = token_weights(objective.aggregation, LENGTHS, max_tokens).float()
    entropy = torch.full((4,), 0.5)
    return policy_loss(objective, old + torch.tensor(log_ratio), old, entropy, torch.tensor(advantages), LENGTHS, weights)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sequence_mean", [1 / 2, 1 / 6, 1 / 6, 1 / 6]),  # two completions of 1 and 3 tokens
        ("token_mean", [1 / 4] * 4),
        ("constant", [1 / 20] * 4),  # two completions, at most 10 tokens each
    ],
)
def test_token_weights(aggregation, expected):
    assert token_weights(aggregation, LENGTHS, 10).tolist() == pytest.approx(expected)


def test_on_policy_loss_is_minus_the_mean_advantage():
    # All ratios 1: the sequence mean of -A is -(2 - 1) / 2.
    loss, statistics = loss_of(Objective(), [0.0] * 4, [2.0, -1.0])
    assert loss.item() == pytest.approx(-0.5)
    assert statistics["ratio"].tolist() == [1.0] * 4 and not statistics["clipped"].any()


def test_clipping_binds_only_where_it_lowers_the_objective():
    # Ratios 1.5, 1.5, 0.5, 1. Advantages +1 (first token) and -1 (the others), clip 0.2:
    #   +1, 1.5 -> min(1.5, 1.2) = 1.2, clipped;  -1, 1.5 -> min(-1.5, -1.2) = -1.5, not clipped;
    #   -1, 0.5 -> min(-0.5, -0.8) = -0.8, clipped;  -1, 1 -> -1.
    log_ratio = [math.log(1.5), math.log(1.5), math.log(0.5), 0.0]
    loss, statistics = loss_of(Objective(), log_ratio, [1.0, -1.0])
    assert statistics["clipped"].tolist() == [True, False, True, False]
    assert loss.item() == pytest.approx(-(1.2 / 2 + (-1.5 - 0.8 - 1.0) / 6))


def test_clip_higher_moves_the_upper_bound_alone():
    loss, _ = loss_of(Objective(clip=(0.2, 0.28)), [math.log(1.5), 0, 0, 0], [1.0, 0.0])
    assert loss.item() == pytest.approx(-1.28 / 2)


def test_sequence_ratio_is_the_geometric_mean_over_the_completion():
    # Second completion: log ratios 0.3, 0, -0.15: mean 0.05 for each of its tokens.
    _, statistics = loss_of(Objective(ratio="sequence", clip=(0.9, 9.0)), [0.1, 0.3, 0.0, -0.15], [1.0, 1.0])
    assert statistics["ratio"].tolist() == pytest.approx([math.exp(0.1)] + [math.exp(0.05)] * 3)


def test_kl_and_entropy_terms():
    # k3 = r - 1 - log r with r = old/new = e^-0.1 on the first token, else 0. Entropy 0.5 everywhere, weights sum to 1.
    base, _ = loss_of(Objective(), [0.1, 0, 0, 0], [0.0, 0.0])
    with_kl, _ = loss_of(Objective(kl_coefficient=2.0), [0.1, 0, 0, 0], [0.0, 0.0])
    with_entropy, _ = loss_of(Objective(entropy_coefficient=0.001), [0.1, 0, 0, 0], [0.0, 0.0])
    assert base.item() == 0.0
    assert with_kl.item() == pytest.approx(2.0 * (math.exp(-0.1) - 1 + 0.1) / 2, rel=1e-4)
    assert with_entropy.item() == pytest.approx(-0.0005)


def test_gradient_on_policy_is_the_policy_gradient():
    # d(-w A exp(lp - old))/d lp at ratio 1 = -w A.
    logprobs = torch.full((4,), -1.0, requires_grad=True)
    weights = token_weights("sequence_mean", LENGTHS, 10).float()
    loss, _ = policy_loss(
        Objective(), logprobs, torch.full((4,), -1.0), torch.zeros(4), torch.tensor([2.0, -1.0]), LENGTHS, weights
    )
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([-1.0, 1 / 6, 1 / 6, 1 / 6])


@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6),
    aggregation=st.sampled_from(["sequence_mean", "token_mean", "constant"]),
    ratio=st.sampled_from(["token", "sequence"]),
    cut=st.integers(1, 5),
)
def test_any_cut_into_micro_batches_gives_the_same_loss(lengths, aggregation, ratio, cut):
    objective = Objective(ratio=ratio, aggregation=aggregation, kl_coefficient=0.1, entropy_coefficient=0.01)
    generator = torch.Generator().manual_seed(sum(lengths))
    total, count = sum(lengths), len(lengths)
    logprobs, old, entropy = (torch.randn(total, generator=generator, dtype=torch.float64) for _ in range(3))
    advantages = torch.randn(count, generator=generator, dtype=torch.float64)
    sizes = torch.tensor(lengths)
    weights = token_weights(aggregation, sizes, 6)
    whole, _ = policy_loss(objective, logprobs, old, entropy, advantages, sizes, weights)
    owner = torch.arange(count).repeat_interleave(sizes)
    parts = 0.0
    for rows in torch.arange(count).split(cut):
        mine = torch.isin(owner, rows)
        part, _ = policy_loss(objective, logprobs[mine], old[mine], entropy[mine], advantages[rows], sizes[rows], weights[mine])
        parts += part
    assert float(parts) == pytest.approx(float(whole), rel=1e-9)


def test_an_unknown_aggregation_is_named():
    with pytest.raises(ValueError, match="aggregation 'mean' must be"):
        token_weights("mean", LENGTHS, 10)


def test_truncated_importance_sampling_by_hand():
    # pi_old / pi_sampler of e^0.5, 1, e^-1, e^2 with cap 1.5: 1.5 (1.649 is capped), 1, 0.368, 1.5. On policy, A = 1 and -2:
    # -(1.5 x 1)/2 + 2 (1 + 0.368 + 1.5)/6.
    objective = Objective(sampler_correction_cap=1.5)
    old = torch.full((4,), -1.0)
    weights = token_weights(objective.aggregation, LENGTHS, 10).float()
    arguments = (objective, old, old, torch.zeros(4), torch.tensor([1.0, -2.0]), LENGTHS, weights)
    sampler = old - torch.tensor([0.5, 0.0, -1.0, 2.0])
    loss, _ = policy_loss(*arguments, sampler_logprobs=sampler)
    assert loss.item() == pytest.approx(-1.5 / 2 + 2 * (1 + math.exp(-1) + 1.5) / 6)
    # A sampler that agrees changes nothing; one that is not known is told.
    assert policy_loss(*arguments, sampler_logprobs=old)[0].item() == pytest.approx(-1 / 2 + 2 / 2)
    with pytest.raises(ValueError, match="sampler_correction_cap: the batch has no sampler log-probs"):
        policy_loss(*arguments)
