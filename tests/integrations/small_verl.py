"""verl's actor update on a CPU, small: its real engine (FSDP1, FSDP2) and its real PPO loss. As a script, one of two ranks."""

import functools
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import verl_on_cpu  # noqa: F401  (before verl's workers)
from verl.protocol import DataProto
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import ActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import left_right_2_no_padding

ROWS, MINI_BATCH, PROMPT, RESPONSE = 8, 4, 4, 5
FAST_STEPS = 3


def join(rank: int = 0, size: int = 1, port: int = 29511) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    dist.init_process_group("gloo", rank=rank, world_size=size)


class FSDPOnCPU(transformer_impl.FSDP):
    """FSDP1 whose ``sync_module_states`` does not ask for a GPU."""

    def __init__(self, *args, **keys) -> None:
        super().__init__(*args, **{**keys, "sync_module_states": False, "device_id": torch.device("cpu")})


transformer_impl.FSDP = FSDPOnCPU


def build(
    worker_class, checkpoint: Path, strategy: str = "fsdp2", lora_rank: int = 0, optimizer=None, **engine
) -> TrainingWorker:
    fp32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    model = HFModelConfig(
        path=str(checkpoint),
        use_remove_padding=False,
        enable_gradient_checkpointing=False,
        lora_rank=lora_rank,
        override_config={"attn_implementation": "sdpa"},
    )
    config = TrainingWorkerConfig(
        model_type="language_model",
        model_config=model,
        engine_config=FSDPEngineConfig(
            strategy=strategy,
            use_torch_compile=False,
            mixed_precision=fp32,
            use_dynamic_bsz=False,
            micro_batch_size_per_gpu=2,
            **engine,
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=100, **(optimizer or {})),
        checkpoint_config=CheckpointConfig(),
    )
    worker = worker_class(config)
    worker.reset()
    actor = ActorConfig(strategy=strategy, rollout_n=1, ppo_micro_batch_size_per_gpu=2)
    worker.set_loss_fn(functools.partial(ppo_loss, config=actor))
    return worker


def rollouts(seed: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, responses on the right; old log-probs near those of a policy with random weights."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 62, (ROWS, PROMPT + RESPONSE), generator=random)
    mask = torch.ones_like(ids)
    for row in range(ROWS):
        mask[row, : int(torch.randint(0, PROMPT - 1, (), generator=random))] = 0
        mask[row, PROMPT + 2 + int(torch.randint(0, RESPONSE - 1, (), generator=random)) :] = 0
    response_mask = mask[:, PROMPT:]
    return {
        "input_ids": ids,
        "prompts": ids[:, :PROMPT],
        "responses": ids[:, PROMPT:],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "response_mask": response_mask,
        "old_log_probs": -4.0 + 0.3 * torch.randn(ROWS, RESPONSE, generator=random) * response_mask,
        "advantages": torch.randn(ROWS, 1, generator=random) * response_mask,
    }


def batch(seed: int = 1, epochs: int = 1, shuffle: bool = False, rows=None, size=None, **keys):
    """A batch as verl's driver sends it."""
    data = DataProto.from_single_dict(rollouts(seed), meta_info={"temperature": 1.0}).to_tensordict()
    data = left_right_2_no_padding(data)
    if rows is not None:
        data = tu.index_select_tensor_dict(data, torch.arange(ROWS)[rows])
    sizes = {"mini_batch_size": MINI_BATCH} if size is None else size
    tu.assign_non_tensor(
        data,
        calculate_entropy=False,
        distillation_use_topk=False,
        distillation_only=False,
        global_batch_size=MINI_BATCH,
        epochs=epochs,
        seed=42,
        dataloader_kwargs={"shuffle": shuffle},
        compute_loss=True,
        **sizes,
        **keys,
    )
    return data


def slow_fast(alpha: float) -> dict:
    return {"slow_fast": {"num_fast_steps": FAST_STEPS, "alpha": alpha}}


def weights(worker: TrainingWorker) -> list[torch.Tensor]:
    """This rank's trainable shards, not copied."""
    given = [one for group in worker.engine.optimizer.param_groups for one in group["params"] if one.requires_grad]
    return [one.detach().to_local() if hasattr(one, "to_local") else one.detach() for one in given]


def copies(worker: TrainingWorker) -> list[torch.Tensor]:
    return [weight.clone() for weight in weights(worker)]


def by_hand(worker: TrainingWorker, alpha: float, **keys) -> None:
    """K epochs of verl's own, start + alpha (theta - start), one more."""
    start = copies(worker)
    worker.train_mini_batch(batch(epochs=FAST_STEPS, **keys))
    for weight, at_start in zip(weights(worker), start, strict=True):
        weight.lerp_(at_start, 1.0 - alpha)
    worker.train_mini_batch(batch(**keys))


def same(ones, others) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def main(rank: str, port: str, checkpoint: str) -> None:
    from sfpo.integrations.verl import SlowFastTrainingWorker

    join(int(rank), 2, int(port))
    mine = slice(int(rank), None, 2)
    for strategy in ("fsdp2", "fsdp"):
        ours, plain = build(SlowFastTrainingWorker, checkpoint, strategy), build(TrainingWorker, checkpoint, strategy)
        start = copies(ours)
        for seed in range(2):
            ours.train_mini_batch(batch(seed, rows=mine, **slow_fast(0.8)))
            by_hand(plain, 0.8, seed=seed, rows=mine)
        assert same(weights(ours), weights(plain)), strategy
        assert not same(weights(ours), start), strategy
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
