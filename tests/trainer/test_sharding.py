"""The sharded policy under torchrun against one process: same losses, gradient norms and weights at every world size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.fixed_rollouts import CASES

PROJECT = Path(__file__).parents[2]
PROGRAM = ["-m", "tests.trainer.fixed_rollouts"]

TOLERANCES = {"bfloat16": (3e-2, 5e-3), "lora_bfloat16": (3e-2, 5e-3), "gxpo": (1e-4, 1e-3)}
"""Of metrics and weights, where it is not 1e-5."""


def torchrun(ranks: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]


@pytest.fixture(scope="module")
def outcomes(checkpoint, tmp_path_factory):
    """World size -> folder of what the program wrote. 0: without torchrun."""
    folders = {}
    for ranks in (0, 1, 2, 4):
        folders[ranks] = tmp_path_factory.mktemp(f"ranks{ranks}")
        launcher = torchrun(ranks) if ranks else [sys.executable]
        command = [*launcher, *PROGRAM, str(checkpoint), str(folders[ranks])]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-5000:]
    return folders


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_the_world_size_changes_rounding_alone(outcomes, case, ranks):
    tolerance, of_weights = TOLERANCES.get(case, (1e-5, 1e-5))
    alone, sharded = (json.loads((outcomes[size] / f"{case}.json").read_text()) for size in (0, ranks))
    for one, other in zip(alone, sharded, strict=True):
        assert one["entropy"] == pytest.approx(other["entropy"], abs=tolerance)
        for update, same in zip(one["updates"], other["updates"], strict=True):
            assert update == pytest.approx(same, rel=tolerance, abs=tolerance)
    weights, others = (load_file(outcomes[size] / f"{case}.safetensors") for size in (0, ranks))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=of_weights)


def test_the_steps_were_worth_comparing(outcomes, checkpoint):
    start = load_file(checkpoint / "model.safetensors")
    updates = [update for step in json.loads((outcomes[0] / "sfpo.json").read_text()) for update in step["updates"]]
    assert all(update["grad_norm"] > 0.1 for update in updates) and any(update["clip_fraction"] > 0 for update in updates)
    moved = load_file(outcomes[0] / "sfpo.safetensors")
    assert max((moved[name] - start[name]).abs().max() for name in moved) > 1e-3
