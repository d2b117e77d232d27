"""SFPO (arXiv 2510.04072) in verl 0.9, as its trainer mode ``sfpo``: a snapshot before the first of K + 1 epochs of the actor's
update on each batch of rollouts, a reposition before the last. Nothing of verl is copied or overwritten:

    VERL_USE_EXTERNAL_MODULES=sfpo.integrations.verl python -m verl.trainer.main_ppo trainer.v1.trainer_mode=sfpo \\
        +trainer.v1.sfpo.num_fast_steps=3 +trainer.v1.sfpo.alpha=0.8 ...

The driver sends K and alpha with each batch and has the entropy trigger; the workers have the snapshot. docs/verl.md has the
full command, unsupported settings, and tested versions.

Departures from the paper: none in the update. The learning rate changes once per step, after the last epoch, as usual in verl;
the entropy is that of the policy that sampled the rollouts, as verl computes it with the old log-probs. One of verl's metrics
of the actor's update is a mean over all K + 1 epochs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERL = version("verl")
if VERL.split(".")[:2] != ["0", "9"]:
    raise ImportError(f"verl {VERL}: sfpo.integrations.verl is tested with verl 0.9; pip install 'verl>=0.9,<0.10'")

import ray
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from verl.single_controller.base.decorator import make_nd_compute_dataproto_dispatch_fn, register
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import check_alpha, check_fast_steps
from sfpo.slow_fast import SlowFast

SETTINGS = ("num_fast_steps", "alpha", "entropy_trigger")
STATE_FILE = "sfpo.json"
"""In each checkpoint's folder: the trigger's state."""


class SlowFastTrainingWorker(TrainingWorker):
    """Trains on a batch whose key ``slow_fast`` is {"num_fast_steps": K, "alpha": a} with SFPO; on other batches as verl
    does."""

    _passes: Iterator[None] | None = None

    def reset(self) -> None:
        """Build the engine.

        Raises:
            ValueError: SFPO cannot work with this engine, its weights or its optimizer.
        """
        if self.engine_config.strategy not in ("fsdp", "fsdp2"):
            raise ValueError(f"strategy = {self.engine_config.strategy}: SFPO on verl needs fsdp or fsdp2")
        super().reset()
        if self.engine_config.forward_only:
            return
        SlowFast(self.engine.optimizer)  # refuses optimizers that cannot work
        parameters = [one for group in self.engine.optimizer.param_groups for one in group["params"] if one.requires_grad]
        dtypes = {str(parameter.dtype) for parameter in parameters} - {str(torch.float32)}
        if dtypes:
            raise ValueError(
                f"weights of {', '.join(dtypes)}: SFPO on verl needs float32 weights; set fsdp_config.model_dtype=fp32"
            )

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_mini_batch(self, data: TensorDict) -> TensorDict | None:
        """All updates on one batch of rollouts. An exception inside puts the weights back to the start.

        Raises:
            ValueError: the batch requests more than one epoch.
        """
        settings = tu.pop(data, key="slow_fast", default=None)
        if settings is None:
            return super().train_mini_batch(data)
        if tu.get(data, key="epochs", default=1) != 1:
            raise ValueError(f"epochs = {tu.get(data, key='epochs')}: SFPO sets the number of passes itself; set ppo_epochs=1")
        slow_fast = SlowFast(self.engine.optimizer, **settings)
        passes = slow_fast.num_fast_steps + 1 if slow_fast.alpha > 0.0 else 1
        tu.assign_non_tensor(data, epochs=passes)
        self._updates, self._updates_per_pass = 0, self._count_mini_batches(data)
        self._passes = slow_fast.passes()
        try:
            output = super().train_mini_batch(data)
            if self._updates != passes * self._updates_per_pass or next(self._passes, self) is not self:
                raise RuntimeError(
                    f"{self._updates} updates in {passes} passes of {self._updates_per_pass}: verl {VERL} used the batch "
                    "in an unexpected way"
                )
        except BaseException:
            slow_fast.cancel()
            raise
        finally:
            self._passes = None
        return output

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_batch(self, data: TensorDict) -> TensorDict | None:
        """One optimizer step. Inside ``train_mini_batch`` the engine is in train mode, its weights on the device."""
        if self._passes is not None:
            if self._updates % self._updates_per_pass == 0:
                next(self._passes)  # snapshot before the first pass, reposition before the last
            self._updates += 1
        return super().train_batch(data)

    def _count_mini_batches(self, data: TensorDict) -> int:
        mini_batch_size = tu.get(data, key="mini_batch_size", default=None)
        if mini_batch_size is None:
            return tu.get(data, key="num_mini_batch")
        return data.shape[0] // (mini_batch_size // self.engine.get_data_parallel_size())


class SlowFastWorker(ActorRolloutRefWorker):
    """verl's worker with an actor that trains with SFPO."""

    actor_worker_cls = SlowFastTrainingWorker


def read_settings(config: DictConfig) -> dict[str, Any]:
    """``trainer.v1.sfpo``: num_fast_steps (3), alpha (0.8), entropy_trigger (none), checked against the rest of the config.

    Raises:
        ValueError: a key is unknown, a value is invalid, or verl's configuration is not compatible with SFPO.
    """
    given = OmegaConf.to_container(OmegaConf.create(config.trainer.v1.get("sfpo", {}) or {}), resolve=True)
    if not isinstance(given, dict):
        raise ValueError(f"trainer.v1.sfpo = {given!r}: must be a mapping; keys are {', '.join(SETTINGS)}")
    unknown = set(map(str, given)) - set(SETTINGS)
    if unknown:
        raise ValueError(f"trainer.v1.sfpo.{min(unknown)}: unknown; keys are {', '.join(SETTINGS)}")
    settings: dict[str, Any] = {"num_fast_steps": 3, "alpha": 0.8, "entropy_trigger": None}
    settings |= {str(key): value for key, value in given.items()}
    check_fast_steps(settings["num_fast_steps"])
    check_alpha(settings["alpha"])
    EntropyTrigger.from_settings(settings["entropy_trigger"])
    actor = config.actor_rollout_ref.actor
    if actor.strategy not in ("fsdp", "fsdp2"):
        raise ValueError(f"actor_rollout_ref.actor.strategy = {actor.strategy}: SFPO on verl needs fsdp or fsdp2")
    if actor.ppo_epochs != 1:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_epochs = {actor.ppo_epochs}: SFPO takes num_fast_steps + 1 passes itself; set it to 1"
        )
    dtype = actor.fsdp_config.get("model_dtype", None) or "fp32"
    if dtype not in ("fp32", "float32"):
        raise ValueError(
            f"actor_rollout_ref.actor.fsdp_config.model_dtype = {dtype}: SFPO on verl needs float32 weights; set it to fp32"
        )
    if settings["entropy_trigger"] is not None and _bypasses_old_log_probs(config):
        raise ValueError(
            "algorithm.rollout_correction.bypass_mode = True: verl then computes no entropy of the policy that made the "
            "rollouts, which trainer.v1.sfpo.entropy_trigger needs; set bypass_mode=False or leave out the trigger"
        )
    return settings


def _bypasses_old_log_probs(config: DictConfig) -> bool:
    correction = config.algorithm.get("rollout_correction", None)
    return bool(correction and correction.get("bypass_mode", False))


@register_trainer("sfpo")
class SlowFastTrainer(PPOTrainerSync):
    """verl's synchronous trainer with SFPO as the actor's update.

    Raises:
        ValueError: see ``read_settings``.
    """

    def __init__(self, config: DictConfig) -> None:
        settings = read_settings(config)
        self.num_fast_steps, self.alpha = settings["num_fast_steps"], settings["alpha"]
        self.trigger = EntropyTrigger.from_settings(settings["entropy_trigger"])
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # the value by which verl recognizes synchronous training
        super().__init__(config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(SlowFastWorker)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        fired = self.trigger is not None and self.trigger.fired
        alpha = 0.0 if fired else self.alpha
        entropy = self._entropy(metrics) if self.trigger is not None else None
        batch.extra_info["slow_fast"] = {"num_fast_steps": self.num_fast_steps, "alpha": alpha}
        batch = super()._update_actor(batch, metrics)
        metrics["sfpo/alpha"] = alpha
        metrics["sfpo/passes"] = self.num_fast_steps + 1 if alpha > 0.0 else 1
        if self.trigger is not None and entropy is not None:
            self.trigger.observe(entropy)
            metrics["sfpo/trigger_fired"] = float(self.trigger.fired)
        return batch

    @staticmethod
    def _entropy(metrics: Mapping[str, Any]) -> float:
        if "actor/entropy" not in metrics:
            raise RuntimeError(
                f"no actor/entropy in verl's metrics (keys: {', '.join(sorted(metrics))}): the entropy trigger needs the "
                "entropy that verl computes with the old log-probs"
            )
        return float(metrics["actor/entropy"])

    def _save_checkpoint(self) -> None:
        if self.trigger is not None:  # before the rest: verl names a checkpoint the latest when all of it is there
            file = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}" / STATE_FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(self.trigger.state_dict()))
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.trigger is None or self.global_steps == 0:
            return
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        if self.config.trainer.resume_mode == "resume_path":
            folder = Path(self.config.trainer.resume_from_path)
        if not (folder / STATE_FILE).is_file():
            raise FileNotFoundError(
                f"{folder / STATE_FILE}: the entropy trigger's state is not in the checkpoint, which was saved without one; "
                "remove trainer.v1.sfpo.entropy_trigger, or start a new run"
            )
        self.trigger.load_state_dict(json.loads((folder / STATE_FILE).read_text()))
