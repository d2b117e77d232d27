"""A small GRPOTrainer on a CPU, for tests; as a script, one of two processes that compare SlowFastCallback with by hand."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

FAST_STEPS, GROUP, MAX_TOKENS = 2, 4, 12
ADAMW = {"lr": 1e-3, "weight_decay": 0.01, "eps": 1e-6}
"""eps over the default: a gradient that is rounding alone then moves no weight far."""
UPDATES_PER_PASS = 2
UPDATES_PER_STEP = (FAST_STEPS + 1) * UPDATES_PER_PASS


def share_of_even_words(completions, **_) -> list[float]:
    """A reward that a policy with random weights gets in every shade."""
    words = [text.replace("t", " ").split() for text in completions]
    return [sum(word.isdigit() and int(word) % 2 == 0 for word in one) / max(1, len(one)) for one in words]


def small_trainer(checkpoint: Path, folder: Path, *callbacks, steps: int = 2, model=None, **settings) -> GRPOTrainer:
    """4 prompts x 4 completions a batch; 4 micro-batches of 4, accumulated by 2: two updates a pass."""
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    defaults = {
        "output_dir": str(folder),
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
        reward_funcs=share_of_even_words,
        args=GRPOConfig(**{**defaults, **settings}),
        train_dataset=Dataset.from_list([{"prompt": f"t{row} t{row + 1}"} for row in range(20)]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(checkpoint),
        optimizers=(torch.optim.AdamW(trainable, **ADAMW), None),
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer


class ByHand(TrainerCallback):
    """SFPO without SlowFast: a copy before the first pass, start + alpha (theta - start) before the last."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def on_step_begin(self, args, state, control, optimizer, **_):
        place = state.global_step % UPDATES_PER_STEP
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        if place == 0:
            self.start = [weight.detach().clone() for weight in weights]
        if place == FAST_STEPS * UPDATES_PER_PASS:
            with torch.no_grad():
                for weight, at_start in zip(weights, self.start, strict=True):
                    weight.lerp_(at_start, 1.0 - self.alpha)


def ends(trainer: GRPOTrainer) -> list[torch.Tensor]:
    """The weights after training."""
    trainer.train()
    return [weight.detach().clone() for weight in trainer.model.parameters()]


def main(checkpoint: Path, folder: Path) -> None:
    from sfpo.integrations.trl import SlowFastCallback

    start = [weight.clone() for weight in AutoModelForCausalLM.from_pretrained(checkpoint).parameters()]
    ours = ends(small_trainer(checkpoint, folder, SlowFastCallback(FAST_STEPS, 0.8)))
    by_hand = ends(small_trainer(checkpoint, folder, ByHand(0.8)))
    assert dist.get_world_size() == 2
    for one, other, at_start in zip(ours, by_hand, start, strict=True):
        assert torch.equal(one, other) and not torch.equal(one, at_start)
        copies = [torch.empty_like(one) for _ in range(2)]
        dist.all_gather(copies, one)
        assert torch.equal(*copies)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
