"""A program of test_sharding: steps of a rule on fixed rollouts, alone or under torchrun; and what ranks send each other.

``fixed_rollouts.py <checkpoint> <out>``: for each case losses, gradient norms and entropies go to <out>/<case>.json, the
weights to <out>/<case>.safetensors.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.algorithms.weights import reposition_, snapshot
from sfpo.config import load_params
from sfpo.manifest import read_manifest
from sfpo.ranks import Ranks, init_distributed
from sfpo.rewards.math_answer import Grade
from sfpo.seeding import rng
from sfpo.trainer.background import Background
from sfpo.trainer.batching import Graded, gather_graded
from sfpo.trainer.checkpoint import checksum, save_state
from sfpo.trainer.policy import Policy
from sfpo.types import Completion, OldPolicy, TrainBatch

GROUPS, GROUP = 6, 4
STEPS = 3
FIRST_STEP_ALONE = ("gxpo", "bfloat16", "lora_bfloat16")
"""GXPO divides gradients by each other, and bfloat16 keeps 8 bits: rounding grows fast from update to update."""
CASES = {
    # Name: rule and its settings, objective, settings of training and of its execution.
    "sfpo": ({"rule": "sfpo"}, "grpo", {}, {}),
    "first_pass": ({"rule": "sfpo", "optimizer_state": "restore"}, "dapo", {"mini_batch_prompts": GROUPS}, {}),
    "few_groups": (
        {"rule": "sfpo"},
        "gspo",
        {"mini_batch_prompts": 1},
        {"micro_batch_tokens": 24, "gradient_checkpointing": True, "snapshot_on_host": True},
    ),
    "gxpo": ({"rule": "gxpo"}, "dr_grpo", {}, {}),
    "bfloat16": ({"rule": "grpo"}, "grpo", {"policy_dtype": "bfloat16"}, {}),
    "lora": ({"rule": "sfpo"}, "grpo", {"lora": {"rank": 4, "alpha": 8.0}}, {"gradient_checkpointing": True}),
    "lora_bfloat16": ({"rule": "grpo"}, "grpo", {"lora": {"rank": 4, "alpha": 8.0}, "policy_dtype": "bfloat16"}, {}),
}


def fixed_batch(policy: Policy, step: int) -> TrainBatch:
    """Completions of 3 to 20 tokens; the third group teaches nothing."""
    draw = rng("fixed rollouts", step)
    prompts = [[draw.randrange(5, 200) for _ in range(draw.randrange(4, 9))] for _ in range(GROUPS)]
    prompt_ids = [prompt for prompt in prompts for _ in range(GROUP)]
    completion_ids = [[draw.randrange(5, 200) for _ in range(draw.randrange(3, 21))] for _ in prompt_ids]
    advantages = torch.tensor([0.0 if row // GROUP == 2 else draw.gauss(0, 1) for row in range(len(prompt_ids))])
    batch = TrainBatch(prompt_ids, completion_ids, advantages, None, group_size=GROUP)
    if policy.train.mini_batch_prompts == GROUPS:
        return batch
    logprobs, entropy = policy.score(prompt_ids, completion_ids)
    return batch.with_old(OldPolicy(logprobs, entropy.mean().item()))


def run(case: str, checkpoint: Path, out: Path, ranks: Ranks) -> None:
    arm, objective, changes, computing = CASES[case]
    params = load_params()
    tiny = params.suites["tiny"]
    execution = tiny.execution.model_copy(update={"micro_batch_tokens": 100, **computing})
    # Sharp clipping of gradients, and steps large enough for ratios to leave the clip range.
    optimizer = {"learning_rate": 3e-4, "max_grad_norm": 0.1}
    train = tiny.train.model_dump()
    train |= {"prompts_per_step": GROUPS, "mini_batch_prompts": 2, **changes}
    train["optimizer"] |= optimizer
    policy = Policy(checkpoint, params.objectives[objective], tiny.train.model_validate(train), execution, 20, ranks=ranks)
    settings = {"name" if key == "rule" else key: value for key, value in arm.items()}
    rule = make_update_rule(execution=execution.model_dump(), **settings)
    seen = []
    for step in range(1 if case in FIRST_STEP_ALONE else STEPS):
        batch = fixed_batch(policy, step)
        report = rule.step(policy, batch)
        seen.append({"updates": report.updates, "entropy": report.old.entropy})
    weights = {name: weight.clone() for name, weight in policy.weights()}
    if ranks.first:
        (out / f"{case}.json").write_text(json.dumps(seen))
        save_file(weights, out / f"{case}.safetensors")


def repositions_shards_in_silence(checkpoint: Path, ranks: Ranks) -> None:
    params = load_params()
    tiny = params.suites["tiny"]
    policy = Policy(checkpoint, params.objectives["grpo"], tiny.train, tiny.execution, 20, ranks=ranks)
    with CommDebugMode() as communication:
        start = snapshot(policy.parameters())
        reposition_(policy.parameters(), start, 0.8)
    assert communication.get_total_counts() == 0
    assert all(isinstance(parameter, DTensor) for parameter in policy.parameters())
    held, whole = (sum(tensor.numel() for tensor in tensors) for tensors in (start, policy.parameters()))
    assert held <= whole / ranks.size * 1.1  # shards of a few rows are uneven


def gathers_tensors_of_any_length(ranks: Ranks) -> None:
    parts = ranks.gather_tensors(torch.arange(3 * ranks.rank, dtype=torch.int32), torch.ones(2))  # none of the first rank
    assert [(one.tolist(), two.tolist()) for one, two in parts] == [
        (list(range(3 * rank)), [1, 1]) for rank in range(ranks.size)
    ]

    def of_rank(rank: int) -> dict[int, list[Graded]]:
        """Two prompts of the others, with as many completions as the rank's number; none of the first."""
        texts, values = ("", "\u4e2d \u03c0 = 3", "\ud800"), (-0.1, float("-inf"), -1e-300)
        grades = [Grade(correct=True, boxed=True, timed_out=False), Grade(correct=False, boxed=False, timed_out=True)]
        completions = [
            Completion([rank, sample, 150_000][:sample], list(values[:sample]), texts[sample % 3], truncated=sample % 2 == 0)
            for sample in range(rank)
        ]
        graded = [(one, grades[len(one.token_ids) % 2]) for one in completions]
        return {2 * rank: graded, 2 * rank + 1: graded[::-1]} if rank else {}

    whole = {place: graded for rank in range(ranks.size) for place, graded in of_rank(rank).items()}
    assert gather_graded(ranks, of_rank(ranks.rank)) == whole


def saves_with_checksums_of_all_ranks(checkpoint: Path, folder: Path, ranks: Ranks) -> None:
    params = load_params()
    tiny = params.suites["tiny"]
    policy = Policy(checkpoint, params.objectives["grpo"], tiny.train, tiny.execution, 20, ranks=ranks)
    save_state(policy, folder, 1, {}, Background(threaded=False))
    ranks.gather(None)  # the first one has written the manifest
    files = read_manifest(folder / "step_000001", checksum)["files"]
    assert len([name for name in files if name.startswith("shard-")]) == ranks.size and "trainer.json" in files


if __name__ == "__main__":
    checkpoint, out = map(Path, sys.argv[1:])
    ranks = init_distributed()
    for case in CASES:
        run(case, checkpoint, out, ranks)
    if ranks.mesh is not None:
        repositions_shards_in_silence(checkpoint, ranks)
        gathers_tensors_of_any_length(ranks)
        saves_with_checksums_of_all_ranks(checkpoint, out / "states", ranks)
