"""What is saved, continued and published belongs to one recipe and one trajectory."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.manifest import read_manifest
from sfpo.ranks import SINGLE_PROCESS
from sfpo.schema import ConfigError
from sfpo.trainer import metrics
from sfpo.trainer.background import Background
from sfpo.trainer.checkpoint import newest_state
from sfpo.trainer.metrics import JsonLines
from sfpo.trainer.policy import Policy
from sfpo.trainer.run_store import Progress, RunStore
from sfpo.types import OldPolicy, TrainBatch
from tests.changes import changed


@pytest.fixture
def run(settings, tmp_path):
    """A run without an engine: a store, a policy and a rule; ``go`` takes steps, ``of`` is the same run with other settings."""
    return Run(changed(settings, recipe__train__steps=8), tmp_path)


class Run:
    def __init__(self, settings, folder: Path, threaded: bool = False) -> None:
        self.settings, self.folder = settings, folder
        recipe = settings.recipe
        self.policy = Policy(settings.model_path, recipe.objective, recipe.train, settings.execution, 40)
        self.rule = make_update_rule(recipe.rule.name, **recipe.rule.settings)
        self.store = RunStore(settings, folder, SINGLE_PROCESS, Background(threaded))
        self.progress = self.store.continue_from(self.policy, self.rule)
        self.store.open_logs(self.progress)

    def of(self, **changes) -> "Run":
        return Run(changed(self.settings, **changes), self.folder)

    def publishes_again(self, **changes) -> bool:
        """What a job asks first of all."""
        settings = changed(self.settings, **changes)
        return RunStore(settings, self.folder, SINGLE_PROCESS, Background(False)).publish_again()

    def go(self, step: int, save: bool = False, best: float | None = None, kept: bool = False) -> None:
        """A step that moves the weights, then what the training loop does after one."""
        old = OldPolicy(torch.full((3,), -3.0), entropy=1.0)
        batch = TrainBatch([[5, 6]] * 2, [[7], [8, 9]], torch.tensor([1.0, -1.0]), old, group_size=2)
        self.policy.descend(batch)
        self.progress.step = step
        self.store.log_step({"step": step})
        if best is not None:
            self.store.log_validation({"step": step, "accuracy": best})
            self.progress.best_step, self.progress.best_accuracy = step, best
            self.store.export_best(self.policy, step)
        if kept:
            self.store.export_kept(self.policy, step)
        if save:
            self.store.save(self.policy, self.rule, self.progress)
        self.store.background.wait()


def test_another_recipe_begins_beside_the_state_of_the_first_and_names_it(run, caplog):
    run.go(1)
    run.go(2, save=True)
    before = {path: path.read_bytes() for path in run.store.state.rglob("*") if path.is_file()}
    other = run.of(recipe__train__optimizer__learning_rate=1e-3)
    assert other.progress.step == 0 and other.store.state != run.store.state
    assert f"settings changed: {run.store.state} was set aside (train.optimizer.learning_rate: 3e-05 -> 0.001" in caplog.text
    other.go(1, save=True)
    assert {path: path.read_bytes() for path in run.store.state.rglob("*") if path.is_file()} == before
    assert run.of().progress.step == 2  # back to the first recipe: its state is there


def test_settings_of_execution_continue_the_run_and_say_where_rounding_may_differ(run, caplog):
    run.go(2, save=True)
    caplog.set_level(logging.WARNING)
    other = run.of(execution__micro_batch_tokens=512, execution__save_every=7, execution__engine__kv_cache_gib=2.0)
    assert other.progress.step == 2
    assert "micro_batch_tokens: 1024 -> 512 since that state was saved: sums may be rounded differently" in caplog.text
    assert "kv_cache" not in caplog.text and "save_every" not in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(run.policy.parameters(), other.policy.parameters(), strict=True))


def test_other_input_files_are_another_run_though_the_settings_are_the_same(run, tmp_path):
    run.go(2, save=True)
    data = tmp_path / "corrected"
    data.mkdir()
    for name in ("train", "validation"):
        (data / f"{name}.parquet").write_bytes((Path(run.settings.data_path) / f"{name}.parquet").read_bytes())
    assert run.of(data_path=str(data)).progress.step == 2  # the same content elsewhere
    (data / "train.parquet").write_bytes(b"another gold")
    assert run.of(data_path=str(data)).progress.step == 0


def test_steps_can_be_added_and_not_taken_away(run):
    run.go(8, save=True)
    assert run.of(recipe__train__steps=12).progress.step == 8
    with pytest.raises(ConfigError, match=r"train\.steps = 6: .*step_000008 already has step 8; steps can only be increased"):
        run.of(recipe__train__steps=6)


def test_a_best_checkpoint_of_an_abandoned_trajectory_is_not_published(run):
    run.go(2, save=True, best=0.5)
    run.go(4, best=0.9, kept=True)  # killed before the save: the steps after 2 may come out otherwise
    resumed = run.of()
    assert (resumed.progress.best_step, resumed.progress.best_accuracy) == (2, 0.5)
    resumed.store.publish(resumed.policy, resumed.progress, {"best_step": resumed.progress.best_step})
    assert read_manifest(run.folder / "best")["step"] == 2
    assert not (run.folder / "exports/step_4").exists()


def test_no_more_is_kept_than_a_state_may_need(run):
    for step in range(1, 7):
        run.go(step, save=step % 2 == 0, best=step / 10)
    # States of steps 4 and 6 are kept, and with each the best checkpoint that it names.
    assert sorted(path.name for path in run.store.state.glob("[bs]*_*")) == [
        *("best_000004", "best_000006", "step_000004", "step_000006"),
    ]


def test_a_finished_run_whose_files_are_gone_is_linked_to_its_places_again(run):
    run.go(2, best=0.5)
    for step in (3, 6):
        run.go(step, kept=True)
    run.go(8, save=True)
    assert not run.publishes_again()
    run.store.publish(run.policy, run.progress, {"best_step": 2})
    weights = (run.folder / "best/model.safetensors").read_bytes()
    (run.folder / "summary.json").unlink()
    (run.folder / "best/manifest.json").unlink()
    assert run.publishes_again()
    assert json.loads((run.folder / "summary.json").read_text())["steps"] == 8
    assert (run.folder / "best/model.safetensors").read_bytes() == weights and (run.folder / "last/manifest.json").is_file()
    assert not run.publishes_again(recipe__train__steps=9)  # it has a step to go

    damaged = run.store.state / "last/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert not run.publishes_again()


def test_lines_of_more_steps_are_not_published_as_a_run_of_fewer(run):
    for step in (2, 4):
        run.go(step, save=True, best=step / 10)
    short = {"recipe__train__steps": 4}
    four = run.of(**short)
    four.store.publish(four.policy, four.progress, {"best_step": 4})
    six = four.of(recipe__train__steps=6)
    six.go(5, best=0.9)  # killed before it saves; then four steps are asked for again
    again = six.of(**short)
    assert again.progress.step == 4
    again.store.publish(again.policy, again.progress, {"best_step": 4})
    for name in ("metrics", "validation"):
        lines = [json.loads(line)["step"] for line in (run.folder / f"{name}.jsonl").read_text().splitlines()]
        assert lines == [2, 4]
    assert not six.publishes_again()


def test_a_continued_run_is_not_linked_as_it_was_before(run):
    run.go(8, save=True, best=0.5)
    run.store.publish(run.policy, run.progress, {"best_step": 8})
    longer = run.of(recipe__train__steps=12)
    longer.go(9)  # killed
    assert not run.publishes_again()


def test_the_final_state_is_kept_or_not(run):
    run.go(6, save=True)
    run.go(8, save=True, best=0.5)
    run.store.publish(run.policy, run.progress, {"best_step": 8})
    assert [path.name for path in run.store.state.glob("step_*")] == ["step_000008"]
    other = run.of(execution__keep_final_state=False)
    other.store.publish(other.policy, other.progress, {"best_step": 8})
    assert not list(run.store.state.glob("step_*")) and (run.folder / "summary.json").is_file()


def test_a_validation_off_the_schedule_goes_when_the_run_is_continued(run):
    run.store.log_validation({"step": 0})
    killed = run.of()  # before the first save: it validates before step 1 again
    assert (killed.store.state / "validation.jsonl").read_text() == ""
    for step in (0, 2, 4, 5):
        killed.store.log_validation({"step": step})  # every 2 steps; a run of 5 steps has one more
    killed.go(5, save=True)
    longer = killed.of(recipe__train__steps=12)
    lines = [json.loads(line)["step"] for line in (longer.store.state / "validation.jsonl").read_text().splitlines()]
    assert lines == [0, 2, 4]


def test_the_last_step_of_a_shorter_run_is_exported_when_the_schedule_asks_for_it(run):
    run = run.of(recipe__train__steps=6)  # exports every 3 steps, but the last step, which is last/
    run.go(6, save=True)
    assert not run.store.lacks_export(6) and run.of(recipe__train__steps=7).store.lacks_export(6)
    assert not run.of(recipe__train__steps=7).store.lacks_export(5)


def test_a_kill_while_lines_are_cut_off_loses_none(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)  # the last moment before the new file takes the old one's place
    with pytest.raises(KeyboardInterrupt):
        JsonLines(path, keeps=lambda step: step <= 1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    monkeypatch.undo()
    JsonLines(path, keeps=lambda step: step <= 1).close()
    assert path.read_text() == '{"step": 1}\n'


def test_writing_in_a_thread_gives_the_same_though_training_moves_on(settings, tmp_path):
    settings = changed(settings, recipe__train__steps=8)
    blocking, threaded = Run(settings, tmp_path / "blocking"), Run(settings, tmp_path / "threaded", threaded=True)
    for one in (blocking, threaded):
        for _ in range(2):
            old = OldPolicy(torch.full((2,), -3.0), entropy=1.0)
            batch = TrainBatch([[5]] * 2, [[7], [8]], torch.tensor([1.0, -1.0]), old, group_size=2)
            one.policy.descend(batch)
        one.progress.step = 2
        one.store.export_kept(one.policy, 2)
        one.store.save(one.policy, one.rule, one.progress)
        with torch.no_grad():
            for parameter in one.policy.parameters():
                parameter.zero_()  # what was saved is what stood then
        one.store.background.wait()
    for name in ("step_000002", "exports/step_2"):
        ours, theirs = (tensors_of(one.store.state / name) for one in (blocking, threaded))
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)
        assert sum(tensor.abs().sum() for tensor in theirs.values()) > 0
    assert newest_state(threaded.store.state)[1] == newest_state(blocking.store.state)[1]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_what_fails_in_the_background_is_raised_by_the_next_piece_of_work():
    background = Background(threaded=True)

    def fails():
        raise OSError("disk")

    background.run(fails)
    with pytest.raises(OSError, match="disk"):
        background.wait()
    background.wait()  # said once
    done = []
    background.run(lambda: done.append(1))
    background.wait()
    assert done == [1]


def test_progress_comes_back_as_it_was():
    progress = Progress(step=3, rollouts=5, backward_passes=2.5, best_step=2, best_accuracy=0.25)
    with progress.clock("update"):
        pass
    again = Progress.from_json(json.loads(json.dumps(progress.to_json())))
    assert again.to_json() == progress.to_json() and again.clock.seconds["update"] > 0.0
    assert set(again.clock.seconds) == {*metrics.TRAINING_PHASES, "validate"}
