"""Experiments with DVC, as docs/dvc.md shows them, in a fresh clone."""

import json
import shlex

import pytest
import yaml

from tests.workflow.pipeline import run

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

SUMMARY = "runs/tiny/tiny-qwen2/arithmetic/{}/seed0/summary.json"


def summary(folder, arm):
    return json.loads((folder / SUMMARY.format(arm)).read_text())


def alpha_of(folder):
    return yaml.safe_load((folder / "params.yaml").read_text())["arms"]["sfpo"]["alpha"]


def test_experiments_are_compared_and_one_is_applied(clone):
    grpo = summary(clone, "grpo")
    run(clone, *shlex.split("dvc exp run --name alpha06 -S 'arms.sfpo.alpha=0.6'"))
    assert summary(clone, "grpo") == grpo  # not trained again
    run(clone, *shlex.split("dvc exp run --name steps3 -S 'suites.tiny.train.steps=3'"))
    assert summary(clone, "sfpo")["steps"] == 3

    shown = run(clone, "dvc", "exp", "show", "--only-changed", "--csv")
    assert all(name in shown for name in ("alpha06", "steps3", "arms.sfpo.alpha", "suites.tiny.train.steps"))
    # The second experiment started from the first one's workspace, so only the steps differ.
    difference = run(clone, *shlex.split("dvc exp diff alpha06 steps3"))
    assert "suites.tiny.train.steps" in difference and "arms.sfpo.alpha" not in difference
    run(clone, *shlex.split("dvc plots diff HEAD alpha06 steps3 -o plots_page"))
    assert "alpha06" in (clone / "plots_page/index.html").read_text()

    run(clone, "git", "checkout", "-q", ".")
    run(clone, "dvc", "checkout", "-q")
    assert alpha_of(clone) == 0.8 and summary(clone, "grpo") == grpo
    run(clone, *shlex.split("dvc exp apply alpha06"))
    assert alpha_of(clone) == 0.6
    applied = summary(clone, "sfpo")
    assert applied["steps"] == 2 and applied["recipe"]["rule"]["settings"]["alpha"] == 0.6
    assert "Data and pipelines are up to date" in run(clone, "dvc", "status")


def test_queued_experiments_run_outside_the_workspace(clone):
    run(clone, *shlex.split("dvc exp run --queue --name alpha04 -S 'arms.sfpo.alpha=0.4'"))
    assert "Queued" in run(clone, *shlex.split("dvc queue status"))
    run(clone, *shlex.split("dvc exp run --run-all"))
    assert "Success" in run(clone, *shlex.split("dvc queue status"))
    assert alpha_of(clone) == 0.8
    run(clone, *shlex.split("dvc exp apply alpha04"))
    assert summary(clone, "sfpo")["recipe"]["rule"]["settings"]["alpha"] == 0.4
