"""params.yaml parses, and everything impossible is told by key, value and remedy."""

import copy
from pathlib import Path

import pytest
import yaml

from sfpo.config import Params, load_params
from sfpo.schema import ConfigError, parse
from sfpo.settings import RunId, RunSettings, load_settings, settings_hash, to_json

PARAMS = Path(__file__).parent.parent / "params.yaml"


@pytest.fixture
def raw():
    return yaml.safe_load(PARAMS.read_text())


def fault(raw: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Params, raw, "params.yaml")
    return str(caught.value)


def test_every_suite_of_the_committed_file_parses(raw):
    for suite in raw["suites"]:
        assert parse(Params, {**raw, "suite": suite}, "params.yaml").active.seeds


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("suites.tiny.train.stepz", 3, "suites.tiny.train.stepz: unknown key; allowed here: completions_per_prompt"),
        ("suites.tiny.train.stepz", 3, "did you mean steps?"),
        ("siute", "tiny", "siute: unknown key; allowed here: arms"),
        ("models.tiny-qwen2.warm_up.lr", 1, "models.tiny-qwen2.warm_up.lr: unknown key; allowed here: batch_size"),
        ("datasets.math.parts.math.splitt", "x", "datasets.math.parts.math.splitt: unknown key"),
        ("suites.tiny.seeds", [], "suites.tiny.seeds = []: list should have at least 1 item"),
        ("suites.tiny.seeds", [1, 1], "seeds names 1 twice"),
        ("suites.tiny.seeds", [-1], "suites.tiny.seeds.0 = -1: input should be greater than or equal to 0"),
        ("suites.tiny.arms", ["grpoo"], "suites.tiny.arms: 'grpoo' is not defined; defined are: dapo"),
        ("suite", "large", "suite: 'large' is not defined; defined are: "),
        ("suites.tiny.train.optimizer.learning_rate", -1, "learning_rate = -1: input should be greater than 0"),
        ("suites.tiny.train.mini_batch_prompts", 5, "mini_batch_prompts 5 must divide prompts_per_step 16"),
        (
            "suites.tiny.train.completions_per_prompt",
            1,
            "completions_per_prompt = 1: input should be greater than or equal to 2",
        ),
        ("suites.tiny.instruction", "solve", "the instruction must hold {problem}"),
        ("models.tiny-qwen2.source", "hubb", "models.tiny-qwen2.source = 'hubb': allowed are 'scratch', 'package'"),
        ("models.tiny-qwen2.warm_up.pass_rate", [0.5, 0.2], "must be [low, high] with low < high"),
        ("arms.sfpo.objective", "ppo", "arms.sfpo.objective: 'ppo' is not defined; defined are: "),
        ("suites.paper.resources.processes", 4, "processes 4 must be the number of GPUs, 8: each process has one"),
        ("suites.paper.resources.tasks", 3, "tasks 3 must divide the number of processes, 8"),
        ("suites.tiny.engine", {"library": "transformers", "tensor_parallel": 2}, "tensor_parallel 2 needs library vllm"),
        ("arms.base", {"rule": "grpo", "objective": "grpo"}, "the name 'base' is taken"),
    ],
)
def test_an_impossible_setting_is_told(raw, path, value, told):
    node = raw
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    assert told in fault(raw)


def test_a_missing_key_is_told(raw):
    del raw["arms"]["sfpo"]["objective"]
    assert "arms.sfpo.objective: missing" in fault(raw)


def test_all_faults_are_told_at_once(raw):
    raw["suites"]["tiny"]["seeds"], raw["suites"]["small"]["seedz"] = [], [0]
    assert "suites.tiny.seeds" in fault(raw) and "suites.small.seedz" in fault(raw)


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("suite: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="no such settings file"):
        load_settings(RunSettings, tmp_path / "settings.json")


def test_rule_settings_are_the_arms_other_keys():
    arm = load_params(PARAMS).arms["sfpo"]
    assert arm.rule_settings.keys() == {"num_fast_steps", "alpha", "entropy_trigger"}


def test_equal_settings_have_equal_text_and_hash():
    first, second = (RunId(suite="tiny", model="m", dataset="d", arm="grpo", seed=0) for _ in range(2))
    assert to_json(first) == to_json(second) and settings_hash(first) == settings_hash(second)
    assert settings_hash(first) != settings_hash(first.model_copy(update={"seed": 1}))
    assert first.path == "tiny/m/d/grpo/seed0"


def test_params_are_frozen(params):
    with pytest.raises(ValueError, match="frozen"):
        params.suite = "small"
    assert copy.deepcopy(params) == params
