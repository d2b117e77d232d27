"""params.yaml parses, and everything impossible is told by key, value and remedy."""

import copy
import logging
from pathlib import Path

import pytest
import yaml

from sfpo.config import Params, load_params
from sfpo.config.plain_yaml import PlainLoader
from sfpo.schema import ConfigError
from sfpo.settings import RunId, RunSettings, load_settings

PARAMS = Path(__file__).parent.parent / "params.yaml"


@pytest.fixture
def raw():
    return yaml.load(PARAMS.read_text(), Loader=PlainLoader)


@pytest.fixture
def load(tmp_path):
    """Loads settings as if they stood in params.yaml."""

    def loaded(raw: dict | str, suite: str | None = None, changes: dict | None = None) -> Params:
        path = tmp_path / "params.yaml"
        path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
        return load_params(path, suite, changes)

    return loaded


@pytest.fixture
def fault(load):
    def told(raw: dict | str, suite: str | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            load(raw, suite)
        return str(caught.value)

    return told


def set_path(raw: dict, path: str, value: object) -> None:
    node = raw
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value


def test_every_suite_of_the_committed_file_parses(raw, caplog):
    for suite in raw["suites"]:
        assert load_params(PARAMS, suite).active.seeds
    assert not caplog.records  # nothing that another suite names is wrong


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("suites.tiny.train.stepz", 3, "suites.tiny.train.stepz: unknown key; allowed here: completions_per_prompt"),
        ("suites.tiny.evaluate.samples_of", {"amc": 8}, "evaluate.samples_of.amc = 8: allowed are chains, differences,"),
        ("suites.tiny.evaluate.samples_of", {"sums": 0}, "suites.tiny.evaluate.samples_of.sums"),
        ("suites.tiny.train.stepz", 3, "did you mean steps?"),
        ("suites.tiny.train.micro_batch_tokens", 3, "suites.tiny.train.micro_batch_tokens: unknown key"),  # of execution
        ("suites.tiny.execution.engine.dtype", "float32", "suites.tiny.execution.engine.dtype: unknown key"),  # of sampler
        ("siute", "tiny", "siute: unknown key; allowed here: arms"),
        ("models.tiny-qwen2.warm_up.lr", 1, "models.tiny-qwen2.warm_up.lr: unknown key; allowed here: batch_size"),
        ("datasets.arithmetic.parts.generated.splitt", "x", "datasets.arithmetic.parts.generated.splitt: unknown key"),
        ("suites.tiny.seeds", [], "suites.tiny.seeds = []: list should have at least 1 item"),
        ("suites.tiny.seeds", [1, 1], "seeds names 1 twice"),
        ("suites.tiny.train.steps", True, "suites.tiny.train.steps = True: input should be a valid integer"),
        ("suites.tiny.seeds", [True], "suites.tiny.seeds.0 = True: input should be a valid integer"),
        ("suites.tiny.execution.resources", {"gpu": True}, "suites.tiny.execution.resources.gpu"),
        ("suites.tiny.train.steps", "60", "suites.tiny.train.steps = '60': input should be a valid integer"),
        ("suites.tiny.train.optimizer.learning_rate", float("inf"), "learning_rate = inf: input should be a finite number"),
        ("arms.sfpo.learning_rate_scale", float("inf"), "arms.sfpo.learning_rate_scale = inf: input should be a finite number"),
        (
            "datasets.arithmetic.parts",
            {"one/two": {"source": "generated", "tasks": {"sums": 9}}},
            "datasets.arithmetic.parts.one/two = 'one/two': string should match pattern",
        ),
        ("data_mirror", "", "data_mirror = '': string should have at least 1 character"),
        ("suites.tiny.seeds", [-1], "suites.tiny.seeds.0 = -1: input should be greater than or equal to 0"),
        ("suites.tiny.arms", ["a/b"], "suites.tiny.arms.0 = 'a/b': string should match pattern"),
        ("suites.tiny.arms", ["grpoo"], "suites.tiny.arms: 'grpoo' is not defined; defined are: dapo"),
        ("suite", "large", "suite: 'large' is not defined; defined are: "),
        ("suites.tiny.train.optimizer.learning_rate", -1, "learning_rate = -1: input should be greater than 0"),
        ("suites.tiny.train.mini_batch_prompts", 5, "mini_batch_prompts 5 must divide prompts_per_step 16"),
        (
            "suites.tiny.train.completions_per_prompt",
            1,
            "completions_per_prompt = 1: input should be greater than or equal to 2",
        ),
        ("suites.tiny.instruction", "solve", "the instruction must contain {problem}"),
        ("models.tiny-qwen2.source", "hubb", "models.tiny-qwen2.source = 'hubb': allowed are 'scratch', 'package'"),
        ("models.tiny-qwen2.warm_up.pass_rate", [0.5, 0.2], "must be [low, high] with low < high"),
        ("models.tiny-qwen2.warm_up.dataset", "sums", "models.tiny-qwen2.warm_up.dataset: 'sums' is not defined"),
        ("arms.sfpo.objective", "ppo", "arms.sfpo.objective: 'ppo' is not defined; defined are: "),
        ("suites.tiny.execution.resources", {"gpu": 8, "processes": 4}, "processes 4 must equal the number of GPUs, 8"),
        ("suites.tiny.execution.resources", {"gpu": 8, "tasks": 3}, "tasks 3 must divide the number of processes, 8"),
        ("suites.tiny.execution.resources.gpu", "all", "suites.tiny.execution.resources.gpu"),
        (
            "suites.tiny.execution",
            {"micro_batch_tokens": 1, "save_every": 1, "engine": {"tensor_parallel": 2}},
            "suites.tiny.execution: engine.tensor_parallel 2 must divide the number of processes, 1",
        ),
        ("suites.tiny.items", {"table-1": {"shows": "scores"}}, "suites.tiny.items.table-1"),
        ("arms.base", {"rule": "grpo", "objective": "grpo"}, "the name 'base' is used for the untrained model"),
    ],
)
def test_an_impossible_setting_is_told(raw, fault, path, value, told):
    set_path(raw, path, value)
    assert told in fault(raw)


def test_transformers_holds_whole_models(raw, fault):
    tiny = raw["suites"]["tiny"]
    tiny["sampler"]["library"] = "transformers"
    tiny["execution"]["resources"]["processes"] = tiny["execution"]["engine"]["tensor_parallel"] = 2
    assert "suites.tiny: execution.engine.tensor_parallel 2 needs sampler.library vllm" in fault(raw)


def test_a_missing_key_is_told(raw, fault):
    del raw["arms"]["grpo"]["objective"]
    assert "arms.grpo.objective: missing" in fault(raw)


def test_all_faults_are_told_at_once(raw, fault):
    raw["suites"]["tiny"]["seeds"], raw["arms"]["grpo"]["objective"] = [], 1
    assert "suites.tiny.seeds" in fault(raw) and "arms.grpo.objective" in fault(raw)


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    for content in (b"suite: [", b"\xff\xfe\x00"):
        (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match="is not valid YAML"):
            load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="no such settings file"):
        load_settings(RunSettings, tmp_path / "settings.json")


# ---------------------------------------------------------------------------------------------- plain YAML


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("suite: tiny\nsuite: small\n", "line 2: the key 'suite' is given twice"),
        ("suites:\n  tiny:\n    seeds: [0]\n    seeds: [1]\n", "line 4: the key 'seeds' is given twice"),
        ("suites:\n  tiny: {seeds: [0], seeds: [1]}\n", "line 2: the key 'seeds' is given twice"),
        ("suite: &name tiny\n", "line 1: anchors and aliases are not supported"),
        ("suites:\n  tiny: &tiny\n    seeds: [0]\n  small: *tiny\n", "line 2: anchors and aliases are not supported"),
        ("suite: tiny\narms: *arms\n", "line 2: anchors and aliases are not supported"),
        ("suites:\n  tiny:\n    <<: {seeds: [0]}\n", "line 3: the merge key '<<' is not supported; use `extends: <entry>`"),
        ("suite: tiny\n? [a]\n: 1\n", "line 2: a list or a mapping cannot be a key"),
    ],
)
def test_yaml_that_tools_cannot_edit_is_refused_with_its_line(fault, text, told):
    assert told in fault(text)


def test_the_same_key_in_two_entries_is_no_repetition(raw, load):
    raw["suites"]["second"] = copy.deepcopy(raw["suites"]["tiny"])
    assert load(raw, "second").active == load(raw, "tiny").active


def test_numbers_with_an_exponent_are_numbers(load):
    text = PARAMS.read_text()
    assert "learning_rate: 3.0e-5" in text
    for number in ("3e-5", "3E-05", "0.3e-4", ".3e-4"):
        train = load(text.replace("learning_rate: 3.0e-5", f"learning_rate: {number}")).suites["tiny"].train
        assert train.optimizer.learning_rate == 3e-5


# ---------------------------------------------------------------------------------------------- extends


def test_an_entry_takes_over_another_with_its_own_keys_in_place(raw, load):
    raw["suites"]["mine"] = {
        "extends": "tiny",
        "seeds": [7],
        "train": {"steps": 3, "optimizer": {"weight_decay": 0.0}},
        "execution": {"engine": {"kv_cache_gib": 2.0}},
    }
    tiny, mine = (load(raw, suite).active for suite in ("tiny", "mine"))
    assert mine.seeds == [7] and mine.train.steps == 3 and mine.train.optimizer.weight_decay == 0.0
    assert mine.train.optimizer.learning_rate == tiny.train.optimizer.learning_rate  # nested keys one by one
    assert mine.execution.engine.kv_cache_gib == 2.0 and mine.execution.engine.enforce_eager
    assert mine.items == tiny.items and mine.arms == tiny.arms


def test_a_suites_items_are_replaced_as_a_whole(raw, load):
    raw["suites"]["mine"] = {"extends": "tiny", "items": {"figure2": {"shows": "curves"}}}
    assert list(load(raw, "mine").active.items) == ["figure2"]


def test_what_is_extended_may_extend_another(raw, load):
    arms = load(raw).arms
    sfpo, with_seven = arms["sfpo"], arms["sfpo_k7_no_reposition"]  # of sfpo_k7, of sfpo
    assert with_seven.rule_settings == {**sfpo.rule_settings, "num_fast_steps": 7, "reposition": False}
    coder = load(raw).models["tiny-coder"]
    assert coder.warm_up.dataset == "programs" and coder.warm_up.learning_rate == 3e-3


@pytest.mark.parametrize(
    ("entry", "base", "told"),
    [
        ("mine", "tinny", r"suites\.mine\.extends: 'tinny' is not defined; defined are: .*did you mean tiny"),
        ("mine", ["tiny"], r"suites\.mine\.extends: '\['tiny'\]' is not defined"),
        ("mine", None, r"suites\.mine\.extends: 'None' is not defined"),
        ("mine", "mine", r"suites\.mine\.extends: mine extends mine: an entry cannot extend itself"),
        ("mine", "second", r"suites\.second\.extends: mine extends second extends mine: an entry cannot extend itself"),
    ],
)
def test_an_impossible_extends_is_told(raw, load, caplog, entry, base, told):
    raw["suites"] |= {entry: {"extends": base, "seeds": [1]}, "second": {"extends": entry}}
    with pytest.raises(ConfigError, match=told):
        load(raw, entry)
    with caplog.at_level(logging.WARNING):
        assert load(raw, "tiny").active.seeds == [0, 1, 2]
    assert "invalid, but not used by suite tiny: suites.mine.extends" in caplog.text


# ---------------------------------------------------------------------------------------------- what is not active


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("suites.paper.train.stepz", 3, "suites.paper.train.stepz: unknown key"),
        ("suites.paper.arms", ["grpoo"], "suites.paper.arms: 'grpoo' is not defined"),
        ("suites.paper.train.mini_batch_prompts", 5, "mini_batch_prompts 5 must divide prompts_per_step 256"),
        ("suites.paper.overrides", [{"train": {"stepz": 1}}], "overrides[0].train"),
        ("suites.Paper", {}, "suites.Paper"),
        ("arms.gspo.objective", "gspoo", "arms.gspo.objective: 'gspoo' is not defined"),
        ("models.smollm2-135m.sauce", 1, "models.smollm2-135m.sauce: unknown key"),
        ("datasets.math.parts.math.splitt", "x", "datasets.math.parts.math.splitt: unknown key"),
        ("benchmarks.math500.rows", {}, "benchmarks.math500.rows"),
        ("objectives.gspo.clip", [1], "objectives.gspo.clip"),
    ],
)
def test_a_fault_of_what_the_active_suite_does_not_use_is_a_warning(raw, load, caplog, path, value, told):
    raw["arms"]["sfpo"]["entropy_trigger"]["form"] = "paper"  # a value that is also a suite's name does not use the suite
    untouched = load(raw).active
    set_path(raw, path, value)
    with caplog.at_level(logging.WARNING):
        assert load(raw).active == untouched
    assert "invalid, but not used by suite tiny: " in caplog.text and told in caplog.text


@pytest.mark.parametrize(
    ("path", "value", "suite", "told"),
    [
        # The suite names the entry itself, in an item, in an override, or by way of another entry.
        ("arms.sfpo.learning_rate_scale", 0, "tiny", "arms.sfpo.learning_rate_scale = 0"),
        ("arms.dapo.objective", 1, "paper", "arms.dapo.objective"),
        ("objectives.dapo.clip", [1], "paper", "objectives.dapo.clip"),
        ("datasets.skywork-or1.validation_rows", 0, "paper", "datasets.skywork-or1.validation_rows"),
        ("datasets.programs.validation_rows", 0, "programs", "datasets.programs.validation_rows"),
        ("datasets.arithmetic.grader", "maths", "tiny", "datasets.arithmetic.grader"),
        ("suites.tiny.train.steps", 0, "controls", "suites.controls.train.steps = 0"),  # controls extends tiny
    ],
)
def test_a_fault_of_a_shared_entry_stops_every_suite_that_uses_it(raw, fault, path, value, suite, told):
    set_path(raw, path, value)
    assert told in fault(raw, suite)


# ---------------------------------------------------------------------------------------------- values


def test_a_name_that_is_no_folder_is_told(raw, load, fault, caplog):
    raw["arms"]["a/b"] = {"rule": "grpo", "objective": "grpo"}  # whose further keys are the rule's
    load(raw)
    assert "invalid, but not used by suite tiny: arms.a/b = 'a/b': string should match pattern" in caplog.text
    raw["suites"]["tiny"]["arms"].append("a/b")
    assert "arms.a/b = 'a/b': string should match pattern" in fault(raw)


def test_the_command_line_changes_keys_in_place_of_the_files(raw, load):
    params = load(raw, changes={"suite": "small", "suites": {"small": {"seeds": [5]}}})
    assert params.suite == "small" and params.active.seeds == [5] and params.active.train.steps == 3


def test_rule_settings_are_the_arms_other_keys(params):
    assert params.arms["sfpo"].rule_settings.keys() == {"num_fast_steps", "alpha", "entropy_trigger"}


def test_a_run_has_a_folder_for_each_of_its_names():
    assert RunId(suite="tiny", model="m", dataset="d", arm="grpo", seed=0).path == "tiny/m/d/grpo/seed0"


def test_jobs_that_do_not_train_ask_for_less(raw, load):
    execution = load(raw, "paper").active.execution  # 8 GPUs, 64 cores and 400 GB a training job
    assert execution.evaluation_gpu == 1 and execution.evaluation.threads == execution.preparation.threads == 8
    assert execution.evaluation.mem_mb == 64_000 and execution.preparation.runtime == 240
    resources = raw["suites"]["paper"]["execution"]["resources"]
    del resources["evaluation"], resources["preparation"]
    raw["suites"]["paper"]["execution"]["engine"]["tensor_parallel"] = 2
    execution = load(raw, "paper").active.execution
    # An evaluation has two of eight shares, as many processes as hold one engine; a preparation has one, for two hours.
    assert execution.evaluation_gpu == 2
    assert execution.evaluation.model_dump() == {"threads": 16, "mem_mb": 100_000, "runtime": 4320}
    assert execution.preparation.model_dump() == {"threads": 8, "mem_mb": 50_000, "runtime": 120}


@pytest.mark.parametrize(("gpu", "of_evaluation"), [("auto", "auto"), (0, 0), (1, 1)])
def test_an_evaluation_has_a_gpu_where_training_has_one(raw, load, gpu, of_evaluation):
    raw["suites"]["tiny"]["execution"]["resources"]["gpu"] = gpu
    assert load(raw).active.execution.evaluation_gpu == of_evaluation


def test_params_are_frozen(params):
    with pytest.raises(ValueError, match="frozen"):
        params.suite = "small"
    assert copy.deepcopy(params) == params
