"""Several checkpoints in one engine: each scored as if alone, none scored twice."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import eval.evaluate_checkpoints as evaluation
from sfpo.config import Benchmark, Evaluate
from sfpo.data.prepare import prepare_benchmark
from sfpo.manifest import write_manifest
from sfpo.settings import BenchmarkSettings, EvaluationSettings

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
            checkpoints={name: str(path) for name, path in checkpoints.items()},
            benchmarks={"sums": str(problems)},
            graders={"sums": "math"},
            limits=limits,
            instruction="{problem}",
            evaluate=Evaluate(samples=2),
            engine=params.suites["tiny"].engine,
        )

    return make


def texts(folder, name: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("id", "responses")} for row in rows if row["checkpoint"] == name]


def test_each_checkpoint_is_scored_as_if_alone_and_a_finished_one_is_kept(
    settings_of, checkpoint, changed, tmp_path, monkeypatch
):
    both = settings_of(first=checkpoint, second=changed)
    evaluation.evaluate(both, tmp_path / "both")
    assert not (tmp_path / "both/state").exists()
    scores = pd.read_parquet(tmp_path / "both/scores.parquet")
    assert scores.groupby("checkpoint").size().to_dict() == {"first": 12, "second": 12}  # 6 problems x 2 samples
    results = json.loads((tmp_path / "both/results.json").read_text())["checkpoints"]
    assert results["second"]["checkpoint_step"] == 7 and results["first"]["checkpoint_step"] is None

    evaluation.evaluate(settings_of(second=changed), tmp_path / "alone")
    assert texts(tmp_path / "alone", "second") == texts(tmp_path / "both", "second") != texts(tmp_path / "both", "first")

    # A process that dies in the second goes on with the second.
    score, scored = evaluation._score, []

    def dies(settings, engine, seconds):
        if scored:
            raise KeyboardInterrupt
        scored.append("first")
        return score(settings, engine, seconds)

    monkeypatch.setattr(evaluation, "_score", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(both, tmp_path / "killed")
    assert not (tmp_path / "killed/results.json").exists()
    monkeypatch.setattr(evaluation, "_score", lambda *call: scored.append("second") or score(*call))
    evaluation.evaluate(both, tmp_path / "killed")
    assert scored == ["first", "second"]
    assert pd.read_parquet(tmp_path / "killed/scores.parquet").equals(scores)


def test_a_damaged_checkpoint_stops_it_before_anything_is_scored(settings_of, checkpoint, changed, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(changed, damaged)
    (damaged / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"damaged/config.json: damaged"):
        evaluation.evaluate(settings_of(first=checkpoint, second=damaged), tmp_path / "out")
    assert not (tmp_path / "out").exists()
