"""The losses, their gradients and the advantages are those of TRL's GRPOTrainer (1.16), on the same policy and rollouts.

TRL's own code runs: a real trainer on a small policy, its scoring of given rollouts, its loss. Ours gets the sequences without
padding. TRL's KL is toward a reference model, ours toward the policy that made the rollouts: here the two are one, since the
trainer's model is moved only after it has scored the rollouts, and the reference is the checkpoint that it came from. TRL
multiplies the KL by the importance ratio by default (``use_bias_correction_kl``); that is off, since ours does not.
"""

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from sfpo.algorithms.advantages import group_advantages
from sfpo.algorithms.objectives import policy_loss, token_weights
from sfpo.config import Objective

pytest.importorskip("trl", reason="TRL is not installed (pip install 'sfpo[trl]')")

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

GROUP, MAX_TOKENS, TOLERANCE = 4, 8, 1e-6
PROMPTS = [prompt for prompt in ([5, 6, 7], [8, 9, 10, 11, 12], [13]) for _ in range(GROUP)]
COMPLETIONS = [[20 + row + place for place in range(1 + row * 5 % 7)] for row in range(len(PROMPTS))]  # 1 to 7 tokens
LENGTHS = torch.tensor([len(completion) for completion in COMPLETIONS])
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.1, 1.0, 0.0, 0.5], [0.1, 0.1, 0.1, 0.1]])  # the last group teaches nothing


@dataclasses.dataclass
class Scored:
    """One batch in TRL's hands, and what our loss needs beside it. N tokens."""

    trainer: GRPOTrainer
    inputs: dict[str, Any]
    old_logprobs: torch.Tensor
    """[N] of the policy before it moved."""
    sampler_logprobs: torch.Tensor
    """[N], off by some noise."""

    @property
    def model(self) -> torch.nn.Module:
        return self.trainer.model

    def our_loss(self, objective: Objective, rows: slice = slice(None)):
        """(loss, statistics) on a mini-batch of these rows."""
        logprobs, entropy = score(self.model, rows)
        tokens = torch.zeros(len(COMPLETIONS), dtype=torch.bool)
        tokens[rows] = True
        tokens = tokens.repeat_interleave(LENGTHS)
        weights = token_weights(objective.aggregation, LENGTHS[rows], MAX_TOKENS).float()
        advantages = group_advantages(REWARDS, objective.scale_by_std).flatten()[rows]
        return policy_loss(
            objective,
            logprobs,
            self.old_logprobs[tokens],
            entropy,
            advantages,
            LENGTHS[rows],
            weights,
            sampler_logprobs=self.sampler_logprobs[tokens],
        )

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        self.model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in self.model.parameters()]


def score(model, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probs, entropy) of the completions' tokens end to end, one sequence at a time, without padding."""
    logprobs, entropy = [], []
    for prompt, completion in zip(PROMPTS[rows], COMPLETIONS[rows], strict=True):
        log_probs = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logprobs.append(log_probs.gather(-1, torch.tensor(completion)[:, None])[:, 0])
        entropy.append(-(log_probs.exp() * log_probs).sum(-1))
    return torch.cat(logprobs), torch.cat(entropy)


@pytest.fixture
def scored(checkpoint, tmp_path):
    """A function of TRL's settings: the rollouts as TRL's trainer scores them, after which its policy has moved."""

    def build(sampler_correction: bool = False, steps_per_generation: int = 1, **settings) -> Scored:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).train()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            old_logprobs, _ = score(model)
        sampler_logprobs = old_logprobs + 0.5 * torch.randn(len(old_logprobs), generator=generator)

        def rollouts(prompts, trainer):
            logprobs = [part.tolist() for part in sampler_logprobs.split(LENGTHS.tolist())]
            return {
                "prompt_ids": PROMPTS,
                "completion_ids": COMPLETIONS,
                "logprobs": logprobs,
                "score": REWARDS.flatten().tolist(),
            }

        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(PROMPTS) // steps_per_generation,
            steps_per_generation=steps_per_generation,
            num_generations=GROUP,
            num_iterations=2,  # a second pass: TRL keeps the old log-probs
            max_completion_length=MAX_TOKENS,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            use_bias_correction_kl=False,
            report_to="none",
            **settings,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda score, **_: score,
            args=args,
            train_dataset=Dataset.from_list([{"prompt": str(row)} for row in range(len(PROMPTS))]),
            processing_class=AutoTokenizer.from_pretrained(checkpoint),
            rollout_func=rollouts,
        )
        trainer.current_gradient_accumulation_steps = 1  # as its training loop sets it
        if sampler_correction:  # TRL corrects for vLLM alone, which is not needed for given rollouts: no weights to sync
            trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step
        inputs = trainer._generate_and_score_completions([{"prompt": str(row)} for row in range(len(PROMPTS))])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return Scored(trainer, inputs, old_logprobs, sampler_logprobs)

    return build


OBJECTIVES = {
    "grpo": ({"loss_type": "grpo"}, Objective()),
    "token mean": ({"loss_type": "bnpo"}, Objective(aggregation="token_mean")),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, Objective(aggregation="token_mean", clip=(0.2, 0.28))),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, Objective(aggregation="constant", scale_by_std=False)),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04},
        Objective(ratio="sequence", clip=(0.03, 0.04)),
    ),
}
CORRECTION = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.5}


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("kl", [0.0, 0.05])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_are_trls(scored, name, kl, cap):
    settings, objective = OBJECTIVES[name]
    objective = objective.model_copy(update={"kl_coefficient": kl, "sampler_correction_cap": cap})
    batch = scored(beta=kl, sampler_correction=cap is not None, **settings, **(CORRECTION if cap else {}))
    trl_loss = batch.trainer._compute_loss(batch.model, batch.inputs)
    trl_gradients = batch.gradients(trl_loss)
    loss, statistics = batch.our_loss(objective)
    gradients = batch.gradients(loss)
    assert loss.item() == pytest.approx(trl_loss.item(), abs=TOLERANCE)
    for ours, theirs in zip(gradients, trl_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    # The comparison says something: ratios far from 1, the clip binds for some, and gradients far over the tolerance.
    share = statistics["clipped"].float().mean().item()
    assert 0.05 < share < 0.95 and max(gradient.abs().max().item() for gradient in gradients) > 1e-3


def test_each_part_of_the_loss_moves_it(scored):
    # What the test above compares would agree as well if a setting did nothing on both sides.
    batch = scored()
    variants = [objective for _, objective in OBJECTIVES.values()]
    variants += [Objective(kl_coefficient=0.05), Objective(sampler_correction_cap=1.5)]
    losses = sorted(batch.our_loss(objective)[0].item() for objective in variants)
    assert all(more - less > 100 * TOLERANCE for less, more in itertools.pairwise(losses))


@pytest.mark.parametrize(("loss_type", "own_tokens"), [("bnpo", True), ("dapo", False)])
def test_on_a_mini_batch_token_mean_is_bnpos_while_dapo_divides_by_the_whole_batchs_mean(scored, loss_type, own_tokens):
    # Two optimizer steps a batch: TRL's "dapo" divides each sum by half of the whole batch's tokens, ours by its own tokens.
    batch = scored(loss_type=loss_type, steps_per_generation=2)
    for rows in (slice(0, 6), slice(6, 12)):
        inputs = {key: value[rows] if value.ndim else value for key, value in batch.inputs.items()}
        loss, _ = batch.our_loss(Objective(aggregation="token_mean"), rows)
        factor = 1.0 if own_tokens else (LENGTHS[rows].sum() / (LENGTHS.sum() / 2)).item()
        assert own_tokens or factor != 1.0
        assert batch.trainer._compute_loss(batch.model, inputs).item() == pytest.approx(loss.item() * factor, abs=TOLERANCE)


@pytest.mark.parametrize(("scale_rewards", "scale_by_std"), [("group", True), ("none", False)])
def test_advantages_are_trls(scored, scale_rewards, scale_by_std):
    advantages = scored(scale_rewards=scale_rewards).inputs["advantages"]
    torch.testing.assert_close(group_advantages(REWARDS, scale_by_std).flatten(), advantages, rtol=0, atol=TOLERANCE)


def test_old_logprobs_and_entropy_are_trls(scored):
    batch = scored()
    theirs = batch.inputs["old_per_token_logps"][batch.inputs["completion_mask"].bool()]
    torch.testing.assert_close(batch.old_logprobs, theirs, rtol=0, atol=10 * TOLERANCE)
    batch.trainer._compute_loss(batch.model, batch.inputs)
    with torch.no_grad():
        _, entropy = score(batch.model)
    assert batch.trainer._metrics["train"]["entropy"][-1] == pytest.approx(entropy.mean().item(), abs=10 * TOLERANCE)
