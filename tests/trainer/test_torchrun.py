"""Training jobs of several processes under torchrun: the same rollouts as alone, and the same bits after kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sfpo.config import DynamicSampling, OverlongPenalty
from sfpo.seeding import rng
from sfpo.settings import to_json
from tests.changes import changed
from tests.trainer.jobs import PROJECT, finish, start, untimed, wait_for_lines

pytestmark = pytest.mark.engine
SOON = 60.0
"""Seconds in which a job ends after one of its ranks."""


def groups_of(folder: Path, settings, ranks: int) -> list[list[dict]]:
    """What every rank saw in tests.trainer.live_rollouts; they must agree."""
    folder.mkdir()
    (folder / "settings.json").write_text(to_json(settings))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    program = ["-m", "tests.trainer.live_rollouts", str(folder / "settings.json"), str(folder)]
    done = subprocess.run(
        [sys.executable, *torchrun, *program], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    first, *others = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(max(1, ranks))]
    assert all(other == first for other in others)
    return first


@pytest.fixture
def shaped(settings):
    """The random policy boxes nothing: rewards differ by the overlong penalty alone. 5 prompts do not fill two ranks evenly."""
    return changed(
        settings,
        recipe__objective__overlong_penalty=OverlongPenalty(buffer_tokens=20, penalty=1.0),
        recipe__objective__dynamic_sampling=DynamicSampling(max_refills=1),
        recipe__train__prompts_per_step=5,
        recipe__train__mini_batch_prompts=5,
    )


def test_the_same_completions_and_rewards_at_one_rank_and_at_two(shaped, tmp_path):
    alone = groups_of(tmp_path / "alone", shaped, 0)
    assert groups_of(tmp_path / "two", shaped, 2) == alone
    rewards = {reward for groups in alone[1:] for group in groups for reward in group["rewards"]}
    assert len(rewards) > 3 and alone[1] != alone[3]


@pytest.mark.slow
def test_one_engine_over_two_ranks_samples_the_same(shaped, tmp_path):
    alone = groups_of(tmp_path / "alone", shaped, 0)
    together = changed(shaped, execution__engine__tensor_parallel=2, execution__resources__processes=2)
    split = groups_of(tmp_path / "together", together, 2)
    for groups, same in zip(alone, split, strict=True):
        for group, other in zip(groups, same, strict=True):
            assert group["rewards"] == other["rewards"] and group["prompt"] == other["prompt"]
            for one, two in zip(group["completions"], other["completions"], strict=True):
                assert one["token_ids"] == two["token_ids"]
                assert one["logprobs"] == pytest.approx(two["logprobs"], abs=1e-4)  # products are summed in parts


def workers(process: subprocess.Popen) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def same_weights(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        weights, others = (load_file(folder / name / "model.safetensors") for folder in (one, other))
        assert weights.keys() == others.keys() and all(weights[key].equal(others[key]) for key in weights)


@pytest.mark.slow
def test_a_job_of_two_ranks_survives_a_stop_and_the_death_of_a_rank_with_the_same_bits(settings, tmp_path):
    whole, hurt, alone = tmp_path / "whole", tmp_path / "hurt", tmp_path / "alone"
    settings = changed(settings, recipe__train__steps=6)
    finish(start(whole, settings, ranks=2), whole)

    process = start(hurt, settings, ranks=2)
    wait_for_lines(process, hurt, 1)
    os.kill(workers(process)[1], signal.SIGTERM)  # one rank is told, all stop after the same step
    assert process.wait(timeout=300) != 0
    assert "SIGTERM: saved after step" in (hurt / "log.txt").read_text(), (hurt / "log.txt").read_text()[-5000:]

    process = start(hurt, settings, ranks=2)
    wait_for_lines(process, hurt, 4)
    rank = rng("torchrun", time.time_ns()).randrange(2)
    os.kill(workers(process)[rank], signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(timeout=300) != 0
    assert time.monotonic() - killed < SOON
    assert f"rank      : {rank} (local_rank: {rank})\n  exitcode  : -9" in (hurt / "log.txt").read_text()
    assert not (hurt / "summary.json").exists()
    shutil.copytree(hurt, alone)

    finish(start(hurt, settings, ranks=2), hurt)
    assert untimed(whole) == untimed(hurt)
    same_weights(whole, hurt)
    assert json.loads((hurt / "summary.json").read_text())["ranks"] == 2

    # One process takes over what two have saved: the same run but for rounding.
    finish(start(alone, settings), alone)
    assert "ranks: 2 -> 1 since that state was saved" in (alone / "log.txt").read_text()
    for one, other in zip(untimed(whole), untimed(alone), strict=True):
        for key in ("step", "rollouts", "tokens", "reward", "truncated", "trigger_fired", "backward_passes"):
            assert one[key] == other[key]
        assert one["entropy"] == pytest.approx(other["entropy"], abs=1e-5)
    one, other = (load_file(folder / "last/model.safetensors") for folder in (whole, alone))
    assert all((one[key] - other[key]).abs().max() < 1e-5 for key in one)


def test_engines_that_ranks_do_not_fill_are_refused(settings, tmp_path):
    process = start(tmp_path, changed(settings, execution__engine__tensor_parallel=2, execution__resources__processes=2))
    assert process.wait(timeout=300) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "engine.tensor_parallel = 2: must divide the number of processes (1)" in log
