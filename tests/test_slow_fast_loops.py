"""SFPO in the loops that people have: frozen and tied weights, compiled models, scalers, schedules, kinds of optimizers, ranks.

Where there is no closed form, the other side of a comparison is ``by_hand``: K updates, the reposition, one update.
"""

import os
import socket
import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch import nn

from sfpo import SlowFast

FAST_STEPS, ALPHA = 2, 0.5
INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def update(model, optimizer, rows=slice(None)) -> None:
    ((model(INPUTS[rows]) - TARGETS[rows]) ** 2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def local(weight):
    return weight.to_local() if hasattr(weight, "to_local") else weight


def by_hand(model, optimizer, update=update) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    start = [local(weight.detach()).clone() for weight in weights]
    for _ in range(FAST_STEPS):
        update(model, optimizer)
    with torch.no_grad():
        for weight, at_start in zip(weights, start, strict=True):
            local(weight).lerp_(at_start, 1.0 - ALPHA)
    update(model, optimizer)


def by_slow_fast(slow_fast, model, optimizer, update=update) -> None:
    for _ in slow_fast.passes():
        update(model, optimizer)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(local(a), local(b))


def scalar(value: float, **keys) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=torch.float64), **keys)


def halve(weights, optimizer) -> None:
    """SGD at rate 0.5 on x^2/2: each update halves x."""
    sum((weight**2 / 2).sum() for weight in weights).backward()
    optimizer.step()
    optimizer.zero_grad()


# From 1, K = 2 updates that halve lead to 0.25; half of the way back is 0.625; the slow correction halves: 0.3125.
AFTER_ONE_STEP = 0.3125


@pytest.mark.parametrize(
    "frozen",
    [
        torch.ones(2),
        torch.ones(2, dtype=torch.int8),
        torch.ones(2, dtype=torch.uint8),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.bfloat16),
    ],
    ids=lambda weight: str(weight.dtype),
)
def test_frozen_weights_are_neither_copied_nor_moved(frozen):
    x, frozen = scalar(1.0), nn.Parameter(frozen, requires_grad=False)
    optimizer = torch.optim.SGD([frozen, x], lr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # their type is no matter either
        slow_fast = SlowFast(optimizer, FAST_STEPS, ALPHA)
    elsewhere = torch.full((2,), 3).to(frozen.dtype)
    for _ in slow_fast.passes():
        halve([x], optimizer)
        frozen.data.copy_(elsewhere)
    assert x.item() == AFTER_ONE_STEP and torch.equal(frozen.float(), elsewhere.float())
    for _ in slow_fast.passes():
        frozen.data.zero_()
        break
    slow_fast.cancel()
    assert x.item() == AFTER_ONE_STEP and not frozen.float().any()


def test_weights_frozen_between_steps_drop_out():
    x, y = scalar(1.0), scalar(1.0)
    optimizer = torch.optim.SGD([x, y], lr=0.5)
    slow_fast = SlowFast(optimizer, FAST_STEPS, ALPHA)
    y.requires_grad_(False)
    for _ in slow_fast.passes():
        halve([x], optimizer)
        y.data.mul_(2.0)
    assert x.item() == AFTER_ONE_STEP and y.item() == 8.0


@pytest.mark.parametrize("how", ["listed twice", "two parameters of one memory"])
def test_a_tied_weight_is_repositioned_once(how):
    # Twice would be a quarter of the way: 1 -> 0.25 -> 0.8125 -> 0.40625.
    x = scalar(1.0)
    again = x if how == "listed twice" else nn.Parameter(x.data)
    optimizer = torch.optim.SGD([x], lr=0.5)
    slow_fast = SlowFast([x, again], FAST_STEPS, ALPHA)
    by_slow_fast(slow_fast, [x], optimizer, halve)
    assert x.item() == again.item() == AFTER_ONE_STEP


def test_a_tied_model_by_its_modules_parameters():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.embedding, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
            self.head.weight = self.embedding.weight

    def update(model, optimizer):
        nn.functional.cross_entropy(model.head(model.embedding(torch.arange(4))), torch.tensor([1, 2, 3, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()

    one, other = Tied(), Tied()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (one, other)]
    weights = [*one.embedding.parameters(), *one.head.parameters()]
    by_slow_fast(SlowFast(weights, FAST_STEPS, ALPHA), one, optimizers[0], update)
    by_hand(other, optimizers[1], update)
    assert_same(one, other)


@pytest.mark.skipif(sys.version_info >= (3, 13) and torch.__version__ < "2.6", reason="torch.compile of that torch needs 3.12")
def test_a_compiled_model_sees_the_repositioned_weights():
    one, other = network(), network()
    compiled = torch.compile(one, backend="aot_eager")
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (compiled, other)]
    slow_fast = SlowFast(optimizers[0], FAST_STEPS, ALPHA)
    for _ in range(2):
        by_slow_fast(slow_fast, compiled, optimizers[0])
        by_hand(other, optimizers[1])
    assert_same(one, other)


def test_a_fast_pass_that_the_grad_scaler_skips():
    # The first of two fast passes meets an infinite gradient and is skipped: 1 -> 1 -> 0.5; half of the way back: 0.75; 0.375.
    x = scalar(1.0)
    optimizer, scaler = torch.optim.SGD([x], lr=0.5), torch.amp.GradScaler("cpu", init_scale=4.0)
    for turn, _ in enumerate(SlowFast(optimizer, FAST_STEPS, ALPHA).passes()):
        scaler.scale((x**2 / 2).sum() * (float("inf") if turn == 0 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert x.item() == 0.375 and scaler.get_scale() == 2.0


def test_under_autocast_the_weights_stay_float32():
    def update(model, optimizer):
        with torch.autocast("cpu", torch.bfloat16):
            loss = ((model(INPUTS) - TARGETS) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    one, other = network(), network()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (one, other)]
    slow_fast = SlowFast(optimizers[0], FAST_STEPS, ALPHA)
    for _ in range(2):
        by_slow_fast(slow_fast, one, optimizers[0], update)
        by_hand(other, optimizers[1], update)
    assert_same(one, other)
    assert {weight.dtype for weight in one.parameters()} == {torch.float32}


def test_gradient_accumulation_is_one_update_of_all_its_micro_batches():
    def in_parts(model, optimizer):
        for part in (slice(0, 4), slice(4, 8)):
            (((model(INPUTS[part]) - TARGETS[part]) ** 2).mean() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()

    parts, whole = network(), network()
    for model, how in ((parts, in_parts), (whole, update)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        by_slow_fast(SlowFast(optimizer, FAST_STEPS, ALPHA), model, optimizer, how)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_learning_rate_schedule_moves_once_a_batch():
    # Rate 0.5, then 0.25. First step: 1 -> AFTER_ONE_STEP. Second: each update multiplies by 0.75:
    # 0.5625 of it, half of the way back is 0.78125 of it, times 0.75 is 0.5859375 of it.
    x = scalar(1.0)
    optimizer = torch.optim.SGD([x], lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    slow_fast = SlowFast(optimizer, FAST_STEPS, ALPHA)
    for _ in range(2):
        by_slow_fast(slow_fast, [x], optimizer, halve)
        schedule.step()
    assert x.item() == AFTER_ONE_STEP * 0.5859375 and optimizer.param_groups[0]["lr"] == 0.125


def test_each_parameter_group_keeps_its_rate():
    # x as above; y at rate 0.25 is multiplied by 0.75 at each update, which 0.5859375 comes of.
    x, y = scalar(1.0), scalar(1.0)
    optimizer = torch.optim.SGD([{"params": [x]}, {"params": [y], "lr": 0.25}], lr=0.5)
    by_slow_fast(SlowFast(optimizer, FAST_STEPS, ALPHA), [x, y], optimizer, halve)
    assert [x.item(), y.item()] == [AFTER_ONE_STEP, 0.5859375]


def test_two_optimizers_by_the_models_parameters():
    x, y = scalar(1.0), scalar(1.0)
    optimizers = torch.optim.SGD([x], lr=0.5), torch.optim.SGD([y], lr=0.25)
    for _ in SlowFast([x, y], FAST_STEPS, ALPHA).passes():
        for weight, optimizer in zip((x, y), optimizers, strict=True):
            halve([weight], optimizer)
    assert [x.item(), y.item()] == [AFTER_ONE_STEP, 0.5859375]


@pytest.mark.parametrize("kind", ["fused", "foreach", "one by one"])
@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.SGD])
def test_fused_and_foreach_optimizers(kind, optimizer_class):
    settings = {"lr": 0.1, "foreach": kind == "foreach", "fused": kind == "fused"}
    one, other = network(), network()
    optimizers = [optimizer_class(model.parameters(), **settings) for model in (one, other)]
    slow_fast = SlowFast(optimizers[0], FAST_STEPS, ALPHA)
    for _ in range(2):
        by_slow_fast(slow_fast, one, optimizers[0])
        by_hand(other, optimizers[1])
    assert_same(one, other)


def test_a_reposition_of_bfloat16_weights_is_rounded_away_and_told():
    # Below 1, a unit in the last place of bfloat16 is 2^-8. One fast update from 1 moves by two of them; at alpha 0.8 the
    # reposition should go back by 0.4 of a unit, which is nothing. So alpha 0.8 and 1 end alike; in float32 they do not.
    def ends(dtype):
        for alpha in (0.8, 1.0):
            x = nn.Parameter(torch.ones(1, dtype=dtype))
            optimizer = torch.optim.SGD([x], lr=2.0**-7)
            for _ in SlowFast(optimizer, 1, alpha).passes():
                x.grad = torch.ones_like(x)
                optimizer.step()
            yield x.item()

    with pytest.warns(UserWarning, match=r"^weights of torch\.bfloat16: .* lost to rounding; keep the weights in float32"):
        low = list(ends(torch.bfloat16))
    high = list(ends(torch.float32))
    assert low[0] == low[1] == 1.0 - 2 * 2.0**-7
    assert high == pytest.approx([1.0 - 1.8 * 2.0**-7, 1.0 - 2 * 2.0**-7], abs=1e-7)


def an_optimizer(module: str, name: str, **attributes) -> torch.optim.Optimizer:
    """An optimizer whose class seems to come from ``module``, which is not installed here."""
    optimizer = type(name, (torch.optim.SGD,), {"__module__": module})([scalar(1.0)], lr=0.5)
    for attribute, value in attributes.items():
        setattr(optimizer, attribute, value)
    return optimizer


class Args:
    optim_bits = 8


@pytest.mark.parametrize(
    ("module", "name", "attributes", "told"),
    [
        ("deepspeed.runtime.zero.stage_1_and_2", "DeepSpeedZeroOptimizer", {}, "instead of DeepSpeed"),
        ("megatron.core.optimizer.distrib_optimizer", "DistributedOptimizer", {}, "instead of Megatron"),
        ("apex.optimizers.fused_adam", "FusedAdam", {"master_weights": True}, "with master_weights: .*its own master copy"),
        ("transformer_engine.pytorch.optimizers.fused_adam", "FusedAdam", {"master_weights": True}, "with master_weights"),
        ("torchao.optim.cpu_offload", "CPUOffloadOptimizer", {}, "its own master copy"),
        ("torchao.optim.adam", "AdamW8bit", {}, "8 bits or fewer, .*use torch.optim.AdamW"),
        ("torchao.optim.adam", "AdamW4bit", {}, "8 bits or fewer"),
        ("bitsandbytes.optim.adamw", "AdamW", {"args": Args()}, "8 bits or fewer"),
        ("schedulefree.adamw_schedulefree", "AdamWScheduleFree", {}, "an average kept in its state"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_optimizers_that_cannot_work_are_refused_by_name(module, name, attributes, told, wrapped):
    optimizer = an_optimizer(module, name, **attributes)
    if wrapped:  # as accelerate wraps each
        optimizer = an_optimizer("accelerate.optimizer", "AcceleratedOptimizer", optimizer=optimizer)
    with pytest.raises(ValueError, match=rf"^optimizer = {module}\.{name}.*{told}"):
        SlowFast(optimizer)


@pytest.mark.parametrize("attribute", ["ds_id", "_hp_mapping"])
def test_parameters_of_a_deepspeed_model_are_refused(attribute):
    x = scalar(1.0)
    setattr(x, attribute, 1)
    with pytest.raises(
        ValueError, match=r"^optimizer_or_params = parameters of DeepSpeed: .* use a torch optimizer with FSDP2"
    ):
        SlowFast([x])


def shard_by(wrapper: str, model: nn.Module) -> nn.Module:
    if wrapper in ("ddp", "zero"):
        return nn.parallel.DistributedDataParallel(model)
    if wrapper == "fsdp":
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def optimizer_for(wrapper: str, model: nn.Module) -> torch.optim.Optimizer:
    if wrapper == "zero":
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.1)
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def compare_on_one_rank(wrapper: str) -> None:
    """Two steps on this rank's half of the rows: SlowFast's bits are by_hand's, and one process's numbers on all rows."""
    rows = slice(dist.get_rank(), None, 2)

    def on_my_rows(model, optimizer):
        update(model, optimizer, rows)

    one, other, alone = shard_by(wrapper, network()), shard_by(wrapper, network()), network()
    optimizers = [optimizer_for(wrapper, one), optimizer_for(wrapper, other), torch.optim.AdamW(alone.parameters(), lr=0.1)]
    slow_fast = SlowFast(optimizers[0], FAST_STEPS, ALPHA)
    for _ in range(2):
        by_slow_fast(slow_fast, one, optimizers[0], on_my_rows)
        by_hand(other, optimizers[1], on_my_rows)
        by_hand(alone, optimizers[2])
    assert_same(one, other)
    if wrapper == "fsdp":
        with type(one).summon_full_params(one):
            whole = [weight.clone() for weight in one.parameters()]
    else:
        whole = [weight.full_tensor() if hasattr(weight, "full_tensor") else weight for weight in one.parameters()]
    flat = torch.cat([weight.flatten() for weight in whole])
    torch.testing.assert_close(flat, torch.cat([weight.flatten() for weight in alone.parameters()]), rtol=0, atol=1e-5)
    for _ in slow_fast.passes():  # left early: every rank puts its shard back
        on_my_rows(one, optimizers[0])
        break
    slow_fast.cancel()
    assert_same(one, other)


def main() -> None:
    dist.init_process_group("gloo")
    fsdp2 = ("fsdp2",) if hasattr(torch.distributed.fsdp, "fully_shard") else ()  # from torch 2.6 on
    for wrapper in ("ddp", "fsdp", "zero", *fsdp2):
        print(wrapper, file=sys.stderr)
        compare_on_one_rank(wrapper)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_under_ddp_fsdp2_fsdp_and_zero():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **address, "RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        faults = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], faults


if __name__ == "__main__":
    main()
