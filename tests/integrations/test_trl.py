"""SFPO as a callback of TRL's trainer: the numbers of our own trainer, saves and resumes between steps, refused settings."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.config import Objective
from sfpo.trainer.policy import Policy
from sfpo.types import TrainBatch

pytest.importorskip("trl", reason="TRL is not installed (pip install 'sfpo[trl]')")

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from sfpo.integrations.trl import SlowFastCallback

PROJECT = Path(__file__).parent.parent.parent
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
        batch = TrainBatch(prompts, completions, advantages, old_logprobs, entropy.mean().item(), group_size=1)
        passes.append(len(rule.step(policy, batch).updates))
    assert passes == ([1, 1] if settings["alpha"] == 0.0 else [3, 3, 1][:steps])
    moved = max((one - other).abs().max().item() for one, other in zip(policy.parameters(), start, strict=True))
    assert moved > 3e-4  # the tolerance below is small beside it
    for ours, theirs in zip(policy.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def test_the_trigger_sees_the_entropy_of_the_first_pass(make_trainer):
    # Steps of 6 updates, 2 a pass: TRL's log of updates 1 and 2, then 7 and 8. A window of 9 never fires here.
    callback = SlowFastCallback(FAST_STEPS, 0.8, {"window": 9})
    trainer = make_trainer(callback)
    trainer.train()
    logged = {record["step"]: record["entropy"] for record in trainer.state.log_history if "entropy" in record}
    expected = [(logged[first] + logged[first + 1]) / 2 for first in (1, 7)]
    assert callback.trigger.state_dict()["entropies"] == pytest.approx(expected, abs=1e-12)
    assert len(set(logged.values())) == 12  # entropies of other passes would tell


class Stop(TrainerCallback):
    """Asks for a stop at one event of one optimizer step."""

    def __init__(self, event: str, update: int) -> None:
        def stop(args, state, control, **_):
            control.should_training_stop |= state.global_step == update

        setattr(self, event, stop)


def test_a_stop_asked_for_inside_a_step_waits_for_its_end(make_trainer, caplog):
    trainer = make_trainer(None)
    trainer.add_callback(Stop("on_step_end", 4))
    trainer.add_callback(SlowFastCallback(FAST_STEPS))
    trainer.train()
    assert trainer.state.global_step == 6 and "inside a step of SFPO" not in caplog.text


def test_a_stop_that_cannot_wait_is_told(make_trainer, caplog):
    trainer = make_trainer(SlowFastCallback(FAST_STEPS))
    trainer.add_callback(Stop("on_log", 4))
    trainer.train()
    assert trainer.state.global_step == 4 and "training stopped inside a step of SFPO" in caplog.text


def test_a_save_waits_for_the_end_of_the_step_and_a_resume_changes_nothing(make_trainer, tmp_path):
    # Steps of 6 updates. Saves asked for at updates 4, 8, 12 and 16 come at 6, 12 and 18. The trigger fires for step 3, after
    # the resume: entropies seen before it count.
    saves = {"save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": True}
    whole = make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), 3, **saves)
    whole.train()
    folders = sorted(path.name for path in (tmp_path / "trl").glob("checkpoint-*"))
    assert folders == ["checkpoint-12", "checkpoint-18", "checkpoint-6"]
    resumed = make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), 3, **saves)
    resumed.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-6"))
    live = next(one for one in resumed.callback_handler.callbacks if isinstance(one, SlowFastCallback))
    assert live.trigger_fired_at == 3
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_resume_that_would_forget_the_triggers_state_is_refused(make_trainer, tmp_path):
    make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), 1, save_strategy="steps", save_steps=6).train()
    again = make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), 2)
    with pytest.raises(ValueError, match=r"^restore_callback_states_from_checkpoint = False"):
        again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-6"))


def test_a_checkpoint_from_inside_a_step_is_refused(make_trainer, tmp_path):
    make_trainer(None, 1, save_strategy="steps", save_steps=4).train()  # a trainer without the callback saves anywhere
    again = make_trainer(SlowFastCallback(FAST_STEPS), 2)
    with pytest.raises(ValueError, match=r"^resume_from_checkpoint at optimizer step 4: .* multiple of 6"):
        again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-4"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_iterations": 2}, r"num_iterations = 2: .* set GRPOConfig\(num_iterations=3\)"),
        ({"gradient_accumulation_steps": 3}, r"gradient_accumulation_steps = 3: must divide steps_per_generation \(4\)"),
        ({"max_steps": 8}, "max_steps = 8: one step of SFPO is 6 optimizer steps"),
        ({"logging_steps": 2}, "logging_steps = 2, .* set logging_steps=1"),
    ],
)
def test_settings_of_the_trainer_that_do_not_fit_are_refused(make_trainer, settings, told):
    with pytest.raises(ValueError, match="^" + told):
        make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), **settings).train()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_fast_steps": 0}, "num_fast_steps = 0"),
        ({"alpha": -0.1}, "alpha = -0.1"),
        ({"entropy_trigger": {"omega": 3}}, "entropy_trigger = "),
    ],
)
def test_impossible_settings_are_named(settings, told):
    with pytest.raises(ValueError, match="^" + told):
        SlowFastCallback(**settings)


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    command = [sys.executable, "-m", "examples.trl_sfpo", "--folder", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT)
    rewards = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(rewards) == 4 and all(0.0 <= reward <= 1.0 for reward in rewards) and sum(rewards) > 0.0
