"""A result belongs to the recipe whose identity it carries, whatever clocks say and whatever was changed meanwhile."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from sfpo.staleness import record_of
from tests.trainer.jobs import lines_of
from tests.workflow.pipeline import ENVIRONMENT, REPORT, change_alpha, changing, planned, run

pytestmark = pytest.mark.pipeline

SFPO = "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0"
STALE = {"train_run": 1, "evaluate_run": 1, "record_step": 1, **REPORT}


def start(folder: Path, *targets: str) -> subprocess.Popen:
    with (folder / "snakemake.txt").open("w") as output:
        command = ["snakemake", "--cores", "1", "--", *targets]
        return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True)


def wait_until_it_trains(process: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + 300
    while not lines_of(folder / SFPO):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "snakemake.txt").read_text()[-3000:]
        time.sleep(0.05)


def test_settings_changed_while_a_job_runs_make_its_result_stale_and_not_fresh(clone):
    with changing(clone) as params:
        params["suites"]["tiny"]["train"]["steps"] = 6
    process = start(clone, f"{SFPO}/summary.json")
    wait_until_it_trains(process, clone)
    with changing(clone) as params:
        params["suites"]["tiny"]["train"]["steps"] = 7
    assert planned(clone)["train_run"] == 2
    assert process.wait(timeout=300) == 0, (clone / "snakemake.txt").read_text()[-3000:]
    assert record_of(SFPO, clone)["steps"] == 6
    assert planned(clone)["train_run"] == 2  # both arms: GRPO has done 2 steps, SFPO 6
    with changing(clone) as params:
        params["suites"]["tiny"]["train"]["steps"] = 6
    assert planned(clone)["train_run"] == 1


def test_no_clock_hides_a_changed_setting(clone):
    ahead = time.time() + 600
    for top in ("data", "models", "runs", "evaluations", "results"):
        for path in (clone / top).rglob("*"):
            os.utime(path, (ahead, ahead))
    assert planned(clone) == {}
    change_alpha(clone, 0.7)
    assert planned(clone) == STALE
    change_alpha(clone, 0.8)
    for path in [clone / SFPO / "summary.json", *(clone / "data").rglob("*")]:
        os.utime(path, (0, 0))  # and of 1970: content alone counts
    assert planned(clone) == {}


def test_the_report_refuses_a_result_of_other_settings_or_inputs(clone):
    run(clone, "snakemake", "--cores", "1", "--forcerun", "table1", "--", "table1")
    results = clone / "evaluations/tiny/tiny-qwen2/arithmetic/sfpo/seed0/results.json"
    whole = results.read_text()
    results.write_text(json.dumps({**json.loads(whole), "settings_hash": "another"}))
    item = ("python", "-m", "eval.report.render", "results/tiny/items/table1/settings.json")
    told = run(clone, *item, ok=False)
    assert "evaluations/tiny/tiny-qwen2/arithmetic/sfpo/seed0" in told
    results.write_text(whole)
    run(clone, *item)
    manifest = clone / SFPO / "best/manifest.json"
    manifest.write_text(manifest.read_text() + " ")  # another checkpoint than the one that was scored
    assert f"{SFPO}/best/manifest.json" in run(clone, *item, ok=False)
    assert planned(clone)["evaluate_run"] == 1


def test_a_corrected_gold_and_other_weights_of_a_local_model_are_noticed(clone, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    rows = [{"id": str(k), "problem": f"{k}+1=?", "answer": str(k + 1)} for k in range(5)]
    (mirror / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(clone / "models/tiny/tiny-qwen2/checkpoint", tmp_path / "mine")
    limits = {"max_prompt_tokens": 72, "max_completion_tokens": 64}
    with changing(clone) as params:
        params["data_mirror"] = str(mirror)
        params["benchmarks"]["sums"]["rows"] = {"source": "hub", "mirror": "sums.jsonl"}
        params["models"]["mine"] = {"source": "local", "path": str(tmp_path / "mine"), **limits}
        params["suites"]["tiny"]["models"] = ["mine"]
    problems, model = "data/tiny/benchmarks/sums/problems.parquet", "models/tiny/mine/checkpoint/manifest.json"
    run(clone, "snakemake", "--cores", "1", "--", problems, model)

    def stale() -> Counter:
        return Counter(rule for rule in planned(clone) if rule in ("prepare_benchmark", "prepare_model"))

    assert not stale()
    (mirror / "sums.jsonl").write_text((mirror / "sums.jsonl").read_text().replace('"answer": "5"', '"answer": "6"'))
    assert stale() == {"prepare_benchmark": 1}
    weights = tmp_path / "mine/model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert stale() == {"prepare_benchmark": 1, "prepare_model": 1}


def test_a_check_and_a_dry_run_write_nothing(clone):
    def content() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in clone.rglob("*") if path.is_file() and not {".snakemake", ".git", ".dvc"} & set(path.parts)]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if "__pycache__" not in path.parts}

    change_alpha(clone, 0.7)
    before = content()
    run(clone, "snakemake", "-n", "--config", "suite=paper")
    run(clone, "python", "-m", "sfpo.jobs", "--suite", "paper")
    run(clone, "snakemake", "-n")
    told = run(clone, "python", "-m", "sfpo.jobs")
    assert f"stale: {SFPO}: 2 steps, 0.00 h of another recipe (rule.settings.alpha: 0.8 -> 0.7)" in told
    assert content() == before
    assert run(clone, "git", "status", "--porcelain").split() == ["M", "params.yaml"]


@pytest.mark.slow
def test_another_recipe_leaves_what_was_computed_and_going_back_costs_no_training(clone):
    with changing(clone) as params:
        params["suites"]["tiny"]["execution"]["resources"]["runtime"] = 21  # how a run is computed is not its recipe
    run(clone, "snakemake", "--cores", "1", "--forcerun", "train_run", "--", f"{SFPO}/summary.json")  # has a state here now
    first = (clone / SFPO / "last/model.safetensors").read_bytes()
    change_alpha(clone, 0.3)
    run(clone, "snakemake", "--cores", "1", "--", f"{SFPO}/summary.json")
    assert (clone / SFPO / "last/model.safetensors").read_bytes() != first
    assert "was set aside (rule.settings.alpha: 0.8 -> 0.3" in log_of(clone)
    assert len(list((clone / SFPO / "state").iterdir())) == 2
    change_alpha(clone, 0.8)
    run(clone, "snakemake", "--cores", "1", "--", f"{SFPO}/summary.json")
    assert "had already finished with these settings" in log_of(clone)
    assert (clone / SFPO / "last/model.safetensors").read_bytes() == first
    listed = run(clone, "python", "-m", "sfpo.clean")
    assert re.search(rf"{SFPO}/state/\w+: another recipe, \d+\.\d MiB", listed) and "1 folders that no suite uses" in listed
    run(clone, "python", "-m", "sfpo.clean", "--remove")
    assert len(list((clone / SFPO / "state").iterdir())) == 1 and "0 folders" in run(clone, "python", "-m", "sfpo.clean")


def log_of(folder: Path) -> str:
    return (folder / "logs/tiny/tiny-qwen2/arithmetic/sfpo/seed0/train.log").read_text()


@pytest.mark.slow
def test_dvc_changes_the_setting_that_it_is_asked_to_change(clone):
    run(clone, "dvc", "exp", "run", "-S", "suites.tiny.train.steps=3", "-S", "arms.sfpo_k7_a02.alpha=0.5")
    summaries = clone.glob("runs/*/*/*/*/seed*/summary.json")
    assert {json.loads(path.read_text())["steps"] for path in summaries} == {3}
    params = yaml.safe_load((clone / "params.yaml").read_text())
    assert [params["arms"][name]["alpha"] for name in ("sfpo_k7_a02", "sfpo_k7_a04", "sfpo")] == [0.5, 0.4, 0.8]
    # A key that an entry has from the one that it extends is not there to be changed; DVC says so.
    assert "Could not override 'arms.sfpo_k7.alpha'" in run(
        clone, "dvc", "exp", "run", "-S", "arms.sfpo_k7.alpha=0.1", ok=False
    )


@pytest.mark.slow
def test_training_that_outlives_its_workflow_is_waited_for_and_not_done_again(clone):
    with changing(clone) as params:
        params["suites"]["tiny"]["train"]["steps"] = 8
    process = start(clone, f"{SFPO}/summary.json")
    wait_until_it_trains(process, clone)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "--unlock" in run(clone, "snakemake", "--cores", "1", "--", f"{SFPO}/summary.json", ok=False)
    run(clone, "snakemake", "--unlock")
    run(clone, "snakemake", "--cores", "1", "--", f"{SFPO}/summary.json")
    assert "had already finished with these settings" in log_of(clone) or "resuming after step" in log_of(clone)
    assert record_of(SFPO, clone)["steps"] == 8
