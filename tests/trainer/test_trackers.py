"""Each tracker by its real library, without a network: what is reported arrives, and a resumed run continues in the same run.

`make test-trackers` runs these where all libraries are; a library that is not there skips its tests.
"""

import importlib.util
import json
import sqlite3

import pytest

from sfpo.schema import ConfigError
from sfpo.trainer.trackers import numbers, open_tracker, run_key

RUN = "tiny/tiny-qwen2/sums/sfpo/seed0"
SETTINGS = {"run": {"arm": "sfpo"}, "recipe": {"train": {"steps": 3, "optimizer": {"learning_rate": 3e-5}}}}
KEY = run_key(RUN, "0123456789ab")


def record(step: int) -> dict:
    return {"step": step, "reward": step / 10, "updates": [{"loss": -float(step)}], "seconds": {"total": float(step)}}


def report(name, folder, steps, last_step=0):
    tracker = open_tracker(name, RUN, KEY, SETTINGS, folder, last_step)
    for step in steps:
        tracker.append(record(step))
    tracker.append({"step": steps[-1], "validation_accuracy": 0.5})
    tracker.flush()
    tracker.close()


def test_every_number_has_a_name():
    found = dict(
        numbers({"step": 1, "fired": True, "alpha": None, "text": "x", "seconds": {"total": 2}, "updates": [{"loss": 3}]})
    )
    assert found == {"step": 1.0, "fired": 1.0, "seconds/total": 2.0, "updates/0/loss": 3.0}


def test_a_key_is_of_letters_digits_and_hyphens_and_belongs_to_run_and_recipe():
    assert KEY == "tiny-tiny-qwen2-sums-sfpo-seed0-0123456789ab"
    assert run_key(RUN, "other") != KEY and len(run_key("m" * 300, "k")) <= 120


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_missing_library_is_named_with_what_installs_it(name, tmp_path):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ConfigError, match=rf"pip install 'sfpo\[{name}\]'"):
        open_tracker(name, RUN, KEY, SETTINGS, tmp_path, 0)


def test_tensorboard_purges_the_steps_that_are_taken_again(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("torch")
    report("tensorboard", tmp_path, [1, 2, 3])
    report("tensorboard", tmp_path, [3, 4], last_step=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("reward")] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_wandb_offline_keeps_everything_here_under_one_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed; make test-trackers installs it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    report("wandb", tmp_path, [1, 2])
    report("wandb", tmp_path, [3], last_step=2)
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and {path.stem.removeprefix("run-") for path in files} == {KEY}
    whole = b"".join(path.read_bytes() for path in files)
    assert b"updates/0/loss" in whole and b"validation_accuracy" in whole and b"learning_rate" in whole


def test_trackio_has_all_steps_in_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio", reason="trackio is not installed; make test-trackers installs it")
    report("trackio", tmp_path, [1, 2])
    report("trackio", tmp_path, [3], last_step=2)
    (database,) = tmp_path.glob("*.db")
    rows = sqlite3.connect(database).execute("select run_name, step, metrics from metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    rewards = {step: json.loads(metrics)["reward"] for _, step, metrics in rows if "reward" in json.loads(metrics)}
    assert rewards == {1: 0.1, 2: 0.2, 3: 0.3}


def test_mlflow_continues_the_run_of_the_same_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed; make test-trackers installs it")
    report("mlflow", tmp_path, [1, 2])
    report("mlflow", tmp_path, [3], last_step=2)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("sfpo").experiment_id])
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "reward")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]
    assert run.data.params["recipe.train.steps"] == "3" and run.info.status == "FINISHED"
