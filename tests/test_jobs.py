"""Which settings files there are, and that a changed setting changes those that it decides, and no others."""

import copy
from pathlib import Path

import pytest
import yaml

from sfpo import jobs
from sfpo.config import Params
from sfpo.schema import ConfigError, parse
from sfpo.settings import RunSettings, load_settings

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def raw():
    return yaml.safe_load((PROJECT / "params.yaml").read_text())


def resolve(raw: dict) -> dict:
    return jobs.resolve(parse(Params, raw, "params.yaml"))


def changed(raw: dict, change) -> set[str]:
    before, edited = resolve(raw), copy.deepcopy(raw)
    change(edited)
    after = resolve(edited)
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_one_file_for_every_job_of_the_tiny_suite(raw):
    tops = [path.split("/")[0] for path in resolve(raw)]
    # 1 data set + 6 benchmarks; 1 model; 2 arms x 3 seeds; those and the base evaluated; 1 report.
    assert {top: tops.count(top) for top in set(tops)} == {"data": 7, "models": 1, "runs": 6, "evaluations": 7, "results": 1}


def test_a_setting_of_one_arm_touches_that_arms_runs_alone(raw):
    def change(edited):
        edited["arms"]["sfpo"]["alpha"] = 0.7

    assert changed(raw, change) == {f"runs/tiny/tiny-qwen2/arithmetic/sfpo/seed{seed}/settings.json" for seed in (0, 1, 2)}


def test_a_training_setting_touches_all_runs(raw):
    def change(edited):
        edited["suites"]["tiny"]["train"]["optimizer"]["learning_rate"] = 1e-4

    assert changed(raw, change) == {path for path in resolve(raw) if path.startswith("runs/")}


def test_another_seed_adds_a_run_and_its_evaluation(raw):
    def change(edited):
        edited["suites"]["tiny"]["seeds"] = [0, 1, 2, 3]

    new = {path for path in changed(raw, change) if "seed3" in path}
    assert len(new) == 4  # 2 arms: a run and an evaluation each
    assert changed(raw, change) - new == {"results/tiny/settings.json"}


def test_files_are_written_once_and_rewritten_only_when_they_change(raw, tmp_path):
    settings = resolve(raw)
    assert len(jobs.write_settings(settings, tmp_path)) == len(settings)
    assert jobs.write_settings(settings, tmp_path) == []
    raw["arms"]["sfpo"]["alpha"] = 0.7
    assert len(jobs.write_settings(resolve(raw), tmp_path)) == 3
    path = tmp_path / "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed1/settings.json"
    assert load_settings(RunSettings, path).arm.rule_settings["alpha"] == 0.7


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("alpha", 1.5, "arms.sfpo.alpha = 1.5: the reposition factor must lie in"),
        ("alpha", "much", "arms.sfpo = .*'alpha': 'much'.*: a value has the wrong type"),
        ("num_fast_steps", -1, "arms.sfpo.num_fast_steps = -1: K must be a whole number"),
        ("alpa", 0.8, "arms.sfpo.alpa: unknown setting of rule sfpo; allowed are: num_fast_steps, alpha"),
        ("rule", "sgd", "arms.sfpo.rule = 'sgd': allowed are "),
    ],
)
def test_impossible_rule_settings_stop_before_any_job(raw, key, value, told):
    raw["arms"]["sfpo"][key] = value
    with pytest.raises(ConfigError, match=told):
        jobs.check(parse(Params, raw, "params.yaml"))


def test_a_missing_mirror_file_stops_before_any_job(raw, tmp_path):
    raw.update(suite="small", data_mirror=str(tmp_path))
    with pytest.raises(ConfigError, match=r"math_train\.parquet"):
        jobs.check(parse(Params, raw, "params.yaml"))


def test_a_broken_benchmark_line_stops_before_any_job(raw, tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/math500.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n{"problem": \n')
    raw["suites"]["small"].update(benchmarks=["math500"], datasets=["arithmetic"])
    raw.update(suite="small", data_mirror=str(tmp_path))
    with pytest.raises(ConfigError, match=r"math500\.jsonl.*2"):
        jobs.check(parse(Params, raw, "params.yaml"))


def test_a_local_model_without_a_chat_template_stops_before_any_job(raw, tmp_path):
    raw["models"]["mine"] = {"source": "local", "path": str(tmp_path), "max_prompt_tokens": 8, "max_completion_tokens": 8}
    raw["suites"]["tiny"]["models"] = ["mine"]
    with pytest.raises(ConfigError, match="chat template"):
        jobs.check(parse(Params, raw, "params.yaml"))
