"""Several checkpoints in one engine: each scored as if alone, none scored twice."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from eval.evaluate_checkpoints import _score, _shown, evaluate
from sfpo.config import Benchmark, Evaluate
from sfpo.data.prepare import prepare_benchmark
from sfpo.data.prompts import load_problems, prompts_sha256, render
from sfpo.manifest import write_manifest
from sfpo.settings import BenchmarkSettings, EvaluationSettings, to_json

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark = Benchmark.model_validate({"title": "Sums", "rows": {"source": "generated", "tasks": {"sums": 6}}})
    prepare_benchmark(BenchmarkSettings(name="sums", benchmark=benchmark, data_mirror=None), folder)
    return folder / "problems.parquet"


@pytest.fixture(scope="module")
def changed(tmp_path_factory, checkpoint):
    """The checkpoint with other weights."""
    folder = tmp_path_factory.mktemp("changed") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    torch.manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    moved = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    write_manifest(folder, step=7)
    return folder


@pytest.fixture
def settings_of(params, limits, problems):
    def make(**checkpoints) -> EvaluationSettings:
        return EvaluationSettings(
            model="tiny",
            run=None,
            policy="the random model",
            checkpoints={name: str(path) for name, path in checkpoints.items()},
            benchmarks={"sums": str(problems)},
            problems={"sums": "six sums"},
            graders={"sums": "math"},
            limits=limits,
            instruction="{problem}",
            instructions={"sums": "Work out {problem}"},
            evaluate=Evaluate(samples=1, samples_of={"sums": 2}),
            sampler=params.suites["tiny"].sampler,
            engine=params.suites["tiny"].execution.engine,
        )

    return make


def start(settings: EvaluationSettings, folder: Path) -> subprocess.Popen:
    """The job in a process of its own: a second vLLM engine would take this process's groups with it when it goes."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(to_json(settings))
    command = [sys.executable, "-m", "eval.evaluate_checkpoints", str(folder / "settings.json"), "--threads", "1"]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)


def finish(process: subprocess.Popen, folder: Path) -> str:
    """What it said."""
    assert process.wait(300) == 0, (folder / "log.txt").read_text()[-3000:]
    return (folder / "log.txt").read_text()


def texts(folder: Path, name: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("id", "responses")} for row in rows if row["checkpoint"] == name]


def test_each_checkpoint_is_scored_as_if_alone_and_a_finished_one_is_kept(settings_of, checkpoint, changed, tmp_path):
    together, alone, killed = tmp_path / "together", tmp_path / "alone", tmp_path / "killed"
    both = settings_of(first=checkpoint, second=changed)
    assert "already evaluated" not in finish(start(both, together), together)
    scores = pd.read_parquet(together / "scores.parquet")
    assert scores.groupby("checkpoint").size().to_dict() == {"first": 12, "second": 12}  # 6 problems x 2 samples
    results = json.loads((together / "results.json").read_text())["checkpoints"]
    assert results["second"]["checkpoint_step"] == 7 and results["first"]["checkpoint_step"] is None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)  # the benchmark's own instruction goes before the suite's
    rows = sorted(load_problems(both.benchmarks["sums"]), key=lambda row: row.id)
    asked = prompts_sha256((row.id, render(tokenizer, "Work out {problem}", row.problem)) for row in rows)
    assert results["first"]["prompts_sha256"] == results["second"]["prompts_sha256"] == {"sums": asked}

    finish(start(settings_of(second=changed), alone), alone)
    assert texts(alone, "second") == texts(together, "second") != texts(together, "first")

    process = start(both, killed)
    while not list(killed.glob("state/*/first.json")):
        assert process.poll() is None, (killed / "log.txt").read_text()[-3000:]
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (killed / "results.json").exists()
    assert "first: already evaluated" in finish(start(both, killed), killed)
    assert pd.read_parquet(killed / "scores.parquet").equals(scores)

    # The workflow removes a stale product; where nothing but the engine's memory is different, nothing is sampled again.
    (together / "scores.parquet").unlink()
    other_engine = both.model_copy(update={"engine": both.engine.model_copy(update={"max_sequences": 8})})
    log = finish(start(other_engine, together), together)
    assert "first: already evaluated" in log and "second: already evaluated" in log
    assert pd.read_parquet(together / "scores.parquet").equals(scores)


def test_samples_do_not_repeat_the_tests_of_programs():
    doc = {"id": "a", "problem": "p", "answer": ["..."], "solution": None}
    assert "answer" not in _shown(doc | {"grader": "code"}) and _shown(doc | {"grader": "math"})["answer"] == ["..."]


def test_a_damaged_checkpoint_stops_it_before_anything_is_scored(settings_of, checkpoint, changed, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(changed, damaged)
    (damaged / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"damaged/config.json: damaged"):
        evaluate(settings_of(first=checkpoint, second=damaged), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_other_processes_of_an_engine_have_no_scores_to_write(settings_of, checkpoint, vllm_engine, monkeypatch):
    settings = settings_of(first=checkpoint)
    assert _score(settings, vllm_engine, {})["benchmarks"]["sums"]["problems"] == 6
    monkeypatch.setenv("LOCAL_RANK", "1")  # lm-eval tells the first process alone
    assert _score(settings, vllm_engine, {}) == {}


@pytest.mark.slow
def test_an_engine_over_two_processes_scores_the_same(settings_of, checkpoint, tmp_path):
    alone, split = tmp_path / "alone", tmp_path / "split"
    settings = settings_of(first=checkpoint)
    finish(start(settings, alone), alone)
    split.mkdir()
    engine = settings.engine.model_copy(update={"tensor_parallel": 2})
    (split / "settings.json").write_text(to_json(settings.model_copy(update={"engine": engine})))
    launch = ["-m", "workflow.launch", "2", "eval.evaluate_checkpoints", str(split / "settings.json"), "--threads", "1"]
    done = subprocess.run([sys.executable, *launch], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert texts(split, "first") == texts(alone, "first")
    assert pd.read_parquet(split / "scores.parquet").equals(pd.read_parquet(alone / "scores.parquet"))
