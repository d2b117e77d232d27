"""Losses of fixed-seed updates, to the last digits that float32 keeps: a refactoring that changes numbers is seen here.

The numbers are this code's own, not worked out by hand; what is right is held by the other tests. Change them only together
with what is meant to change them, and say so.
"""

import pytest
import torch

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.seeding import rng
from sfpo.trainer.policy import Policy
from sfpo.types import OldPolicy, TrainBatch

GOLDEN = {
    "grpo": [-0.4890784, -0.6231659],
    "sfpo": [-0.4890784, -0.6231659, -0.6438162, -0.6465847, -0.6492724, -0.6494641, -0.6497955, -0.6497792],
}


def fixed_batch(policy: Policy) -> TrainBatch:
    """4 groups of 4 completions of 3 to 20 tokens."""
    draw = rng("golden")
    prompts = [[draw.randrange(5, 200) for _ in range(draw.randrange(4, 9))] for _ in range(4)]
    prompt_ids = [prompt for prompt in prompts for _ in range(4)]
    completion_ids = [[draw.randrange(5, 200) for _ in range(draw.randrange(3, 21))] for _ in prompt_ids]
    advantages = torch.tensor([draw.gauss(0, 1) for _ in prompt_ids])
    logprobs, entropy = policy.score(prompt_ids, completion_ids)
    return TrainBatch(prompt_ids, completion_ids, advantages, OldPolicy(logprobs, entropy.mean().item()), group_size=4)


@pytest.mark.parametrize("arm", ["grpo", "sfpo"])
def test_losses_of_two_steps(arm, checkpoint, params):
    changes = {"prompts_per_step": 4, "mini_batch_prompts": 2}
    optimizer = params.suites["tiny"].train.optimizer.model_copy(update={"learning_rate": 1e-4})
    train = params.suites["tiny"].train.model_copy(update={**changes, "optimizer": optimizer})
    policy = Policy(checkpoint, params.objectives["grpo"], train, params.suites["tiny"].execution, 64)
    batch = fixed_batch(policy)
    settings = params.arms[arm].rule_settings
    rule = make_update_rule(params.arms[arm].rule, **settings)
    losses = [update["loss"] for _ in range(2) for update in rule.step(policy, batch).updates]
    assert losses == pytest.approx(GOLDEN[arm], rel=1e-4)
