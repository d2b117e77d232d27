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
    # 1 data set + 6 benchmarks; 1 model; 2 arms x 3 seeds; those and the base evaluated; 7 tables and figures.
    assert {top: tops.count(top) for top in set(tops)} == {"data": 7, "models": 1, "runs": 6, "evaluations": 7, "results": 7}


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
    items = raw["suites"]["tiny"]["items"]
    assert changed(raw, change) - new == {f"results/tiny/items/{name}/settings.json" for name in items}


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


def test_runs_of_several_items_are_trained_once_and_evaluated_where_they_are_scored(raw):
    raw["suites"]["tiny"]["items"] = {
        "table1": {"shows": "scores"},
        "table2": {"shows": "scores", "arms": ["grpo"], "benchmarks": ["formulas"]},
        "figure5": {"shows": "curves", "arms": ["grpo", "grpo_k"]},
    }
    found, of_data = resolve(raw), "tiny-qwen2/arithmetic"
    trained = [path.split("/")[4] for path in found if path.startswith("runs/")]
    assert sorted(trained) == sorted(["grpo", "sfpo", "grpo_k"] * 3)
    evaluated = [path.split("/")[4] for path in found if path.startswith(f"evaluations/tiny/{of_data}/")]
    assert sorted(evaluated) == sorted(["grpo", "sfpo"] * 3)  # figure5 shows training alone
    six = raw["suites"]["tiny"]["benchmarks"]
    for arm, benchmarks in {"grpo": [*six, "formulas"], "sfpo": six}.items():
        assert list(found[f"evaluations/tiny/{of_data}/{arm}/seed0/settings.json"].benchmarks) == benchmarks
    lines = jobs.runs_by_item(jobs.reports(parse(Params, raw, "params.yaml"))).splitlines()
    assert lines[0] == "9 training runs:"
    assert lines[3].split(maxsplit=1) == ["figure5", "6 runs (1 model x 1 data set x 2 arms x 3 seeds), 3 of them new"]


@pytest.mark.parametrize(
    ("checkpoint", "items", "scored"),
    [
        # 60 steps, a checkpoint kept every 20.
        ("best", {"table1": {"shows": "scores"}}, ["best"]),
        ("last", {"table1": {"shows": "scores"}}, ["last"]),
        ("best_on_other_half", {"table1": {"shows": "scores"}}, ["step_20", "step_40", "last"]),
        ("last", {"one": {"shows": "scores"}, "all": {"shows": "selection"}}, ["last", "best", "step_20", "step_40"]),
    ],
)
def test_the_checkpoints_that_are_shown_or_chosen_from_are_scored(raw, checkpoint, items, scored):
    tiny = raw["suites"]["tiny"]
    tiny["items"], tiny["evaluate"]["checkpoint"], tiny["train"]["export_every"] = items, checkpoint, 20
    run = "tiny/tiny-qwen2/arithmetic/grpo/seed0"
    found = resolve(raw)[f"evaluations/{run}/settings.json"].checkpoints
    assert list(found) == scored
    assert all(path == f"runs/{run}/{'exports/' if '_' in name else ''}{name}" for name, path in found.items())


def test_without_kept_checkpoints_there_is_nothing_to_choose_from(raw):
    small = raw["suites"]["small"]  # keeps none
    small["evaluate"]["checkpoint"] = "best_on_benchmarks"
    with pytest.raises(ConfigError, match=r"small: train.export_every must be set: evaluate.checkpoint is best_on_benchmarks"):
        parse(Params, raw, "params.yaml")
    small["evaluate"]["checkpoint"] = "best"
    small["items"]["choice"] = {"shows": "selection"}
    with pytest.raises(ConfigError, match=r"small: train.export_every must be set: items.choice shows selection"):
        parse(Params, raw, "params.yaml")


def test_overrides_change_the_runs_that_they_concern(raw):
    raw["suites"]["tiny"]["overrides"] = [
        {"arms": ["sfpo"], "rule": {"alpha": 0.9}, "train": {"optimizer": {"learning_rate": 1e-5}}},
        {"arms": ["sfpo"], "datasets": ["programs"], "rule": {"alpha": 0.1}},  # concerns no run
        {"models": ["tiny-qwen2"], "max_completion_tokens": 32, "instruction": "Solve: {problem}"},
    ]
    found = resolve(raw)
    grpo, sfpo = (found[f"runs/tiny/tiny-qwen2/arithmetic/{arm}/seed0/settings.json"] for arm in ("grpo", "sfpo"))
    tiny = raw["suites"]["tiny"]["train"]
    assert (grpo.train.optimizer.learning_rate, sfpo.train.optimizer.learning_rate) == (
        tiny["optimizer"]["learning_rate"],
        1e-5,
    )
    assert sfpo.arm.rule_settings["alpha"] == 0.9 and sfpo.train.steps == tiny["steps"]
    assert grpo.limits.max_completion_tokens == 32 and grpo.instruction == "Solve: {problem}"
    evaluations = [found[f"evaluations/tiny/tiny-qwen2/{path}/settings.json"] for path in ("arithmetic/grpo/seed0", "base")]
    assert [one.limits.max_completion_tokens for one in evaluations] == [32, 64]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"train": {"step": 3}}, r"overrides\[0\].train: step: "),
        ({"train": {"mini_batch_prompts": 3}}, r"overrides\[0\].train: .*must divide prompts_per_step"),
        ({"arms": ["nobody"]}, r"suites.tiny.overrides\[0\].arms: 'nobody' is not defined"),
        ({"instruction": "no place"}, "must hold {problem}"),
        ({"arms": ["sfpo"], "rule": {"alpha": 2.0}}, "overrides: arm sfpo.alpha = 2.0"),
    ],
)
def test_impossible_overrides_stop_before_any_job(raw, override, told):
    raw["suites"]["tiny"]["overrides"] = [override]
    with pytest.raises(ConfigError, match=told):
        jobs.check(parse(Params, raw, "params.yaml"))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ({}, "items"),
        ({"table1": {"shows": "score"}}, "items.table1.shows"),
        ({"Table-1": {"shows": "scores"}}, "items"),
        ({"table1": {"shows": "scores", "arms": ["nobody"]}}, "items.table1.arms: 'nobody' is not defined"),
        ({"table1": {"shows": "scores", "arms": ["grpo", "grpo"]}}, "items.table1.arms names grpo twice"),
    ],
)
def test_impossible_items_stop_before_any_job(raw, items, told):
    raw["suites"]["tiny"]["items"] = items
    with pytest.raises(ConfigError, match=told):
        parse(Params, raw, "params.yaml")


def test_the_paper_suite_names_every_table_and_figure_and_trains_nothing_twice(raw):
    for suite in ("paper", "paper-tiny"):
        raw["suite"] = suite
        items = {item.item: item for item in jobs.reports(parse(Params, raw, "params.yaml"))}
        figures = [f"figure{n}" for n in (2, 3, 4, "5a", "5b", "5c", "5d", 6, 7, 8, 9, 10, 11, 12)]
        if suite == "paper":  # LiveCodeBench beside the curves
            figures.insert(figures.index("figure11"), "figure10_scores")
        assert list(items) == ["table1", "table2", "table3", *figures, "targets", "contamination", "selection"]
        found = jobs.runs(items.values())
        assert len(found) == len(set(found))
