"""The plan's share of a rank against what FSDP really cuts, on a fake process group of 8."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sfpo.plan.shapes import PUBLISHED, shape_of

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-1.5B"])
def test_each_of_8_ranks_holds_an_eighth_of_the_weights_as_planned(model):
    command = [sys.executable, "-m", "tests.plan.fake_ranks", model]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    held, planned = json.loads(done.stdout), 4 * shape_of(PUBLISHED[model], model).parameters / 8
    # Matrices are cut along their first dimension, which 8 divides in all of them: the shares are equal.
    assert len(held) == 8 and all(one == pytest.approx(planned, rel=1e-3) for one in held)
    assert sum(held) == 4 * shape_of(PUBLISHED[model], model).parameters
