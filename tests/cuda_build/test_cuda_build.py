"""What of the GPU path can be proven without a GPU, in the environment of requirements/gpu.txt (`make test-cuda-build`).

Programs beside this file run in processes of their own, with a driver library that has no device (libcuda.c) and, where vLLM
asks for devices, faked ones. What is expected here is what the trainer relies on, so that an upgrade that changes it is seen.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]

pytestmark = [
    pytest.mark.cuda_build,
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(one.name == "vllm" for one in importlib.metadata.distributions()),
        reason="vLLM's CUDA build is not in this environment: make test-cuda-build",
    ),
]


@pytest.fixture(scope="module")
def said_by(tmp_path_factory):
    """What a program of this folder prints, as JSON."""
    driver = tmp_path_factory.mktemp("driver")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", driver / "libcuda.so.1", HERE / "libcuda.c"], check=True)

    def run(program: str, *arguments: str, **variables: str) -> dict:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "HF_HUB_OFFLINE": "1", **variables}
        command = [sys.executable, "-m", f"tests.cuda_build.{program}", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-5000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module", params=[1, 8], ids="{} faked GPUs".format)
def configurations(request, said_by, tmp_path_factory):
    return said_by("configured_engines", str(tmp_path_factory.mktemp("models")), FAKED_GPUS=str(request.param))


def test_vllm_accepts_every_engine_that_params_yaml_leads_to(configurations):
    assert len(configurations) >= 6
    for path, one in configurations.items():
        alone = one["ranks"] == 1
        assert one["executor"] == ("UniProcExecutor" if alone else "ExecutorWithExternalLauncher"), path
        assert one["world_size"] == (2 if path == "tensor_parallel 2" else 1), path


def test_the_engine_is_the_one_that_was_studied(configurations):
    for path, one in configurations.items():
        assert one["model_runner_v2"] and one["chunked_prefill"] and one["max_num_batched_tokens"] == 8192, path
        assert one["sleep_mode"] and one["cumem_allocator"], path  # sleep(level=2) and wake_up(tags)
        assert not one["flashinfer_autotune"] and one["logprobs_mode"] == "processed_logprobs", path
        eager = one["cuda_graphs"] == "NONE"
        assert eager or (one["cuda_graphs"], one["largest_capture"]) == (
            "FULL_AND_PIECEWISE",
            min(512, 2 * one["max_num_seqs"]),
        ), path


def test_no_engine_has_more_places_than_a_rank_has_sequences(configurations):
    # Suite paper: 256 prompts x 8 completions (Skywork-OR1: 16) over 8 ranks; validation, 256 x 4, is less.
    for path, one in configurations.items():
        if path.startswith("runs/paper/"):
            assert one["ranks"] == 8 and one["max_num_seqs"] == (512 if "/skywork-or1/" in path else 256), path


def test_all_imports_of_an_engines_start_succeed(said_by):
    said = said_by("engine_imports", FAKED_GPUS="1")
    assert said["failures"] == {}
    assert said["flashinfer_sampler"] is False  # it would be compiled by nvcc at the first call


def test_the_seeded_sampler_keeps_what_the_trainer_relies_on(said_by):
    said = said_by("seeded_sampler", TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    together = said["together"]
    assert said["again"] == together == said["reversed"]  # neither the call nor the neighbours decide
    assert said["alone"] == together[: len(said["alone"])]
    assert said["next_position"] != together
    # Chances 1/2, 1/4, 1/8, 1/8; 512 draws: within 4 standard errors, 4 * sqrt(1/4 / 512) = 0.09.
    shares = [together.count(token) / len(together) for token in range(4)]
    assert all(abs(share - chance) < 0.09 for share, chance in zip(shares, (0.5, 0.25, 0.125, 0.125), strict=True))
