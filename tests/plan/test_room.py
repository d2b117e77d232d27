"""What fits, what is refused and what would fit instead; the command's tables."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo import train
from sfpo.config import Execution, load_params
from sfpo.jobs import resolve, write_settings
from sfpo.plan import room
from sfpo.plan.__main__ import device_of, main
from sfpo.plan.memory import Job, phases, total
from sfpo.plan.remedies import refusal, remedies, require_room
from sfpo.plan.room import GB, Device, cannot_fit, fits, job_of, min_device_bytes, min_gpus
from sfpo.plan.shapes import PUBLISHED, shape_of
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings, to_json
from tests.changes import changed

PROJECT = Path(__file__).parents[2]
SEVEN_B = "Qwen/Qwen2.5-Math-7B"
GPU = Device("cuda", 80 * GB)


@functools.cache
def run_of(suite: str, model: str, arm: str) -> RunSettings:
    found = resolve(load_params(PROJECT / "params.yaml", suite)).values()
    return next(one for one in found if isinstance(one, RunSettings) and one.run.model == model and one.run.arm == arm)


def seven_b(device: Device = GPU, arm: str = "sfpo", ranks: int = 1, **execution) -> Job:
    settings = run_of("paper", "qwen2.5-math-7b", arm)
    settings = settings.model_copy(update={"execution": settings.execution.model_copy(update=execution)})
    return job_of(settings, shape_of(PUBLISHED[SEVEN_B], SEVEN_B), device, ranks)


def engine_share(execution: Execution, share: float) -> Execution:
    return execution.model_copy(update={"engine": execution.engine.model_copy(update={"gpu_memory_utilization": share})})


def test_what_is_held_bounds_the_number_of_gpus_from_below():
    # SFPO holds float32 weights, gradients, two moments and a snapshot: 20 bytes a weight, 152 GB, on two GPUs if nothing else
    # were. While the engine is awake 12 bytes a weight must fit beside 0.6 of the memory: 91 GB into n x 32 GB, n at least 3.
    needed = min_gpus(seven_b(), GPU)
    assert 3 <= needed <= 5
    assert fits(seven_b(ranks=needed), GPU) and not fits(seven_b(ranks=needed - 1), GPU)
    assert min_gpus(seven_b(), Device("cuda", 8 * GB)) is None  # one engine's bfloat16 weights alone take 15 GB


def test_a_job_that_fits_cannot_be_refused_and_between_them_lies_the_accuracy():
    job = seven_b(ranks=4)
    largest = max(total(parts) for parts in phases(job, 80 * GB).values())
    assert fits(job, GPU) and not cannot_fit(job, GPU) and largest < 80 * GB
    sizes = [size for size in range(30, 120) if not fits(job, Device("cuda", size * GB))]
    refused = [size for size in range(30, 120) if cannot_fit(job, Device("cuda", size * GB))]
    assert refused and set(refused) < set(sizes)


@given(st.sampled_from(list(PUBLISHED)), st.integers(24, 200), st.integers(1, 8), st.booleans())
def test_every_remedy_is_one(name, memory, ranks, checkpointing):
    device = Device("cuda", memory * GB)
    job = replace(seven_b(device, ranks=ranks, gradient_checkpointing=checkpointing), shape=shape_of(PUBLISHED[name], name))
    for remedy in [] if fits(job, device) else remedies(job, device):
        other = job
        for part in remedy.split(", "):
            key, _, value = part.removeprefix("execution.").partition(": ")
            if key == "engine.gpu_memory_utilization":
                other = replace(other, execution=engine_share(other.execution, float(value)))
            elif key == "snapshot_on_host":
                assert value == "true"
                other = replace(other, snapshots=0)
            elif part.startswith("execution."):
                other = replace(other, execution=other.execution.model_copy(update={key: json.loads(value)}))
            else:
                other = replace(other, ranks=int(part.removesuffix(" GPUs")))
        assert fits(other, device) and other != job


def test_one_remedy_for_each_bottleneck():
    # Only activations are too large: without checkpointing each layer of 28 keeps gigabytes.
    suggested = remedies(seven_b(ranks=8, gradient_checkpointing=False), GPU)
    assert suggested[0] == "execution.gradient_checkpointing: true" and suggested[1].startswith(
        "execution.micro_batch_tokens: "
    )
    # Only the engine's share is too large: 4 GPUs hold 12 bytes a weight in 23 GB, which 0.9 of 80 GB does not leave.
    job = seven_b(ranks=4)
    greedy = replace(job, execution=engine_share(job.execution, 0.9))
    suggested = remedies(greedy, GPU)
    assert any(one.startswith("execution.engine.gpu_memory_utilization: 0.") for one in suggested)
    assert not any("checkpointing" in one or "micro_batch" in one for one in suggested)
    # Nothing helps: the engine's weights do not fit.
    assert remedies(seven_b(), Device("cuda", 8 * GB)) == []


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize(("ranks", "checkpointing"), [(1, True), (1, False), (4, True)])
def test_a_device_that_is_enough_is_just_enough(kind, ranks, checkpointing):
    job = seven_b(Device(kind, 0.0), ranks=ranks, gradient_checkpointing=checkpointing)
    assert fits(job, Device(kind, min_device_bytes(job) * 1.001)) and not fits(job, Device(kind, min_device_bytes(job) * 0.999))


def test_a_refusal_names_the_settings_the_parts_and_what_would_fit():
    lines = refusal(seven_b(), GPU).splitlines()
    assert lines[0].startswith("execution.micro_batch_tokens = 16384, gradient_checkpointing = true, GPUs 1: each GPU needs 17")
    # 7.6156e9 weights: 30.5 GB in float32, twice that for the moments.
    assert "weights 30.5, gradients 30.5, optimizer 60.9, snapshot 30.5" in lines[1]
    assert lines[-1] == "  would fit: 4 GPUs"
    of_engine = refusal(seven_b(), Device("cuda", 20 * GB))
    assert "engine.gpu_memory_utilization = 0.6: the engine's weights and one sequence of full length need 15.5 GB" in of_engine


@pytest.fixture
def settings(checkpoint, params) -> RunSettings:
    return run_of("tiny", "tiny-qwen2", "sfpo").model_copy(update={"model_path": str(checkpoint)})


def test_a_run_that_cannot_fit_is_stopped_and_one_that_may_is_not(settings):
    # The tiny model has about a million weights: 20 bytes of each are held, and 4 by the engine.
    with pytest.raises(
        ConfigError,
        match=r"(?s)^tiny/tiny-qwen2/.*sfpo/seed0: .*processes 1: each process needs .*needed, in GB: weights .*would fit: ",
    ):
        require_room(settings, Device("cpu", 10e6))
    require_room(settings, Device("cpu", 40e6))
    with pytest.raises(ConfigError, match="would fit"):
        require_room(settings, Device("cuda", 10e6))
    require_room(settings, Device("cuda", 2e9))
    require_room(settings)  # on this machine


def test_on_a_cpu_lengths_that_may_never_come_refuse_nothing(settings):
    long = changed(settings, execution__micro_batch_tokens=10**9, recipe__limits__max_completion_tokens=10**8)
    require_room(long, Device("cpu", 40e6))
    with pytest.raises(ConfigError):
        require_room(long, Device("cuda", 1e9))


def test_a_model_of_another_kind_is_not_planned_for_and_not_refused(settings, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "another"}))
    require_room(settings.model_copy(update={"model_path": str(tmp_path / "model")}), Device("cpu", 1.0))


def test_training_asks_before_it_loads_anything(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "host_memory", lambda: 10e6)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "settings.json").write_text(to_json(settings.model_copy(update={"data_path": "nowhere"})))
    with pytest.raises(ConfigError, match="would fit: processes with"):
        train.main([str(tmp_path / "settings.json")])


def test_the_command_prints_a_suite(capsys):
    main(["--suite", "paper"])
    out = capsys.readouterr().out
    assert out in (PROJECT / "docs/cluster.md").read_text()
    head, _, *rows = [line.strip("| ").split(" | ") for line in out.splitlines()]
    assert head[:4] == ["model", "runs", "on one GPU", "fits on"]
    needed = {row[0]: int(row[3]) for row in rows}
    assert list(needed) == load_params("params.yaml", "paper").active.models
    assert needed["qwen2.5-math-1.5b"] <= needed["qwen3-4b-base"] <= needed["qwen2.5-math-7b"]
    sizes = {row[1]: dict(zip(head, row, strict=True)) for row in rows if row[0] == "qwen2.5-math-1.5b"}
    # 1,543,714,304 weights of 4 bytes.
    assert sizes["dapo-math/sfpo"]["weights"] == sizes["dapo-math/sfpo"]["snapshot"] == "6.2"
    assert sizes["dapo-math/grpo"]["snapshot"] == "" and sizes["dapo-math/grpo"]["optimizer"] == "12.3"


def test_the_command_prints_a_run_before_its_model_is_there(capsys, tmp_path, monkeypatch):
    write_settings(resolve(load_params("params.yaml", "paper")), tmp_path)
    monkeypatch.chdir(tmp_path)
    of_run = "runs/paper/qwen2.5-math-7b/dapo-math/sfpo/seed0/settings.json"
    main([of_run, "--device", "h100"])
    out = capsys.readouterr().out
    assert (
        "7615.6M weights, on 4 x 80 GB: fits" in out
        and "| GB | forward | log-probs | backward | embeddings | generation |" in out
    )
    main([of_run, "--gpus", "1"])
    assert "may not fit" in capsys.readouterr().out


def test_the_command_says_what_is_missing(checkpoint, settings, tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(to_json(settings.model_copy(update={"model_path": str(tmp_path / "models/none/checkpoint")})))
    with pytest.raises(SystemExit, match=r"config\.json: no such file; prepare the model first"):
        main([str(path)])
    main([str(path), "--config", str(checkpoint), "--device", "cpu"])
    assert "on a CPU with" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--device tpu: allowed are cpu, a GPU's memory in GB, a100-40gb"):
        main([str(path), "--device", "tpu"])


def test_devices_by_type_and_by_size():
    assert device_of("a100-40gb") == device_of("40") == Device("cuda", 40 * GB)
    assert device_of("cpu").memory > 0
