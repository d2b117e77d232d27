"""A whole run with its real parts: vLLM samples, the grader grades, the policy learns, files appear."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from sfpo.settings import to_json
from tests.changes import changed
from tests.trainer.jobs import PROJECT, finish, start, untimed, wait_for_lines

pytestmark = pytest.mark.engine


@pytest.fixture
def without_vllm(settings):
    """For tests of what does not depend on the engine: transformers' sampler starts faster."""
    return changed(settings, recipe__sampler__library="transformers")


def test_a_killed_run_goes_on_to_the_same_bits(settings, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, settings), whole)

    process = start(killed, settings)
    wait_for_lines(process, killed, 3)  # past the save after step 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()
    finish(start(killed, settings), killed)
    assert "resuming after step 2" in (killed / "log.txt").read_text()

    assert untimed(whole) == untimed(killed)
    for name in ("completions", "validation_completions"):
        assert untimed(whole, name) == untimed(killed, name)
    # 2 prompts a step and a validation, all their completions: 4 of a step, 2 of a validation (after steps 0, 2 and 4).
    assert [(line["step"], len(line["completions"])) for line in untimed(whole, "completions")] == [
        (step, 4) for step in (1, 1, 2, 2, 3, 3, 4, 4)
    ]
    of_validation = untimed(whole, "validation_completions")
    assert [(line["step"], len(line["completions"])) for line in of_validation] == [(step, 2) for step in (0, 0, 2, 2, 4, 4)]
    assert [line["prompt"] for line in of_validation] == [line["prompt"] for line in of_validation[:2]] * 3
    for name in ("last", "best", "exports/step_3"):
        one, other = (load_file(folder / name / "model.safetensors") for folder in (whole, killed))
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)

    assert [path.name for path in (whole / "exports").iterdir()] == ["step_3"]  # of 4 steps; the last is last/

    records = untimed(whole)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    # K = 2 fast updates and the slow one are 3 passes; after the trigger fired, 1. 16 completions a step.
    passes = [1 if record["trigger_fired"] else 3 for record in records]
    assert [record["backward_passes"] for record in records] == [sum(passes[: step + 1]) for step in range(4)]
    assert [len(record["updates"]) for record in records] == passes
    assert passes[:3] == [3, 3, 3]  # the window of 3 entropies is full after step 3 at the earliest
    assert records[-1]["rollouts"] == 64 and all(record["sampler_gap_max"] < 1e-3 for record in records)
    validation = [json.loads(line) for line in (whole / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in validation] == [0, 2, 4]
    summary, resumed = (json.loads((folder / "summary.json").read_text()) for folder in (whole, killed))
    assert summary["steps"] == 4 and summary["best_step"] in (2, 4)
    for one in (summary["canary"], resumed["canary"], summary["canary"]["sampler"], resumed["canary"]["sampler"]):
        one.pop("seconds")
    assert summary["canary"] == resumed["canary"]  # of the starting policy, in every process of the run
    assert summary["trigger_fired_at"] == (4 if records[3]["trigger_fired"] else None) and summary["versions"]["torch"]
    assert list((whole / "tensorboard").glob("events*"))


def test_a_run_told_to_stop_saves_says_so_and_goes_on_to_the_same_bits(settings, tmp_path):
    settings = changed(settings, recipe__train__steps=6, execution__save_every=6)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(start(whole, settings), whole)
    process = start(stopped, settings)
    wait_for_lines(process, stopped, 2)
    process.send_signal(signal.SIGSTOP)  # it holds the folder while a second one tries
    assert start(stopped, settings).wait(timeout=300) == 1
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75
    log = (stopped / "log.txt").read_text()
    assert f"process {process.pid} on " in log and "is already training this run" in log
    step = int(re.search(r"SIGTERM: saved after step (\d)", log)[1])
    assert 2 <= step < 6
    finish(start(stopped, settings), stopped)
    assert f"resuming after step {step}" in (stopped / "log.txt").read_text()
    assert untimed(whole) == untimed(stopped)
    one, other = (load_file(folder / "last/model.safetensors") for folder in (whole, stopped))
    assert all(one[key].equal(other[key]) for key in one)


def test_a_finished_run_continues_to_more_steps_as_if_they_had_been_asked_for_at_once(without_vllm, tmp_path):
    # Validation every 2 steps, exports every 3: a run of 5 steps validates after its last one too, a run of 7 does not then.
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    finish(start(whole, changed(without_vllm, recipe__train__steps=7)), whole)
    finish(start(grown, changed(without_vllm, recipe__train__steps=5)), grown)
    assert [line["step"] for line in untimed(grown, "validation")] == [0, 2, 4, 5]
    computed = {
        "execution__engine__kv_cache_gib": 0.25,
        "execution__save_every": 3,
        "execution__report_to": [],
        "execution__log_completions": 0,
    }
    finish(start(grown, changed(without_vllm, recipe__train__steps=7, **computed)), grown)
    assert "resuming after step 5" in (grown / "log.txt").read_text()
    assert untimed(whole) == untimed(grown) and untimed(whole, "validation") == untimed(grown, "validation")
    for name in ("last", "best", "exports/step_3", "exports/step_6"):
        one, other = (load_file(folder / name / "model.safetensors") for folder in (whole, grown))
        assert all(one[key].equal(other[key]) for key in one)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, grown)]
    for key in (
        "settings_hash",
        "recipe_hash",
        "steps",
        "trigger_fired_at",
        "best_step",
        "rollouts",
        "tokens",
        "backward_passes",
    ):
        assert summaries[0][key] == summaries[1][key], key

    assert start(grown, changed(without_vllm, recipe__train__steps=6)).wait(timeout=300) == 1
    assert "train.steps = 6" in (grown / "log.txt").read_text()
    finish(start(grown, changed(without_vllm, recipe__train__steps=7)), grown)  # nothing to do: its files are linked again
    assert "had already finished with these settings" in (grown / "log.txt").read_text()


def test_adapters_reach_the_engine_merged(settings, tmp_path):
    lora = {"rank": 4, "alpha": 8.0}
    settings = changed(settings, recipe__train__lora=lora, recipe__train__optimizer__learning_rate=1e-2)
    finish(start(tmp_path, settings), tmp_path)
    start_weights, last = (load_file(Path(path) / "model.safetensors") for path in (settings.model_path, tmp_path / "last"))
    assert last.keys() == start_weights.keys()
    moved = {name for name in last if not last[name].equal(start_weights[name])}
    assert moved and all("_proj.weight" in name for name in moved)
    assert max((last[name] - start_weights[name]).abs().max().item() for name in moved) > 1e-2
    assert all(record["sampler_gap_max"] < 1e-3 for record in untimed(tmp_path))


WITHOUT_VLLM = """
import sys

sys.modules["vllm"] = None  # as where it is not installed: importing it raises
from sfpo.train import main

main([sys.argv[1], "--threads", "1"])
"""


def test_a_machine_without_vllm_trains_with_transformers(settings, tmp_path):
    (tmp_path / "settings.json").write_text(to_json(settings))
    command = [sys.executable, "-c", WITHOUT_VLLM, str(tmp_path / "settings.json")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=PROJECT)
    assert refused.returncode == 1 and "vllm" in refused.stderr
    (tmp_path / "settings.json").write_text(to_json(changed(settings, recipe__sampler__library="transformers")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-3000:]
    records = untimed(tmp_path)
    assert len(records) == 4 and all(record["sampler_gap_max"] < 1e-3 for record in records)


LOSES_A_GRADER = """
import sys
from dataclasses import replace
from pathlib import Path
from sfpo.rewards.math_answer import Grader
from sfpo.settings import RunSettings, load_settings
from sfpo.ranks import SINGLE_PROCESS
from sfpo.trainer.background import Background
from sfpo.trainer.loop import TrainingJob
from sfpo.trainer.run_store import RunStore

class LosesAWorker(Grader):
    def grade_all(self, responses, golds):
        first, *others = super().grade_all(responses, golds)
        self.job.stop()  # as SIGTERM does
        return [replace(first, correct=False, timed_out=True), *others]

path = Path(sys.argv[1])
with LosesAWorker(workers=1) as grader:
    settings = load_settings(RunSettings, path)
    grader.job = TrainingJob(settings, RunStore(settings, path.parent, SINGLE_PROCESS, Background(threaded=False)), grader)
    grader.job.run()
"""


def test_a_step_whose_graders_were_stopped_too_is_not_saved(without_vllm, tmp_path):
    (tmp_path / "settings.json").write_text(to_json(without_vllm))
    command = [sys.executable, "-c", LOSES_A_GRADER, str(tmp_path / "settings.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=PROJECT)
    assert done.returncode == 75, done.stderr
    assert "step 1 is not saved, because the grader did not finish all of its answers" in done.stderr
    assert not list(tmp_path.glob("state/*/step_*"))


FAILS_IN_VALIDATION = """
import sys
from sfpo.rollouts.engine import EngineFailure
from sfpo.rollouts.vllm_engine import VLLMEngine
from sfpo.train import main

generate, calls = VLLMEngine.generate, []

def fails_once(self, *arguments, **options):
    calls.append(1)
    if len(calls) == 2:  # the first call is the sampler check's; this is the validation before the first step
        raise EngineFailure("the device fell off the bus")
    return generate(self, *arguments, **options)

VLLMEngine.generate = fails_once
main([sys.argv[1], "--threads", "1"])
"""


def test_an_engine_that_fails_in_validation_is_replaced(settings, tmp_path):
    (tmp_path / "settings.json").write_text(to_json(changed(settings, recipe__train__steps=1)))
    command = [sys.executable, "-c", FAILS_IN_VALIDATION, str(tmp_path / "settings.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation after step 0: the device fell off the bus; restarting the engine to try again" in done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["engine_restarts"] == 1
    assert [line["step"] for line in untimed(tmp_path, "validation")] == [0, 1]


def test_weights_that_are_lost_stop_the_run_with_the_batch_saved(without_vllm, tmp_path):
    # The first update throws the weights to infinity. What such a policy samples is all wrong: nothing would be skipped either.
    process = start(tmp_path, changed(without_vllm, recipe__train__optimizer__learning_rate=1e38))
    assert process.wait(timeout=300) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "NonFiniteUpdates" in log and "the batch was saved to" in log, log[-2000:]
    batch = json.loads(next(tmp_path.glob("state/*/poisoned_batch.json")).read_text())
    assert len(batch["completion_ids"]) == 16


def test_a_diverged_run_can_be_a_result(without_vllm, tmp_path):
    changes = {"optimizer__learning_rate": 1e38, "on_divergence": "zero", "steps": 5}
    process = start(tmp_path, changed(without_vllm, **{f"recipe__train__{key}": value for key, value in changes.items()}))
    finish(process, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["diverged_at"], summary["steps"]) == (2, 1)  # the second step finds what the first has done
    assert [line["step"] for line in untimed(tmp_path)] == [1]
    # 4 prompts x 4 completions a step; the validations left are those of steps 2, 4 and 5.
    left = [line for line in untimed(tmp_path, "validation") if line["step"]]
    assert [(line["step"], line["accuracy"], line["rollouts"]) for line in left] == [(2, 0, 32), (4, 0, 64), (5, 0, 80)]
    assert all(line["diverged"] for line in left)
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"step_3"} and (
        tmp_path / "best/manifest.json"
    ).is_file()


def test_prompts_over_the_limit_are_counted_and_an_empty_rest_is_told(without_vllm, tmp_path, data):
    lengths = pd.read_parquet(data / "train.parquet").problem.str.len()
    assert lengths.nunique() == 1  # two-digit sums: all prompts are as long, so a limit leaves all or none
    process = start(tmp_path, changed(without_vllm, recipe__limits__max_prompt_tokens=3))
    assert process.wait(timeout=300) != 0
    assert "no prompt is within max_prompt_tokens = 3" in (tmp_path / "log.txt").read_text()
