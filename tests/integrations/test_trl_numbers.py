"""SFPO as a callback of TRL's trainer gives the numbers of our own trainer on the same rollouts."""

import pytest
import torch

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import Objective
from sfpo.trainer.policy import Policy
from sfpo.types import OldPolicy, TrainBatch

pytest.importorskip("trl", reason="TRL is not installed (pip install 'sfpo[trl]')")

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from sfpo.integrations.trl import SlowFastCallback

FAST_STEPS, GROUP, MAX_TOKENS = 2, 4, 12
ADAMW = {"lr": 1e-4, "weight_decay": 0.01, "eps": 1e-6}
"""eps over the default: a gradient that is rounding alone then moves no weight far."""
ROLLOUTS, ROWS_PER_UPDATE = 16, 8  # 4 prompts x 4 completions; 4 micro-batches of 4, accumulated by 2: two updates a pass
UPDATES_PER_STEP = (FAST_STEPS + 1) * ROLLOUTS // ROWS_PER_UPDATE
TRIGGER = {"form": "paper", "window": 2, "threshold": 0.5}
"""Of two entropies each lies one deviation from the mean: fires after step 2, for step 3."""


class Recorder(TrainerCallback):
    """Copies each batch of rollouts that TRL trains on, once, as our batches hold them."""

    trainer: GRPOTrainer

    def __init__(self) -> None:
        self.batches, self.seen = [], None

    def on_step_end(self, args, state, control, **_):
        buffer = self.trainer._buffered_inputs
        if buffer is not self.seen:
            self.seen = buffer
            prompts, completions = (
                [
                    ids[mask.bool()].tolist()
                    for part in buffer
                    for ids, mask in zip(part[f"{name}_ids"], part[f"{name}_mask"], strict=True)
                ]
                for name in ("prompt", "completion")
            )
            self.batches.append((prompts, completions, torch.cat([part["advantages"] for part in buffer])))


def share_of_even_tokens(completion_ids, **_) -> list[float]:
    """A reward that a policy with random weights gets in every shade."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def make_trainer(checkpoint, tmp_path):
    def make(callback: SlowFastCallback | None, steps: int = 2, **settings) -> GRPOTrainer:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
        defaults = {
            "output_dir": str(tmp_path / "trl"),
            "per_device_train_batch_size": 4,
            "steps_per_generation": 4,
            "gradient_accumulation_steps": 2,
            "num_generations": GROUP,
            "num_iterations": FAST_STEPS + 1,
            "max_steps": steps * UPDATES_PER_STEP,
            "max_completion_length": MAX_TOKENS,
            "loss_type": "grpo",
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "report_to": "none",
            "disable_tqdm": True,
        }
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=share_of_even_tokens,
            args=GRPOConfig(**{**defaults, **settings}),
            train_dataset=Dataset.from_list([{"prompt": f"{row}+{row}=?"} for row in range(20)]),
            processing_class=AutoTokenizer.from_pretrained(checkpoint),
            optimizers=(optimizer, None),
        )
        if callback:
            trainer.add_callback(callback)
        return trainer

    return make


@pytest.mark.parametrize(
    ("steps", "settings", "fired_at"),
    [(2, {"alpha": 0.8}, None), (2, {"alpha": 0.0}, None), (3, {"alpha": 0.8, "entropy_trigger": TRIGGER}, 3)],
    ids=["sfpo", "alpha 0", "trigger"],
)
def test_trl_with_the_callback_is_our_trainer(make_trainer, checkpoint, params, steps, settings, fired_at):
    recorder, callback = Recorder(), SlowFastCallback(num_fast_steps=FAST_STEPS, **settings)
    trainer = recorder.trainer = make_trainer(callback, steps)
    trainer.add_callback(recorder)
    trainer.train()
    assert len(recorder.batches) == steps and callback.trigger_fired_at == fired_at

    train, execution = params.suites["tiny"].train, params.suites["tiny"].execution
    optimizer = {"learning_rate": ADAMW["lr"], "weight_decay": ADAMW["weight_decay"], "eps": ADAMW["eps"], "max_grad_norm": 1.0}
    optimizer = train.optimizer.model_copy(update=optimizer)
    # TRL shuffles the rollouts of a batch: mini-batches are cut by rows here, as if each were a group.
    changes = {"optimizer": optimizer, "prompts_per_step": ROLLOUTS, "mini_batch_prompts": ROWS_PER_UPDATE}
    policy = Policy(checkpoint, Objective(), train.model_copy(update=changes), execution, MAX_TOKENS)
    start = [parameter.detach().clone() for parameter in policy.parameters()]
    rule = make_update_rule("sfpo", num_fast_steps=FAST_STEPS, **settings)
    passes = []
    for prompts, completions, advantages in recorder.batches:
        old_logprobs, entropy = policy.score(prompts, completions)
        batch = TrainBatch(prompts, completions, advantages, OldPolicy(old_logprobs, entropy.mean().item()), group_size=1)
        passes.append(len(rule.step(policy, batch).updates))
    assert passes == ([1, 1] if settings["alpha"] == 0.0 else [3, 3, 1][:steps])
    moved = max((one - other).abs().max().item() for one, other in zip(policy.parameters(), start, strict=True))
    assert moved > 3e-4  # the tolerance below is small beside it
    for ours, theirs in zip(policy.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
