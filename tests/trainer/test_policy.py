"""The policy's numbers against transformers' own forward pass, and one update against a plain re-computation."""

import dataclasses
import functools
import itertools

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import Execution
from sfpo.trainer.mini_batch import rows_with_gradient
from sfpo.trainer.packing import micro_batches
from sfpo.trainer.policy import NonFiniteUpdates, Policy
from sfpo.types import OldPolicy, TrainBatch

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9]]
COMPLETIONS = [[10, 11], [12, 13, 14, 15], [16], [17, 18, 19]]


def rms_norm(norm: Qwen2RMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    return norm.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


@pytest.fixture
def make_policy(checkpoint, params):
    def make(objective=None, optimizer=None, **changes) -> Policy:
        train = params.suites["tiny"].train
        changes = {"prompts_per_step": 2, "mini_batch_prompts": 1, **changes}
        if optimizer:
            changes["optimizer"] = train.optimizer.model_copy(update=optimizer)
        computing = {key: changes.pop(key) for key in set(changes) & set(Execution.model_fields)}
        execution = params.suites["tiny"].execution.model_copy(update=computing)
        policy = Policy(checkpoint, objective or params.objectives["grpo"], train.model_copy(update=changes), execution, 32)
        # In float64, so that rounding, which Adam blows up where a gradient is nearly 0, does not hide a fault; the norms of
        # transformers round to float32 inside.
        policy.model.double()
        policy.optimizer.state.clear()  # the first step makes the moments anew, in float64 too
        for norm in [module for module in policy.model.modules() if isinstance(module, Qwen2RMSNorm)]:
            norm.forward = functools.partial(rms_norm, norm)
        return policy

    return make


def make_batch(policy: Policy) -> TrainBatch:
    old_logprobs, entropy = policy.score(PROMPTS, COMPLETIONS)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    return TrainBatch(PROMPTS, COMPLETIONS, advantages, OldPolicy(old_logprobs, entropy.mean().item()), group_size=2)


def by_hand(model, row: int) -> torch.Tensor:
    """Log-probs of one completion by transformers alone, no padding, no cut."""
    logits = model(torch.tensor([PROMPTS[row] + COMPLETIONS[row]])).logits[0]
    first = len(PROMPTS[row]) - 1
    wanted = torch.tensor(COMPLETIONS[row])
    return logits[first : first + len(wanted)].log_softmax(-1).gather(-1, wanted[:, None])[:, 0]


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_scores_are_transformers_own_whatever_the_padding(make_policy, budget):
    policy = make_policy(micro_batch_tokens=budget)
    logprobs, entropy = policy.score(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        expected = torch.cat([by_hand(policy.model, row) for row in range(4)])
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-10)
    assert (entropy > 0).all() and len(entropy) == 10


def test_one_sfpo_step_is_the_plain_computation(make_policy):
    # Algorithm 1 written out with transformers and AdamW alone: K = 2 passes of two mini-batches, reposition, one more pass.
    policy, twin = make_policy(optimizer={"learning_rate": 1e-3}), make_policy(optimizer={"learning_rate": 1e-3})
    batch = make_batch(policy)
    make_update_rule("sfpo", num_fast_steps=2, alpha=0.8).step(policy, batch)

    model = twin.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    old = batch.old.logprobs.split(batch.lengths)

    def one_pass() -> None:
        for rows in ([0, 1], [2, 3]):
            losses = []
            for row in rows:
                ratio = (by_hand(model, row) - old[row]).exp()
                advantage = batch.advantages[row]
                losses.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean())
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    start = [p.detach().clone() for p in model.parameters()]
    one_pass()
    one_pass()
    with torch.no_grad():
        for parameter, at_start in zip(model.parameters(), start, strict=True):
            parameter.copy_(at_start + 0.8 * (parameter - at_start))
    one_pass()
    for ours, plain in zip(policy.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)


# Two prompts of 3 and 2 tokens with completions of 2 + 4 and 1 + 3: budgets that cut them into micro-batches of 1, 2 and 4.
@pytest.mark.parametrize("name", ["grpo", "grpo_token_mean", "grpo_kl", "dapo", "dr_grpo", "gspo"])
def test_the_micro_batch_budget_changes_no_gradient(make_policy, params, name):
    gradients = []
    for budget, rows in ((1, 1), (9, 2), (1000, 4)):
        policy = make_policy(params.objectives[name], mini_batch_prompts=2, micro_batch_tokens=budget)
        batch = make_batch(policy)
        # Off policy, so that ratios differ from 1 and some clip.
        shifted = batch.old.logprobs + torch.linspace(-0.5, 0.5, 10, dtype=torch.float64)
        batch = batch.with_old(OldPolicy(shifted, batch.old.entropy))
        assert {len(micro.rows) for micro in micro_batches(PROMPTS, COMPLETIONS, budget, policy.device)} == {rows}
        policy.descend(batch, lambda policy=policy: gradients.append([p.grad.clone() for p in policy.parameters()]))
    assert max(gradient.abs().max() for gradient in gradients[0]) > 1e-3
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_metrics_of_the_first_update_are_on_policy(make_policy):
    policy = make_policy(mini_batch_prompts=2)
    metrics = policy.descend(make_batch(policy)).metrics
    # Ratios are 1 before the first optimizer step; the sequence mean of -A is -(1 - 1 + 0.5 - 0.5)/4 = 0.
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-9) and metrics["clip_fraction"] == 0.0
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-9) and metrics["grad_norm"] > 0


def test_the_learning_rate_rises_and_stays(make_policy):
    policy = make_policy(optimizer={"learning_rate": 1.0, "warmup_steps": 4})
    assert [policy.set_learning_rate(step) for step in (1, 2, 4, 5, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert make_policy(optimizer={"learning_rate": 1.0}).set_learning_rate(1) == 1.0


@pytest.mark.parametrize(("advantages", "rows"), [([0.0, 0.0, 0.5, -0.5], [2, 3]), ([0.0] * 4, [])])
def test_leaving_out_completions_without_advantage_changes_no_gradient(make_policy, params, advantages, rows):
    # An entropy coefficient this small keeps every completion in and moves nothing that float64 could show at 1e-10.
    every_row = params.objectives["grpo"].model_copy(update={"entropy_coefficient": 1e-300})
    some, all_of_them = make_policy(), make_policy(every_row)
    batch = dataclasses.replace(make_batch(some), advantages=torch.tensor(advantages))
    mini = next(batch.mini_batches(2))
    assert rows_with_gradient(some.objective, mini) == rows and rows_with_gradient(every_row, mini) == [0, 1, 2, 3]
    for policy in (some, all_of_them):
        policy.descend(make_batch(policy))  # moments that go on moving the weights, also where the next gradient is 0
    losses = [policy.descend(batch).metrics["loss"] for policy in (some, all_of_them)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for one, other in zip(some.parameters(), all_of_them.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_the_passes_of_a_step_share_their_micro_batches(make_policy):
    policy = make_policy()
    batch = make_batch(policy)
    cut, calls = policy._micro_batches, []
    policy._micro_batches = lambda *arguments: calls.append(arguments[2]) or cut(*arguments)
    make_update_rule("sfpo", num_fast_steps=2).step(policy, batch)
    assert calls == [[0, 1], [0, 1]]  # three passes over two mini-batches of two rows
    make_update_rule("gxpo").step(policy, batch)  # its three passes are over one mini-batch after the other
    assert len(calls) == 4
    # Another batch of the same completions: the first has no gradient now.
    policy.descend(dataclasses.replace(batch, advantages=torch.tensor([0.0, 1.0, 1.0, -1.0])))
    assert calls[4:] == [[1], [0, 1]]


def test_the_learning_rate_scale_multiplies_every_rate(checkpoint, params):
    train, execution = params.suites["tiny"].train, params.suites["tiny"].execution
    scaled = Policy(checkpoint, params.objectives["grpo"], train, execution, 32, learning_rate_scale=3.4)
    assert scaled.set_learning_rate(1) == pytest.approx(3.4 * train.optimizer.learning_rate)
    assert scaled.optimizer.param_groups[0]["lr"] == scaled.set_learning_rate(1)


def test_gradients_are_shown_before_each_optimizer_step(make_policy):
    policy = make_policy(optimizer={"max_grad_norm": 1e-6})
    norms = []

    def observe() -> None:
        norms.append(torch.stack([p.grad.norm() for p in policy.parameters()]).norm().item())

    metrics = policy.descend(make_batch(policy), observe).metrics
    # Two mini-batches, two steps; the norms are those of before the clipping.
    assert len(norms) == 2 and sum(norms) / 2 == pytest.approx(metrics["grad_norm"]) and min(norms) > 1e-3


def test_a_gxpo_step_takes_three_passes_and_an_sfpo_step_with_restored_moments_runs_on_the_real_policy(make_policy):
    policy = make_policy()
    assert make_update_rule("gxpo").step(policy, make_batch(policy)).backward_passes == 3
    before = {key: value.clone() for key, value in policy.optimizer.state[policy.parameters()[0]].items()}
    make_update_rule("lookahead", optimizer_state="restore").step(policy, make_batch(policy))
    after = policy.optimizer.state[policy.parameters()[0]]
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_sampler_correction_reaches_the_loss(make_policy, params):
    corrected = params.objectives["grpo"].model_copy(update={"sampler_correction_cap": 2.0})
    policy, plain = make_policy(corrected), make_policy()
    batch = make_batch(policy)
    # A sampler that gave every token half the policy's probability doubles every token's loss, and so its gradient.
    halved = dataclasses.replace(batch, sampler_logprobs=batch.old.logprobs - torch.log(torch.tensor(2.0)))
    mini, half = next(batch.mini_batches(1)), next(halved.mini_batches(1))
    doubled, given = policy.descend(half).metrics, plain.descend(mini).metrics
    assert doubled["grad_norm"] == pytest.approx(2 * given["grad_norm"], rel=1e-9)


def test_offloading_without_torchrun_is_refused(checkpoint, params):
    execution = params.suites["tiny"].execution.model_copy(update={"offload_to_host": True})
    with pytest.raises(ValueError, match=r"execution\.offload_to_host = true needs sharded weights: start the job"):
        Policy(checkpoint, params.objectives["grpo"], params.suites["tiny"].train, execution, 32)


def test_an_update_that_is_not_finite_is_skipped_counted_and_in_the_end_stops_the_run(make_policy):
    policy = make_policy(max_skipped_updates=3)
    good = make_batch(policy)
    poisoned = dataclasses.replace(good, advantages=torch.tensor([1.0, -1.0, float("nan"), -0.5]))
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    # Mini-batch 2 of 2 is poisoned: one is taken, one skipped; the next good one starts the count again.
    assert policy.descend(poisoned).metrics["skipped"] == 1
    assert not all(torch.equal(one, other) for one, other in zip(before, policy.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in policy.parameters())
    assert policy.descend(good).metrics["skipped"] == 0 and policy.skipped_in_a_row == 0
    bad = next(itertools.islice(poisoned.mini_batches(1), 1, None))
    policy.descend(bad)
    policy.descend(bad)
    with pytest.raises(NonFiniteUpdates, match=r"3 mini-batches in a row .* \(max_skipped_updates = 3\)"):
        policy.descend(bad)


@pytest.mark.parametrize("rule", ["grpo", "sfpo"])
def test_old_logprobs_out_of_the_first_pass_are_those_of_a_pass_of_their_own(make_policy, rule):
    # One mini-batch: its first forward pass sees the weights that sampled. The third completion has no advantage and takes no
    # part in the update, but in the old log-probs and the entropy.
    scored, lazy = make_policy(mini_batch_prompts=2), make_policy(mini_batch_prompts=2)
    batch = dataclasses.replace(make_batch(scored), advantages=torch.tensor([1.0, -1.0, 0.0, -0.5]))
    without = dataclasses.replace(batch, old=None)
    reports = [make_update_rule(rule).step(policy, given) for policy, given in ((scored, batch), (lazy, without))]
    assert reports[0].old is batch.old and without.old is None
    torch.testing.assert_close(reports[1].old.logprobs, batch.old.logprobs.float(), rtol=0, atol=1e-6)
    assert reports[1].old.entropy == pytest.approx(batch.old.entropy, abs=1e-6)
    for one, other in zip(scored.parameters(), lazy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"4 completions in mini-batches of 2: such a batch needs its old log-probs"):
        make_policy(mini_batch_prompts=1).descend(without)
