"""SFPO in verl 0.9: its real engine and loss on a CPU against verl's own epochs, to the bit; the driver's settings and trigger.
It needs verl and what verl needs, not the suite: `make test-verl`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed (make test-verl)")

import small_verl as small
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from sfpo.integrations.verl import STATE_FILE, SlowFastTrainer, SlowFastTrainingWorker, SlowFastWorker, read_settings

TRIGGER = {"form": "paper", "window": 2, "threshold": 0.5}
"""Of two entropies each lies one deviation from the mean: fires after step 2, for step 3."""


@pytest.fixture(scope="module", autouse=True)
def process_group():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    small.join(port=port)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def pair(small_checkpoint):
    def build(strategy="fsdp2", **settings):
        return [small.build(one, small_checkpoint, strategy, **settings) for one in (SlowFastTrainingWorker, TrainingWorker)]

    return build


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_alpha_1_is_verl_with_k_plus_1_epochs_and_alpha_0_with_one(pair, strategy, shuffle):
    ours, plain = pair(strategy)
    start = small.copies(ours)
    for seed, (alpha, epochs) in enumerate([(1.0, small.FAST_STEPS + 1), (0.0, 1), (1.0, small.FAST_STEPS + 1)]):
        one = ours.train_mini_batch(small.batch(seed, shuffle=shuffle, **small.slow_fast(alpha)))
        other = plain.train_mini_batch(small.batch(seed, shuffle=shuffle, epochs=epochs))
        updates = epochs * small.ROWS // small.MINI_BATCH
        assert len(one["metrics"]["grad_norm"]) == len(other["metrics"]["grad_norm"]) == updates
    assert small.same(small.weights(ours), small.weights(plain)) and not small.same(small.weights(ours), start)
    assert ours.engine.lr_scheduler.last_epoch == plain.engine.lr_scheduler.last_epoch  # moves once a step


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp"])
@pytest.mark.parametrize("size", [{"mini_batch_size": 4}, {"mini_batch_size": 8}, {"num_mini_batch": 2}], ids=str)
def test_alpha_0_8_is_by_hand_to_the_bit(pair, strategy, size):
    ours, plain = pair(strategy)
    for seed in range(2):
        ours.train_mini_batch(small.batch(seed, size=size, **small.slow_fast(0.8)))
        small.by_hand(plain, 0.8, seed=seed, size=size)
    assert small.same(small.weights(ours), small.weights(plain))


def test_against_plain_torch(small_checkpoint):
    """transformers' model, AdamW and PPO's clipped loss, written out."""
    from transformers import AutoModelForCausalLM

    worker = small.build(SlowFastTrainingWorker, small_checkpoint)
    settings = worker.engine.optimizer_config
    model = AutoModelForCausalLM.from_pretrained(small_checkpoint, attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=tuple(settings.betas), weight_decay=settings.weight_decay)

    def epoch(rollouts):
        for first in range(0, small.ROWS, small.MINI_BATCH):
            mini = {name: value[first : first + small.MINI_BATCH] for name, value in rollouts.items()}
            inputs = {name: mini[name] for name in ("input_ids", "attention_mask", "position_ids")}
            logits = model(**inputs).logits[:, small.PROMPT - 1 : -1]
            logprobs = torch.log_softmax(logits, -1).gather(-1, mini["responses"][..., None]).squeeze(-1)
            ratio, advantages, mask = torch.exp(logprobs - mini["old_log_probs"]), mini["advantages"], mini["response_mask"]
            loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
            loss = torch.where(advantages < 0, torch.minimum(-advantages * 3.0, loss), loss)  # dual clip
            ((loss * mask).sum() / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
            optimizer.step()
            optimizer.zero_grad()

    start = [weight.detach().clone() for weight in model.parameters()]
    for seed in range(2):
        at_start = [weight.detach().clone() for weight in model.parameters()]
        for _ in range(small.FAST_STEPS):
            epoch(small.rollouts(seed))
        with torch.no_grad():
            for weight, before in zip(model.parameters(), at_start, strict=True):
                weight.copy_(before + 0.8 * (weight - before))
        epoch(small.rollouts(seed))
        worker.train_mini_batch(small.batch(seed, **small.slow_fast(0.8)))
    moved = max((one - other).abs().max().item() for one, other in zip(model.parameters(), start, strict=True))
    assert moved > 0.03
    for ours, plain in zip(small.weights(worker), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp"])
def test_lora_moves_the_adapters_alone(pair, strategy):
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "use_orig_params": True} if strategy == "fsdp" else {"lora_rank": 4}
    ours, plain = pair(strategy, **settings)
    for weight, other in zip(small.weights(plain), small.weights(ours), strict=True):
        weight.copy_(other)  # adapters start at random
    local = [one.detach() for one in ours.engine.module.parameters() if not one.requires_grad]
    frozen = [(one.to_local() if hasattr(one, "to_local") else one).clone() for one in local]
    for seed in range(2):
        ours.train_mini_batch(small.batch(seed, **small.slow_fast(0.8)))
        small.by_hand(plain, 0.8, seed=seed)
    assert small.same(small.weights(ours), small.weights(plain))
    assert len(frozen) > 5
    assert small.same([one.to_local() if hasattr(one, "to_local") else one for one in local], frozen)


def test_an_exception_inside_puts_the_weights_back(pair):
    ours, _ = pair()
    start, real, calls = small.copies(ours), ours.engine.train_batch, []

    def failing(*args, **keys):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("out of memory, say")
        return real(*args, **keys)

    ours.engine.train_batch = failing
    with pytest.raises(RuntimeError, match="out of memory, say"):
        ours.train_mini_batch(small.batch(**small.slow_fast(0.8)))
    assert len(calls) == 4 and small.same(small.weights(ours), start)
    ours.engine.train_batch = real
    output = ours.train_mini_batch(small.batch(**small.slow_fast(0.8)))
    assert len(output["metrics"]["grad_norm"]) == 8


def test_a_checkpoint_between_steps_resumes_to_the_same_bits(small_checkpoint, tmp_path):
    whole, resumed = (small.build(SlowFastTrainingWorker, small_checkpoint) for _ in range(2))
    whole.train_mini_batch(small.batch(0, **small.slow_fast(0.8)))
    whole.save_checkpoint(str(tmp_path), global_step=1)
    resumed.load_checkpoint(str(tmp_path))
    for worker in (whole, resumed):
        worker.train_mini_batch(small.batch(1, **small.slow_fast(0.8)))
    assert small.same(small.weights(whole), small.weights(resumed))


def test_without_the_key_it_is_verls_worker(pair):
    ours, plain = pair()
    for worker in (ours, plain):
        worker.train_mini_batch(small.batch(epochs=2))
    assert small.same(small.weights(ours), small.weights(plain))


def test_two_ranks(tied_checkpoint):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    script = str(Path(__file__).parent / "small_verl.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, script, rank, port, str(tied_checkpoint)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        faults = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "".join(faults)[-3000:]


def config(**changes):
    """verl's own defaults with a CPU's settings, trainer mode ``sfpo``."""
    import verl.trainer.config as home
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(Path(home.__file__).parent), version_base=None):
        base = compose("ppo_trainer", overrides=["trainer.v1.trainer_mode=sfpo", "actor_rollout_ref.rollout.name=vllm"])
    OmegaConf.set_struct(base, False)
    for key, value in changes.items():
        OmegaConf.update(base, key, value)
    return base


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trainer.v1.sfpo.omega": 3}, "trainer.v1.sfpo.omega: unknown; keys are num_fast_steps, alpha, entropy_trigger"),
        ({"trainer.v1.sfpo.num_fast_steps": 0}, "num_fast_steps = 0"),
        ({"trainer.v1.sfpo.alpha": 1.5}, "alpha = 1.5"),
        ({"trainer.v1.sfpo.entropy_trigger": {"omega": 3}}, "entropy_trigger = "),
        ({"actor_rollout_ref.actor.strategy": "megatron"}, "actor_rollout_ref.actor.strategy = megatron: .* fsdp or fsdp2"),
        ({"actor_rollout_ref.actor.ppo_epochs": 2}, "actor_rollout_ref.actor.ppo_epochs = 2: .* set it to 1"),
        ({"actor_rollout_ref.actor.fsdp_config.model_dtype": "bf16"}, "actor_rollout_ref.actor.fsdp_config.model_dtype = bf16"),
        (
            {"trainer.v1.sfpo.entropy_trigger": TRIGGER, "algorithm.rollout_correction.bypass_mode": True},
            "algorithm.rollout_correction.bypass_mode = True",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(changes, told):
    with pytest.raises(ValueError, match="^" + told):
        SlowFastTrainer(config(**changes))


def test_bypass_mode_without_a_trigger_and_the_defaults_are_fine():
    settings = read_settings(config(**{"algorithm.rollout_correction.bypass_mode": True}))
    assert settings == {"num_fast_steps": 3, "alpha": 0.8, "entropy_trigger": None}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_dtype": "bf16"}, r"weights of torch\.bfloat16: .* set fsdp_config.model_dtype=fp32"),
    ],
)
def test_an_engine_that_cannot_work_is_refused_when_it_is_built(small_checkpoint, settings, told):
    with pytest.warns(UserWarning, match="lost to rounding"), pytest.raises(ValueError, match="^" + told):
        small.build(SlowFastTrainingWorker, small_checkpoint, **settings)


def test_more_than_one_epoch_in_the_batch_is_refused(pair):
    ours, _ = pair()
    with pytest.raises(ValueError, match=r"^epochs = 2: .* set ppo_epochs=1"):
        ours.train_mini_batch(small.batch(epochs=2, **small.slow_fast(0.8)))


def test_another_verl_is_refused_by_name():
    code = """
import importlib.metadata as metadata
metadata.version = lambda name: "0.8.0"
import sfpo.integrations.verl
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: verl 0.8.0: sfpo.integrations.verl is tested with verl 0.9" in done.stderr


class Workers:
    """In the place of verl's worker group: one real worker in this process."""

    def __init__(self, worker) -> None:
        self.worker, self.passes = worker, []

    def update_actor(self, batch):
        data = small.batch(batch.seed, **{"slow_fast": batch.extra_info["slow_fast"]})
        output = self.worker.train_mini_batch(data)
        self.passes.append(len(output["metrics"]["grad_norm"]) // 2)
        return {"metrics": {**output["metrics"], "mfu": [0.0]}}

    def save_checkpoint(self, path, *_, **__):
        self.worker.save_checkpoint(path)

    def load_checkpoint(self, local_path, **_):
        self.worker.load_checkpoint(local_path)


class Batch:
    def __init__(self, seed: int) -> None:
        self.seed, self.extra_info = seed, {}


class Loader:
    """In the place of the data loader, whose state verl saves too."""

    def state_dict(self):
        return {}

    def load_state_dict(self, _):
        pass


def trainer(small_checkpoint, folder: Path, **changes) -> SlowFastTrainer:
    settings = {
        "trainer.v1.sfpo.entropy_trigger": TRIGGER,
        "trainer.default_local_dir": str(folder),
        "algorithm.adv_estimator": "grpo",
    }
    driver = SlowFastTrainer(config(**settings, **changes))
    driver.actor_rollout_wg = Workers(small.build(SlowFastTrainingWorker, small_checkpoint))
    driver.train_dataloader = Loader()
    return driver


def step(driver, number: int, entropy: float) -> dict:
    metrics = {"actor/entropy": entropy}
    driver.global_steps = number
    driver._update_actor(Batch(number), metrics)
    return metrics


def test_the_trigger_lives_in_the_driver_and_in_checkpoints(small_checkpoint, tmp_path):
    # Entropies 1 and 2 fire it after step 2: step 3 takes one pass. The run that is resumed after step 1 does the same.
    whole = trainer(small_checkpoint, tmp_path)
    assert whole.trainer_mode == "sync" and step(whole, 1, 1.0)["sfpo/passes"] == 4
    whole._save_checkpoint()
    assert json.loads((tmp_path / "global_step_1" / STATE_FILE).read_text())["entropies"] == [1.0]
    resumed = trainer(small_checkpoint, tmp_path)
    resumed._load_checkpoint()
    assert resumed.global_steps == 1
    for driver in (whole, resumed):
        assert step(driver, 2, 2.0)["sfpo/trigger_fired"] == 1.0
        assert step(driver, 3, 2.0)["sfpo/alpha"] == 0.0
    assert whole.actor_rollout_wg.passes == [4, 4, 1] and resumed.actor_rollout_wg.passes == [4, 1]
    one, other = (small.weights(driver.actor_rollout_wg.worker) for driver in (whole, resumed))
    assert small.same(one, other)
    (tmp_path / "global_step_1" / STATE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"sfpo\.json: the entropy trigger's state is not in the checkpoint"):
        trainer(small_checkpoint, tmp_path)._load_checkpoint()


def test_metrics_without_an_entropy_are_told(small_checkpoint, tmp_path):
    driver = trainer(small_checkpoint, tmp_path)
    with pytest.raises(RuntimeError, match=r"^no actor/entropy in verl's metrics \(keys: critic/score\)"):
        driver._update_actor(Batch(0), {"critic/score": 1.0})


def test_verl_still_has_what_sfpo_hooks_into(monkeypatch):
    # A name that verl has lost, or a call that it no longer makes, is named here before a training run finds out.
    import inspect

    assert get_trainer_cls("sfpo") is SlowFastTrainer
    assert (
        ActorRolloutRefWorker.actor_worker_cls is TrainingWorker and SlowFastWorker.actor_worker_cls is SlowFastTrainingWorker
    )
    for name in ("_init_resource_pool_mgr", "_update_actor", "_save_checkpoint", "_load_checkpoint"):
        assert callable(getattr(PPOTrainerSync, name)), name
    assert "self.train_batch(" in inspect.getsource(TrainingWorker.train_mini_batch)
    assert "self.actor.train_mini_batch(" in inspect.getsource(ActorRolloutRefWorker.update_actor)
    assert "self.actor_worker_cls(" in inspect.getsource(ActorRolloutRefWorker)
    assert "role_worker_mapping" in inspect.getsource(PPOTrainerSync._init_resource_pool_mgr)
    assert "extra_info" in inspect.getsource(PPOTrainerSync._update_actor)
    assert '"actor/entropy"' in inspect.getsource(PPOTrainerSync._compute_old_log_prob)
