"""SFPO as a callback of TRL's trainer: by hand to the bit, saves and resumes between steps, refused settings. It needs TRL and
what TRL needs, not the suite (`make test-trl` runs it on the oldest TRL)."""

import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed (pip install 'sfpo[trl]')")

from packaging.version import Version
from small_trl import FAST_STEPS, ByHand, ends, small_trainer
from transformers import AutoModelForCausalLM, TrainerCallback

from sfpo.integrations.trl import SlowFastCallback

PROJECT = Path(__file__).parent.parent.parent
TRIGGER = {"form": "paper", "window": 2, "threshold": 0.5}
"""Of two entropies each lies one deviation from the mean: fires after step 2, for step 3."""
logs_entropy = pytest.mark.skipif(Version(version("trl")) < Version("0.20"), reason="this TRL logs no entropy")


@pytest.fixture
def make_trainer(small_checkpoint, tmp_path):
    def make(*callbacks, **settings):
        return small_trainer(small_checkpoint, tmp_path / "trl", *callbacks, **settings)

    return make


def assert_same(ones, others) -> None:
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


class Entropy(TrainerCallback):
    """Writes an entropy of our choice into the trainer's log, under the key of our choice."""

    def __init__(self, key: str | None, values=()) -> None:
        self.key, self.values = key, list(values)

    def on_log(self, args, state, control, logs, **_):
        state.log_history[-1].pop("entropy", None)
        if self.key:
            state.log_history[-1][self.key] = self.values[(state.global_step - 1) % len(self.values)]


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_two_steps_are_by_hand_to_the_bit(make_trainer, small_checkpoint, alpha):
    ours, by_hand = ends(make_trainer(SlowFastCallback(FAST_STEPS, alpha))), ends(make_trainer(ByHand(alpha)))
    assert_same(ours, by_hand)
    start = AutoModelForCausalLM.from_pretrained(small_checkpoint).parameters()
    assert max((one - at_start).abs().max().item() for one, at_start in zip(ours, start, strict=True)) > 1e-3


def test_alpha_1_is_trl_without_the_callback_and_alpha_0_is_one_pass(make_trainer):
    assert_same(ends(make_trainer(SlowFastCallback(FAST_STEPS, 1.0))), ends(make_trainer()))
    plain = {"num_iterations": 1, "max_steps": 2}  # the first step's one pass; then other rollouts follow
    one_step = ends(make_trainer(SlowFastCallback(FAST_STEPS, 0.0), steps=1))
    assert_same(one_step, ends(make_trainer(**plain)))


def test_gradient_accumulation_over_the_whole_batch(make_trainer, monkeypatch):
    # 4 micro-batches accumulated by 4: one update a pass, three a step.
    settings = {"gradient_accumulation_steps": 4, "max_steps": 2 * (FAST_STEPS + 1)}
    monkeypatch.setattr("small_trl.UPDATES_PER_PASS", 1)
    monkeypatch.setattr("small_trl.UPDATES_PER_STEP", FAST_STEPS + 1)
    assert_same(ends(make_trainer(SlowFastCallback(FAST_STEPS, 0.8), **settings)), ends(make_trainer(ByHand(0.8), **settings)))


def test_peft_moves_the_adapters_alone(make_trainer, small_checkpoint):
    peft = pytest.importorskip("peft")

    def adapted():
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(small_checkpoint)
        return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))

    trainer = make_trainer(SlowFastCallback(FAST_STEPS, 0.8), model=adapted())
    frozen = {name: weight.clone() for name, weight in trainer.model.named_parameters() if not weight.requires_grad}
    assert_same(ends(trainer), ends(make_trainer(ByHand(0.8), model=adapted())))
    now = dict(trainer.model.named_parameters())
    assert len(frozen) > 20 and all(torch.equal(weight, now[name]) for name, weight in frozen.items())


def test_two_processes_on_gloo(small_checkpoint, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(Path(__file__).parent / "small_trl.py"), str(small_checkpoint), str(tmp_path)]
    ranks = []
    for rank in ("0", "1"):
        own = {"RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
        ranks.append(subprocess.Popen(script, env={**os.environ, **address, **own}, stderr=subprocess.PIPE, text=True))
    try:
        faults = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "".join(faults)[-3000:]


@logs_entropy
def test_the_trigger_sees_the_entropy_of_the_first_pass(make_trainer):
    # Steps of 6 updates, 2 a pass: TRL's log of updates 1 and 2, then 7 and 8. A window of 9 never fires here.
    callback = SlowFastCallback(FAST_STEPS, 0.8, {"window": 9})
    trainer = make_trainer(callback)
    trainer.train()
    logged = {record["step"]: record["entropy"] for record in trainer.state.log_history if "entropy" in record}
    expected = [(logged[first] + logged[first + 1]) / 2 for first in (1, 7)]
    assert callback.trigger.state_dict()["entropies"] == pytest.approx(expected, abs=1e-12)
    assert len(set(logged.values())) == 12  # entropies of other passes would tell


@pytest.mark.parametrize("key", ["entropy", "entropy/mean"])
def test_the_entropy_of_trl_and_of_ms_swift(make_trainer, key):
    # Updates 1 to 6 log 1, 3, 0, ...: the first pass's mean is 2.
    callback = SlowFastCallback(FAST_STEPS, 0.8, {"window": 9})
    make_trainer(Entropy(key, [1.0, 3.0, 0.0, 0.0, 0.0, 0.0]), callback).train()
    assert callback.trigger.state_dict()["entropies"] == [2.0, 2.0]


def test_a_trainer_that_logs_no_entropy_is_told_after_the_first_pass(make_trainer):
    trainer = make_trainer(Entropy(None), SlowFastCallback(FAST_STEPS, 0.8, TRIGGER))
    with pytest.raises(RuntimeError, match=r"^no entropy in the log of optimizer steps 1 to 2 \(its keys: .*reward"):
        trainer.train()
    assert trainer.state.global_step == 2
    make_trainer(Entropy(None), SlowFastCallback(FAST_STEPS), steps=1).train()  # without a trigger none is needed


def test_the_callback_added_twice_is_refused(make_trainer):
    # Without the check 0.64 of the way would be kept.
    trainer = make_trainer(SlowFastCallback(FAST_STEPS), SlowFastCallback(FAST_STEPS))
    with pytest.raises(RuntimeError, match=r"another SlowFast is inside a step .*one SlowFastCallback"):
        trainer.train()
    assert trainer.state.global_step == 0


class Stop(TrainerCallback):
    """Asks for a stop at one event of one optimizer step."""

    def __init__(self, event: str, update: int) -> None:
        def stop(args, state, control, **_):
            control.should_training_stop |= state.global_step == update

        setattr(self, event, stop)


def test_a_stop_asked_for_inside_a_step_waits_for_its_end(make_trainer, caplog):
    trainer = make_trainer(Stop("on_step_end", 4), SlowFastCallback(FAST_STEPS))
    trainer.train()
    assert trainer.state.global_step == 6 and "inside a step of SFPO" not in caplog.text


def test_a_stop_that_cannot_wait_is_told_and_can_be_cancelled(make_trainer, small_checkpoint, caplog):
    callback = SlowFastCallback(FAST_STEPS)
    trainer = make_trainer(callback, Stop("on_log", 4))
    trainer.train()
    assert trainer.state.global_step == 4 and "training stopped inside a step of SFPO" in caplog.text
    callback.cancel()
    assert_same(trainer.model.parameters(), AutoModelForCausalLM.from_pretrained(small_checkpoint).parameters())


@pytest.mark.parametrize("restore", [True, False])
def test_a_save_waits_for_the_end_of_the_step_and_a_resume_is_exact(make_trainer, tmp_path, restore):
    # Steps of 6 updates. Saves asked for at updates 4, 8, 12 and 16 come at 6, 12 and 18. Entropies of 1 and 2 fire the trigger
    # for step 3, after the resume: the one seen before it counts. The callback in the user's hand is the one in use.
    saves = {"steps": 3, "save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": restore}
    entropies = Entropy("entropy", [1.0] * 6 + [2.0] * 12)
    whole = ends(make_trainer(entropies, SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), **saves))
    folders = sorted(path.name for path in (tmp_path / "trl").glob("checkpoint-*"))
    assert folders == ["checkpoint-12", "checkpoint-18", "checkpoint-6"]
    callback = SlowFastCallback(FAST_STEPS, 0.8, TRIGGER)
    resumed = make_trainer(entropies, callback, **saves)
    resumed.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-6"))
    assert callback in resumed.callback_handler.callbacks and callback.trigger_fired_at == 3
    assert callback.trigger.state_dict()["entropies"] == [2.0, 2.0]
    assert_same(whole, resumed.model.parameters())


def test_a_resume_of_a_run_without_entropies_is_told(make_trainer, tmp_path):
    make_trainer(Entropy(None), steps=1, save_strategy="steps", save_steps=6).train()
    again = make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER))
    with pytest.raises(RuntimeError, match="no entropy in the log of optimizer steps 1 to 2"):
        again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-6"))


def test_a_checkpoint_from_inside_a_step_is_refused(make_trainer, tmp_path):
    make_trainer(steps=1, save_strategy="steps", save_steps=4).train()  # a trainer without the callback saves anywhere
    again = make_trainer(SlowFastCallback(FAST_STEPS))
    with pytest.raises(ValueError, match=r"^resume_from_checkpoint at optimizer step 4: .* multiple of 6"):
        again.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-4"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_iterations": 2}, r"num_iterations = 2: .* set GRPOConfig\(num_iterations=3\)"),
        ({"gradient_accumulation_steps": 3}, r"gradient_accumulation_steps = 3: must divide steps_per_generation \(4\)"),
        ({"max_steps": 8}, "max_steps = 8: one step of SFPO is 6 optimizer steps"),
        ({"logging_steps": 2}, "logging_steps = 2, .* set logging_steps=1"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
    ],
)
def test_settings_of_the_trainer_that_do_not_fit_are_refused(make_trainer, settings, told):
    with pytest.raises(ValueError, match="^" + told):
        make_trainer(SlowFastCallback(FAST_STEPS, 0.8, TRIGGER), **settings).train()


def test_a_trainer_without_passes_is_refused():
    class Arguments:
        pass

    with pytest.raises(ValueError, match=r"^args = Arguments: SlowFastCallback needs TRL's GRPOTrainer"):
        SlowFastCallback().on_train_begin(Arguments(), None, None, optimizer=None)


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
    assert len(rewards) == 8 and all(0.0 <= reward <= 1.0 for reward in rewards) and sum(rewards) > 0.0
