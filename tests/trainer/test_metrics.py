"""Lines survive a kill, and curves hold every number."""

import json

import pytest

from sfpo.trainer.metrics import JsonLines, PhaseClock


def test_lines_after_the_last_save_and_a_cut_line_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "rew')
    lines = JsonLines(path, keeps=lambda step: step <= 2)
    lines.append({"step": 3, "reward": 0.5})
    lines.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "reward": 0.5},
    ]


def test_a_number_that_is_not_finite_is_null(tmp_path):
    """json.dumps would write NaN and Infinity, which is no JSON."""
    lines = JsonLines(tmp_path / "metrics.jsonl", keeps=lambda step: step <= 0)
    lines.append({"step": 1, "entropy": float("nan"), "updates": [{"loss": float("inf")}, {"loss": -float("inf")}], "z": 0.5})
    lines.close()
    written = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(written, parse_constant=pytest.fail) == {
        "step": 1,
        "entropy": None,
        "updates": [{"loss": None}, {"loss": None}],
        "z": 0.5,
    }


def test_the_total_is_training_time_without_validation():
    clock = PhaseClock({"generate": 1.0, "grade": 0.5, "old_logprobs": 0.25, "update": 2.0, "sync": 0.25, "validate": 100.0})
    assert clock.total == 4.0
    with clock("update"):
        pass
    assert clock.report()["total"] >= 4.0 and clock.report()["validate"] == 100.0
