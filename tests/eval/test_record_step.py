"""One step of two arms from one checkpoint, by the real engine, grader and policy."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from eval import record_step
from sfpo import jobs
from sfpo.config import load_params
from sfpo.data.prepare import prepare_dataset
from sfpo.manifest import write_manifest
from sfpo.settings import settings_hash

PROJECT = Path(__file__).parents[2]
CHANGES = {
    "suites": {
        "tiny": {
            "items": {"figure1": {"shows": "trajectory"}},
            "datasets": ["few"],
            "arms": ["dapo", "sfpo_dapo"],
            "seeds": [0],
            "train": {"prompts_per_step": 4, "completions_per_prompt": 4, "mini_batch_prompts": 2},
            "sampler": {"library": "transformers"},
        }
    },
    # The model is random and solves nothing: its rewards differ by length alone.
    "objectives": {"dapo": {"dynamic_sampling": None, "overlong_penalty": {"buffer_tokens": 60}}},
    "datasets": {"few": {"parts": {"sums": {"source": "generated", "tasks": {"sums": 20}}}, "validation_rows": 4}},
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, checkpoint):
    """The project folder after the job, the settings, and its results."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_step, "LEAD_IN_STEPS", 2)
        patch.setattr(record_step, "GRID", 3)
        patch.chdir(root)
        settings = jobs.resolve(load_params(PROJECT / "params.yaml", "tiny", CHANGES))
        jobs.write_settings(settings, root)
        prepare_dataset(settings["data/tiny/train/few/settings.json"], root / "data/tiny/train/few")
        (path, step) = next((path, one) for path, one in settings.items() if "trajectory-figure1" in path)
        shutil.copytree(checkpoint, root / step.checkpoint)
        write_manifest(root / step.checkpoint, step=60)
        folder = (root / path).parent
        record_step.record(step, folder)
        yield folder, step, json.loads((folder / "results.json").read_text())


def test_both_arms_start_together_and_their_first_pass_is_the_same(recorded):
    _, step, results = recorded
    assert results["settings_hash"] == settings_hash(step) and results["trained_steps"] == 60
    grpo, sfpo = results["arms"]["dapo"], results["arms"]["sfpo_dapo"]
    assert [point["move"] for point in grpo] == ["start", "pass"]
    assert [point["move"] for point in sfpo] == ["start", "pass", "pass", "pass", "reposition", "pass"]  # K = 3
    for before, after in ((grpo[0], sfpo[0]), (grpo[1], sfpo[1])):  # the same weights, moments, batch and rate
        assert after == pytest.approx(before, abs=1e-6)
    # The reposition is 0.8 of the way from the start to the last fast point.
    assert [sfpo[4][c] - sfpo[0][c] for c in "xy"] == pytest.approx([0.8 * (sfpo[3][c] - sfpo[0][c]) for c in "xy"], abs=1e-5)
    assert 0.5 < results["share_in_plane"] <= 1 and results["completions_with_advantage"] > 0


def test_the_grid_holds_the_loss_in_the_plane(recorded):
    _, _, results = recorded
    losses = torch.tensor(results["grid"]["loss"])
    assert losses.shape == (3, 3) and losses.isfinite().all()
    # Toward the end of the path the loss falls, and against it it rises: y in the middle, x from left to right.
    assert losses[1, 0] > losses[1, 2]
    start, end = results["arms"]["dapo"]
    assert end["loss"] < start["loss"]


def test_a_killed_job_resumes_with_the_next_row(recorded, monkeypatch, caplog):
    folder, step, results = recorded
    monkeypatch.setattr(record_step, "LEAD_IN_STEPS", 2)
    monkeypatch.setattr(record_step, "GRID", 3)
    monkeypatch.chdir(folder.parents[4])
    (kept,) = folder.glob("state/*/grid.json")
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "rows": content["rows"][:2]}))
    with caplog.at_level(logging.INFO):
        record_step.record(step, folder)
    assert "2 of 3 grid rows are already computed" in caplog.text
    assert json.loads((folder / "results.json").read_text())["grid"] == results["grid"]
