"""A short version of `make chaos`: kills at an export, at a save and between steps change no bit."""

import shutil

import pytest

from benchmarks.chaos_faults import killed
from benchmarks.chaos_jobs import differences, make_lab

pytestmark = [pytest.mark.slow, pytest.mark.engine]


def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    lab = make_lab(tmp_path)
    lab.measure("sfpo", 0)
    kills = killed(lab, "sfpo", 0, aims=("save", "steps"))  # raises where the end differs
    first, *later = kills
    assert first.newest_state == 0 and all(kill.newest_state > 0 for kill in later)
    assert len({kill.after_step for kill in kills}) == 3

    reference = lab.reference("sfpo", 0)
    other = shutil.copytree(reference, tmp_path / "other")
    assert differences(reference, other) == []
    metrics = other / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"step": 3', '"step": 4'))
    shutil.rmtree(other / "tensorboard")
    assert differences(reference, other) == ["tensorboard", "metrics.jsonl"]
