"""Which jobs there are, and that a changed setting changes the results that it decides, and no others."""

import copy
import json
import logging
from pathlib import Path

import pytest
import yaml

from sfpo import jobs
from sfpo.config import Params, load_params
from sfpo.config.plain_yaml import PlainLoader
from sfpo.jobs.__main__ import main, runs_by_item
from sfpo.schema import ConfigError
from sfpo.settings import RunSettings, load_settings, settings_hash
from sfpo.staleness import stale_reason
from tests.changes import changed as with_changes

PROJECT = Path(__file__).parent.parent
OF_DATA = "tiny-qwen2/arithmetic"


@pytest.fixture
def raw():
    return yaml.load((PROJECT / "params.yaml").read_text(), Loader=PlainLoader)


@pytest.fixture
def load(tmp_path_factory):
    """Loads settings as if they stood in params.yaml."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"

    def loaded(raw: dict) -> Params:
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return load_params(path)

    return loaded


@pytest.fixture
def resolve(load):
    return lambda raw: jobs.resolve(load(raw))


@pytest.fixture
def changed(resolve):
    """Folders of the jobs whose result is another after ``change``."""

    def identities(raw: dict) -> dict[str, str]:
        return {path: settings_hash(one) for path, one in resolve(raw).items()}

    def folders(raw: dict, change) -> set[str]:
        edited, before = copy.deepcopy(raw), identities(raw)
        change(edited)
        after = identities(edited)
        return {str(Path(path).parent) for path in before.keys() | after.keys() if before.get(path) != after.get(path)}

    return folders


def setting(path: str, value: object):
    """A change of one key."""

    def change(edited: dict) -> None:
        node = edited
        *parents, last = path.split(".")
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value

    return change


def of(found: dict, *tops: str) -> set[str]:
    return {str(Path(path).parent) for path in found if path.split("/")[0] in tops}


# ---------------------------------------------------------------------------------------------- what a setting decides


def test_one_job_for_every_product_of_the_tiny_suite(raw, resolve):
    found = resolve(raw)
    tops = [path.split("/")[0] for path in found]
    # 1 data set + 6 benchmarks; 1 model; 2 arms x 3 seeds; those and the base evaluated, and one step recorded; 9 tables and
    # figures, 4 pages.
    assert {top: tops.count(top) for top in set(tops)} == {"data": 7, "models": 1, "runs": 6, "evaluations": 8, "results": 13}
    assert list(dict.fromkeys(tops)) == ["data", "models", "runs", "evaluations", "results"]  # inputs first


def test_a_difficulty_filter_is_one_job_for_the_runs_of_a_model_on_a_data_set(raw, resolve, changed):
    filtered = "data/tiny/filtered/tiny-qwen2+arithmetic"
    stale = changed(raw, setting("suites.tiny.difficulty", {"samples": 4}))
    assert filtered in stale and f"runs/tiny/{OF_DATA}/grpo/seed0" in stale
    # Data sets, models and the untrained model's scores are those of before.
    assert not [one for one in stale if one.startswith(("data/tiny/train", "data/tiny/benchmarks", "models")) or "base" in one]
    raw["suites"]["tiny"]["difficulty"] = {"samples": 4}
    raw["suites"]["tiny"]["overrides"] = [
        {"datasets": ["arithmetic"], "max_completion_tokens": 32},
        {"arms": ["sfpo"], "rule": {"alpha": 0.5}},
    ]
    found = resolve(raw)
    own = found[f"{filtered}/settings.json"]
    assert own.limits.max_completion_tokens == 32 and own.inputs() == ["models/tiny/tiny-qwen2", "data/tiny/train/arithmetic"]
    runs = [one for one in found.values() if isinstance(one, RunSettings)]
    assert {run.data_path for run in runs} == {filtered} and {run.recipe.data for run in runs} == {settings_hash(own)}
    order = list(found)
    assert order.index("models/tiny/tiny-qwen2/settings.json") < order.index(f"{filtered}/settings.json")
    stale = changed(raw, setting("suites.tiny.difficulty.samples", 8))
    assert {f"runs/tiny/{OF_DATA}/{arm}/seed{seed}" for arm in ("grpo", "sfpo") for seed in (0, 1, 2)} <= stale
    assert not changed(raw, setting("suites.tiny.execution.engine.kv_cache_gib", 0.25))


def test_a_setting_of_one_arm_decides_its_runs_and_what_is_made_of_them(raw, resolve, changed):
    stale = changed(raw, setting("arms.sfpo.alpha", 0.7))
    assert {folder for folder in stale if not folder.startswith("results/")} == {
        f"evaluations/tiny/{OF_DATA}/trajectory-figure1",
        *(f"{top}/tiny/{OF_DATA}/sfpo/seed{seed}" for top in ("runs", "evaluations") for seed in (0, 1, 2)),
    }
    assert of(resolve(raw), "results") <= stale  # every table and figure of this suite shows both arms


@pytest.mark.parametrize(
    ("path", "value"), [("train.optimizer.learning_rate", 1e-4), ("train.steps", 70), ("sampler.dtype", "bfloat16")]
)
def test_a_training_setting_decides_all_runs_and_no_data_or_model(raw, resolve, changed, path, value):
    stale = changed(raw, setting(f"suites.tiny.{path}", value))
    assert of(resolve(raw), "runs") <= stale and not {folder for folder in stale if folder.startswith(("data/", "models/"))}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("micro_batch_tokens", 333),
        ("gradient_checkpointing", True),
        ("offload_to_host", True),
        ("snapshot_on_host", True),
        ("save_every", 7),
        ("keep_final_state", False),
        ("max_skipped_updates", 1),
        ("report_to", []),
        ("log_completions", 0),
        ("engine.max_sequences", 3),
        ("engine.kv_cache_gib", 0.25),
        ("engine.gpu_memory_utilization", 0.3),
        ("engine.enforce_eager", False),
        ("engine", {"tensor_parallel": 1}),
        ("resources", {"gpu": 8, "threads": 64, "mem_mb": 9, "runtime": 9, "retries": 0}),
        ("resources.processes", 2),
    ],
)
def test_how_jobs_are_computed_decides_no_result(raw, resolve, changed, path, value):
    change = setting(f"suites.tiny.execution.{path}", value)
    assert changed(raw, change) == set()
    edited, of_run = copy.deepcopy(raw), f"runs/tiny/{OF_DATA}/sfpo/seed0/settings.json"
    change(edited)
    before, after = resolve(raw)[of_run], resolve(edited)[of_run]
    assert before.recipe == after.recipe and before.execution != after.execution  # the run is told all the same


def test_words_of_the_report_decide_the_report_alone(raw, changed):
    for path in ("arms.sfpo.title", "benchmarks.sums.title"):
        stale = changed(raw, setting(path, "Another name"))
        assert stale and all(folder.startswith("results/tiny/") for folder in stale)
    pages = {f"results/tiny/pages/{page}" for page in ("metrics", "runs_page", "completions_page", "report_page")}
    assert changed(raw, setting("suites.tiny.items.table1.title", "Scores")) == {"results/tiny/items/table1", *pages}
    stale = changed(raw, setting("benchmarks.sums.out_of_distribution", True))
    assert stale and all(folder.startswith("results/tiny/") for folder in stale)


def test_the_order_of_arms_and_columns_is_the_reports(raw, changed):
    # The first arm is what the others are compared with.
    stale = changed(raw, setting("suites.tiny.arms", ["sfpo", "grpo"]))
    step = {f"evaluations/tiny/{OF_DATA}/trajectory-figure1"}  # starts from the second arm's checkpoint
    assert {folder.split("/")[2] for folder in stale - step} == {"items", "pages"} and "results/tiny/items/targets" in stale
    benchmarks = raw["suites"]["tiny"]["benchmarks"]
    stale = changed(raw, setting("suites.tiny.benchmarks", benchmarks[::-1]))
    assert {folder.split("/")[2] for folder in stale} == {"items", "pages"}
    items = raw["suites"]["tiny"]["items"]
    stale = changed(raw, setting("suites.tiny.items", dict(reversed(items.items()))))
    assert stale == {f"results/tiny/pages/{page}" for page in ("metrics", "runs_page", "completions_page", "report_page")}


def test_the_order_of_a_data_sets_parts_decides_its_rows(raw, changed):
    tasks = raw["datasets"]["arithmetic"]["parts"]["generated"]["tasks"]
    stale = changed(raw, setting("datasets.arithmetic.parts.generated.tasks", dict(reversed(tasks.items()))))
    assert "data/tiny/train/arithmetic" in stale


def test_the_order_of_a_rules_settings_decides_nothing(raw, changed):
    def reverse(edited):
        arm = edited["arms"]["sfpo"]
        arm["entropy_trigger"] = dict(reversed(arm["entropy_trigger"].items()))
        edited["arms"]["sfpo"] = dict(reversed(arm.items()))

    assert changed(raw, reverse) == set()


def test_a_default_written_out_decides_nothing(raw, changed):
    assert changed(raw, setting("arms.sfpo.slow_correction", True)) == set()
    assert changed(raw, setting("suites.tiny.train.sampling", {"temperature": 1.0})) == set()


def test_another_seed_adds_a_run_and_its_evaluation(raw, resolve, changed):
    stale = changed(raw, setting("suites.tiny.seeds", [0, 1, 2, 3]))
    new = {folder for folder in stale if "seed3" in folder}
    assert len(new) == 4  # 2 arms: a run and an evaluation each
    assert stale - new == of(resolve(raw), "results")


def test_steps_decide_a_result_and_not_which_states_it_continues_from(raw, resolve):
    def run(path, value):
        edited = copy.deepcopy(raw)
        setting(path, value)(edited)
        return resolve(edited)[f"runs/tiny/{OF_DATA}/grpo/seed0/settings.json"]

    short, long = (run("suites.tiny.train.steps", steps) for steps in (40, 60))
    assert settings_hash(short) != settings_hash(long) and short.recipe_hash == long.recipe_hash
    other = run("suites.tiny.train.optimizer.learning_rate", 1e-4)
    assert other.recipe_hash != long.recipe_hash
    assert with_changes(long, execution__micro_batch_tokens=7).recipe_hash == long.recipe_hash


def test_an_identity_survives_the_settings_file(raw, resolve, tmp_path):
    found = resolve(raw)
    jobs.write_settings(found, tmp_path)
    for path, one in found.items():
        identity = settings_hash(one)
        assert load_settings(type(one), tmp_path / path, identity) == one
        with pytest.raises(ConfigError, match="changed since the workflow started; start the workflow again"):
            load_settings(type(one), tmp_path / path, identity[::-1])


def test_limits_do_not_decide_a_hub_models_identity(raw, changed):
    raw["suite"] = "paper"
    model = "qwen2.5-math-1.5b"
    stale = changed(raw, lambda edited: edited["models"][model].update(max_completion_tokens=4096))
    assert not {folder for folder in stale if folder.startswith(("models/", "data/"))}
    of_model = {folder for folder in stale if folder.startswith(("runs/", "evaluations/"))}
    assert of_model and all(f"/{model}/" in folder for folder in of_model)
    stale = changed(raw, lambda edited: edited["models"][model].update(revision="v2"))
    assert {f"models/paper/{model}", f"runs/paper/{model}/dapo-math/grpo/seed0"} <= stale


def test_more_samples_of_a_benchmark_make_the_evaluations_stale_and_no_run(raw, changed, resolve):
    stale = changed(raw, setting("suites.tiny.evaluate.samples_of", {"sums": 16}))
    assert {f"evaluations/tiny/{OF_DATA}/grpo/seed0", "evaluations/tiny/tiny-qwen2/base"} <= stale
    assert not {folder for folder in stale if folder.startswith(("runs/", "models/", "data/"))}
    table1 = resolve(raw)["results/tiny/items/table1/settings.json"]
    assert set(table1.samples.values()) == {4} and list(table1.samples) == raw["suites"]["tiny"]["benchmarks"]


# ---------------------------------------------------------------------------------------------- inputs by content


def test_a_mirror_files_content_decides_the_identity(raw, changed, tmp_path):
    (tmp_path / "eval").mkdir()
    row = '{"problem": "1+1", "answer": "2"}\n'
    for name in ("math500", "copy"):
        (tmp_path / f"eval/{name}.jsonl").write_text(row)
    raw["suites"]["tiny"]["benchmarks"], raw["data_mirror"] = ["math500"], str(tmp_path)
    assert changed(raw, setting("benchmarks.math500.rows.mirror", "eval/copy.jsonl")) == set()  # the same rows elsewhere

    def another_row(edited):
        (tmp_path / "eval/math500.jsonl").write_text(row + '{"problem": "1+2", "answer": "3"}\n')

    stale = changed(raw, another_row)
    assert {"data/tiny/benchmarks/math500", f"evaluations/tiny/{OF_DATA}/grpo/seed0", "results/tiny/items/table1"} <= stale
    assert not {folder for folder in stale if folder.startswith(("runs/", "models/"))}


def test_a_training_sets_mirror_file_decides_its_runs(raw, changed, tmp_path):
    (tmp_path / "math.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    rows = {"source": "hub", "mirror": "math.jsonl"}
    raw["datasets"]["mine"] = {"parts": {"math": rows}, "validation_rows": 1}
    raw["suites"]["tiny"]["datasets"], raw["data_mirror"] = ["mine"], str(tmp_path)
    stale = changed(raw, lambda edited: (tmp_path / "math.jsonl").write_text('{"problem": "1+1", "answer": "3"}\n'))
    assert {"data/tiny/train/mine", "runs/tiny/tiny-qwen2/mine/grpo/seed0"} <= stale
    assert "models/tiny/tiny-qwen2" not in stale  # warmed up on arithmetic


@pytest.fixture
def with_local_model(raw, checkpoint, tmp_path):
    """The tiny suite on a model of one's own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    raw["models"]["mine"] = {"source": "local", "path": str(folder), "max_prompt_tokens": 8, "max_completion_tokens": 8}
    raw["suites"]["tiny"]["models"] = ["mine"]
    return raw, folder


def test_a_local_models_content_decides_the_identity(with_local_model, changed, tmp_path):
    raw, folder = with_local_model

    def moved(edited):
        folder.rename(tmp_path / "elsewhere")
        edited["models"]["mine"]["path"] = str(tmp_path / "elsewhere")

    assert changed(raw, moved) == set()
    raw["models"]["mine"]["path"] = str(tmp_path / "elsewhere")

    def other_weights(edited):
        path = tmp_path / "elsewhere/model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    assert {"models/tiny/mine", "runs/tiny/mine/arithmetic/grpo/seed0"} <= changed(raw, other_weights)


def test_the_order_of_items_does_not_decide_the_warm_up_data(raw, resolve, changed):
    raw["suites"]["tiny"]["items"] = {
        "table1": {"shows": "scores"},
        "table2": {"shows": "scores", "datasets": ["stories"]},
    }
    items = raw["suites"]["tiny"]["items"]
    stale = changed(raw, setting("suites.tiny.items", dict(reversed(items.items()))))
    assert stale == {f"results/tiny/pages/{page}" for page in ("metrics", "runs_page", "completions_page", "report_page")}
    model = resolve(raw)["models/tiny/tiny-qwen2/settings.json"]
    assert model.warm_up_data == "data/tiny/train/arithmetic"
    # Prepared also where no run is trained on it.
    raw["suites"]["tiny"]["datasets"], items["table1"]["datasets"] = ["stories"], ["stories"]
    found = resolve(raw)
    assert found["models/tiny/tiny-qwen2/settings.json"] == model and "data/tiny/train/arithmetic/settings.json" in found


# ---------------------------------------------------------------------------------------------- a check, and the files


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_check_writes_nothing_and_write_writes_the_settings_files(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    before = files(tmp_path)
    for options in ([], ["--suite", "controls"]):
        main(options)
        assert files(tmp_path) == before
    assert "suite controls: " in capsys.readouterr().out
    main(["--write"])
    assert "35 settings files written or changed" in capsys.readouterr().out  # 7 + 1 + 6 + 8 + 13
    run = load_settings(RunSettings, f"runs/tiny/{OF_DATA}/sfpo/seed1/settings.json")
    assert run.recipe.rule.settings["alpha"] == 0.8
    written = files(tmp_path)
    main(["--write"])
    assert files(tmp_path) == written and "0 settings files written or changed" in capsys.readouterr().out
    raw["arms"]["sfpo"]["alpha"] = 0.7
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    main(["--write"])  # 3 runs, 3 evaluations of them, the recorded step, 9 tables and figures, 4 pages
    assert "20 settings files written or changed" in capsys.readouterr().out


def test_a_fault_is_told_without_a_traceback(raw, tmp_path):
    raw["suite"] = "tinny"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(SystemExit, match="'tinny' is not defined"):
        main(["--params", str(tmp_path / "params.yaml")])


@pytest.fixture
def one_run(raw, load) -> RunSettings:
    raw["suites"]["tiny"].update(arms=["grpo"], seeds=[0])
    return jobs.resolve(load(raw))[f"runs/tiny/{OF_DATA}/grpo/seed0/settings.json"]


def with_steps(settings: RunSettings, steps: int) -> RunSettings:
    return with_changes(settings, recipe__train__steps=steps)


def finish(settings: RunSettings, root: Path, hours: float, within: str = "") -> None:
    """The record of a finished run."""
    folder = root / "runs" / settings.run.path / within
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "settings_hash": settings_hash(settings),
        "recipe_hash": settings.recipe_hash,
        "steps": settings.recipe.train.steps,
        "seconds": {"total": 3000 * hours, "validate": 600 * hours},
        "recipe": settings.recipe.model_dump(mode="json"),
    }
    (folder / "summary.json").write_text(json.dumps(record))


def interrupt(settings: RunSettings, root: Path, step: int, hours: float) -> None:
    """The saved state of an unfinished run."""
    state = root / "runs" / settings.run.path / f"state/{settings.recipe_hash[:12]}"
    (state / f"step_{step:06d}").mkdir(parents=True)
    (state / "recipe.json").write_text(json.dumps(settings.recipe.model_dump(mode="json")))
    progress = {"step": step, "clock": {"update": 3000 * hours, "sync": 600 * hours}}
    saved = {"recipe_hash": settings.recipe_hash, "progress": progress}
    (state / f"step_{step:06d}/trainer.json").write_text(json.dumps(saved))


def test_a_finished_run_is_told_of_where_a_change_makes_it_stale(one_run, tmp_path):
    folder = f"runs/tiny/{OF_DATA}/grpo/seed0"
    asked = {f"{folder}/settings.json": one_run}
    assert jobs.describe(asked, tmp_path) == []
    finish(one_run, tmp_path, hours=1.5)
    assert jobs.describe(asked, tmp_path) == []
    other = with_changes(one_run, recipe__train__optimizer__learning_rate=1e-4, recipe__seed=5)
    assert jobs.describe({f"{folder}/settings.json": other}, tmp_path) == [
        f"  stale: {folder}: 60 steps, 1.50 h of another recipe (seed: 0 -> 5; train.optimizer.learning_rate: 3e-05 -> 0.0001)"
    ]
    more = {f"{folder}/settings.json": with_steps(one_run, 80)}
    anew = f"  restarts: {folder}: 60 steps, 1.50 h cannot be continued to step 80: there is no saved state"
    assert jobs.describe(more, tmp_path) == [anew]  # after `dvc pull`, or with keep_final_state: false
    interrupt(one_run, tmp_path, step=60, hours=1.5)
    assert jobs.describe(more, tmp_path) == [f"  continues: {folder}: from 60 steps, 1.50 h, to step 80"]


def test_a_run_that_finished_before_costs_nothing(one_run, tmp_path):
    folder = f"runs/tiny/{OF_DATA}/grpo/seed0"
    other = with_changes(one_run, recipe__seed=5)
    finish(one_run, tmp_path, 1.5, f"state/{one_run.recipe_hash[:12]}")
    finish(other, tmp_path, 2.5)  # its files are in the run's places now
    assert jobs.describe({f"{folder}/settings.json": one_run}, tmp_path) == [
        f"  finished before: {folder}: 60 steps, 1.50 h; its files will be linked again, without training",
        f"  stale: {folder}: 60 steps, 2.50 h of another recipe (seed: 5 -> 0)",
    ]
    assert jobs.describe({f"{folder}/settings.json": other}, tmp_path) == [
        f"  kept: {folder}: 60 steps, 1.50 h of another recipe (seed: 0 -> 5)"
    ]


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", "<<<<<<< HEAD\n{}"])
def test_a_damaged_record_belongs_to_nothing_and_stops_nothing(raw, load, one_run, tmp_path, damaged):
    folder = f"runs/tiny/{OF_DATA}/grpo/seed0"
    interrupt(one_run, tmp_path, step=40, hours=2.0)
    finish(one_run, tmp_path, 1.5)
    (tmp_path / folder / "summary.json").write_text(damaged)
    jobs.check(load(raw), tmp_path)
    asked = {f"{folder}/settings.json": one_run}
    assert jobs.describe(asked, tmp_path) == [f"  continues: {folder}: from 40 steps, 2.00 h, to step 60"]
    assert stale_reason(folder, one_run, tmp_path) == "summary.json cannot be read"
    next((tmp_path / folder).glob("state/*/step_*/trainer.json")).write_text(damaged)
    assert jobs.describe(asked, tmp_path) == []


def test_an_unfinished_run_continues_or_is_kept(one_run, tmp_path):
    folder = f"runs/tiny/{OF_DATA}/grpo/seed0"
    interrupt(one_run, tmp_path, step=40, hours=2.0)
    for same in (one_run, with_changes(one_run, execution__micro_batch_tokens=7)):
        told = jobs.describe({f"{folder}/settings.json": same}, tmp_path)
        assert told == [f"  continues: {folder}: from 40 steps, 2.00 h, to step 60"]
    other = {f"{folder}/settings.json": with_changes(one_run, recipe__seed=5)}
    assert jobs.describe(other, tmp_path) == [f"  kept: {folder}: 40 steps, 2.00 h of another recipe (seed: 0 -> 5)"]


def test_fewer_steps_than_are_done_stop_before_any_job(raw, load, one_run, tmp_path):
    interrupt(one_run, tmp_path, step=40, hours=2.0)
    jobs.check(load(raw), tmp_path)
    raw["suites"]["tiny"]["train"]["steps"] = 39
    with pytest.raises(ConfigError, match=r"train\.steps = 39: runs/tiny/.*grpo/seed0 has done 40"):
        jobs.check(load(raw), tmp_path)
    raw["suites"]["tiny"]["train"]["optimizer"]["learning_rate"] = 1e-4  # another run altogether
    jobs.check(load(raw), tmp_path)


# ---------------------------------------------------------------------------------------------- impossible settings


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("alpha", 1.5, "arms.sfpo.alpha = 1.5: the reposition factor must lie in"),
        ("alpha", "much", "arms.sfpo = .*'alpha': 'much'.*: a value has the wrong type"),
        ("num_fast_steps", -1, "arms.sfpo.num_fast_steps = -1: K must be a whole number"),
        ("alpa", 0.8, "arms.sfpo.alpa: unknown setting of rule sfpo; allowed are: num_fast_steps, alpha"),
        ("snapshot_on_host", True, "arms.sfpo.snapshot_on_host: .* set it in the suite's `execution`"),
        ("rule", "sgd", "arms.sfpo.rule = 'sgd': allowed are "),
    ],
)
def test_impossible_rule_settings_stop_before_any_job(raw, load, caplog, key, value, told):
    raw["arms"]["sfpo"][key] = value
    with pytest.raises(ConfigError, match=told):
        jobs.check(load(raw))
    raw["suites"]["tiny"]["arms"] = ["grpo"]  # now no run depends on it
    with caplog.at_level(logging.WARNING):
        jobs.check(load(raw))
    assert "invalid, but not used by the active suite: arms.sfpo" in caplog.text


def test_a_missing_mirror_file_stops_before_any_job(raw, load, tmp_path):
    raw.update(suite="small", data_mirror=str(tmp_path))
    with pytest.raises(ConfigError, match=r"math_train\.parquet"):
        jobs.check(load(raw))


def test_a_broken_benchmark_line_stops_before_any_job(raw, load, tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/math500.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n{"problem": \n')
    raw["suites"]["small"].update(benchmarks=["math500"], datasets=["arithmetic"])
    raw.update(suite="small", data_mirror=str(tmp_path))
    with pytest.raises(ConfigError, match=r"math500\.jsonl.*2"):
        jobs.check(load(raw))


def test_a_local_model_without_a_chat_template_stops_before_any_job(with_local_model, load):
    raw, folder = with_local_model
    jobs.check(load(raw))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="chat template"):
        jobs.check(load(raw))
    raw["models"]["mine"]["path"] = str(folder / "nowhere")
    with pytest.raises(ConfigError, match="nowhere: no such folder; it should contain a local model"):
        jobs.check(load(raw))


# ---------------------------------------------------------------------------------------------- items


def test_runs_of_several_items_are_trained_once_and_evaluated_where_they_are_scored(raw, load):
    raw["suites"]["tiny"]["items"] = {
        "table1": {"shows": "scores"},
        "table2": {"shows": "scores", "arms": ["grpo"], "benchmarks": ["formulas"]},
        "figure5": {"shows": "curves", "arms": ["grpo", "grpo_k"]},
    }
    found = jobs.resolve(load(raw))
    trained = [path.split("/")[4] for path in found if path.startswith("runs/")]
    assert sorted(trained) == sorted(["grpo", "sfpo", "grpo_k"] * 3)
    evaluated = [path.split("/")[4] for path in found if path.startswith(f"evaluations/tiny/{OF_DATA}/")]
    assert sorted(evaluated) == sorted(["grpo", "sfpo"] * 3)  # figure5 shows training alone
    six = raw["suites"]["tiny"]["benchmarks"]
    for arm, benchmarks in {"grpo": [*six, "formulas"], "sfpo": six}.items():
        assert list(found[f"evaluations/tiny/{OF_DATA}/{arm}/seed0/settings.json"].benchmarks) == benchmarks
    lines = runs_by_item(jobs.reports(load(raw))).splitlines()
    assert lines[0] == "9 training runs:"
    assert lines[3].split(maxsplit=1) == ["figure5", "6 runs (1 model x 1 data set x 2 arms x 3 seeds), 3 of them new"]


@pytest.mark.parametrize(
    ("checkpoint", "items", "scored"),
    [
        # 60 steps, a checkpoint kept every 20.
        ("best", {"table1": {"shows": "scores"}}, ["best"]),
        ("last", {"table1": {"shows": "scores"}}, ["last"]),
        ("best_on_other_folds", {"table1": {"shows": "scores"}}, ["step_20", "step_40", "last"]),
        ("last", {"one": {"shows": "scores"}, "all": {"shows": "selection"}}, ["last", "best", "step_20", "step_40"]),
    ],
)
def test_the_checkpoints_that_are_shown_or_chosen_from_are_scored(raw, resolve, checkpoint, items, scored):
    tiny = raw["suites"]["tiny"]
    tiny["items"], tiny["evaluate"]["checkpoint"], tiny["train"]["export_every"] = items, checkpoint, 20
    run = f"tiny/{OF_DATA}/grpo/seed0"
    found = resolve(raw)[f"evaluations/{run}/settings.json"].checkpoints
    assert list(found) == scored
    assert all(path == f"runs/{run}/{'exports/' if '_' in name else ''}{name}" for name, path in found.items())


def test_without_kept_checkpoints_there_is_nothing_to_choose_from(raw, load):
    raw["suite"], small = "small", raw["suites"]["small"]  # keeps none
    small["evaluate"]["checkpoint"] = "best_on_benchmarks"
    with pytest.raises(ConfigError, match=r"train\.export_every must be set: evaluate\.checkpoint = best_on_benchmarks"):
        jobs.check(load(raw))
    small["evaluate"]["checkpoint"] = "best"
    small["items"]["choice"] = {"shows": "selection"}
    with pytest.raises(ConfigError, match=r"small\.train\.export_every must be set: items\.choice shows selection"):
        jobs.check(load(raw))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ({}, "items"),
        ({"table1": {"shows": "score"}}, "items.table1.shows"),
        ({"metrics": {"shows": "scores"}}, "items.metrics"),  # a rule of the workflow
        ({"train": {"shows": "scores"}}, "items.train"),
        ({"all": {"shows": "scores"}}, "items.all"),
        ({"Table-1": {"shows": "scores"}}, "items"),
        (
            {"table1": {"shows": "scores"}, "table1_pass_at_k": {"shows": "scores"}},
            "items.table1_pass_at_k: table1 would also write tables/table1_pass_at_k",
        ),
        ({"table1": {"shows": "scores", "arms": ["nobody"]}}, "items.table1.arms: 'nobody' is not defined"),
        ({"table1": {"shows": "scores", "arms": ["grpo", "grpo"]}}, "items.table1.arms names grpo twice"),
    ],
)
def test_impossible_items_stop_before_any_job(raw, load, items, told):
    raw["suites"]["tiny"]["items"] = items
    with pytest.raises(ConfigError, match=told):
        jobs.check(load(raw))


def test_the_paper_suite_names_every_table_and_figure_and_trains_nothing_twice(raw, load):
    for suite in ("paper", "paper-tiny"):
        raw["suite"] = suite
        items = {item.item: item for item in jobs.reports(load(raw))}
        figures = [f"figure{n}" for n in (1, 2, 3, 4, "5a", "5b", "5c", "5d", 6, 7, 8, 9, 10, 11, 12)]
        if suite == "paper":  # LiveCodeBench beside the curves
            figures.insert(figures.index("figure11"), "figure10_scores")
        assert list(items) == ["table1", "table2", "table3", *figures, "targets", "regime", "contamination", "selection"]
        found = jobs.runs(items.values())
        assert len(found) == len(set(found))


def test_a_recorded_step_is_of_the_first_two_arms_from_the_seconds_last_checkpoint(raw, resolve, changed):
    raw["suites"]["tiny"] |= {"arms": ["grpo", "sfpo", "grpo_scaled"], "items": {"figure1": {"shows": "trajectory"}}}
    folder = f"evaluations/tiny/{OF_DATA}/trajectory-figure1"
    step = resolve(raw)[f"{folder}/settings.json"]
    assert list(step.arms) == ["grpo", "sfpo"] and step.checkpoint == f"runs/tiny/{OF_DATA}/sfpo/seed0/last"
    assert step.inputs() == [f"runs/tiny/{OF_DATA}/sfpo/seed0", "data/tiny/train/arithmetic"]
    assert f"runs/tiny/{OF_DATA}/grpo_scaled/seed0/settings.json" not in resolve(raw)
    raw["suites"]["tiny"]["items"]["figure1"]["arms"] = ["grpo_scaled"]  # one arm: from its own checkpoint
    step = resolve(raw)[f"{folder}/settings.json"]
    assert step.start.run.arm == "grpo_scaled" and step.arms["grpo_scaled"].learning_rate_scale == 3.4
    # Of the arms it names, each decides it; how it is computed does not.
    raw["suites"]["tiny"]["items"]["figure1"]["arms"] = ["grpo", "sfpo", "gxpo"]
    assert folder in changed(raw, setting("arms.gxpo.alpha", 0.5))
    assert folder not in changed(raw, setting("arms.lookahead.alpha", 0.5))
    assert folder not in changed(raw, setting("suites.tiny.execution.micro_batch_tokens", 333))


def test_an_item_over_learning_rates_trains_each_arm_at_each_and_shares_the_suites_own(raw, resolve, changed, load):
    raw["suites"]["tiny"]["items"] = {
        "figure2": {"shows": "curves"},
        "sensitivity": {"shows": "sensitivity", "arms": ["grpo", "grpo_scaled"], "learning_rate_scales": [0.1, 1, 10]},
    }
    raw["suites"]["tiny"] |= {"seeds": [0], "overrides": [{"arms": ["grpo"], "train": {"steps": 70}}]}
    found = resolve(raw)
    runs = {path.split("/")[4]: one for path, one in found.items() if path.startswith("runs/")}
    names = ["grpo", "grpo-x0.1", "grpo-x10", "grpo_scaled", "grpo_scaled-x0.1", "grpo_scaled-x10", "sfpo"]
    assert sorted(runs) == names
    assert [runs[name].recipe.learning_rate_scale for name in names] == pytest.approx([1, 0.1, 10, 3.4, 0.34, 34, 1])
    assert runs["grpo-x10"].recipe.train.steps == 70 and runs["grpo_scaled-x10"].recipe.train.steps == 60  # an arm's overrides
    read = found["results/tiny/items/sensitivity/settings.json"].inputs()
    assert {path.split("/")[4] for path in read} == set(names) - {"sfpo"}
    # Another rate in the grid adds runs and makes none of those that there are stale.
    stale = changed(raw, setting("suites.tiny.items.sensitivity.learning_rate_scales", [0.1, 1, 3, 10]))
    assert {path.split("/")[4] for path in of(dict.fromkeys(f"{one}/settings.json" for one in stale), "runs")} == {
        "grpo-x3",
        "grpo_scaled-x3",
    }


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ([1, 1.0], r"learning_rate_scales \[1.0, 1.0\]: must differ"),
        ([0], r"learning_rate_scales.* = 0: input should be greater than 0"),
        ([], r"learning_rate_scales = \[\]"),
        ([float("inf")], "finite"),
    ],
)
def test_impossible_learning_rate_scales_stop_before_any_job(raw, load, scales, told):
    raw["suites"]["tiny"]["items"] = {"sensitivity": {"shows": "sensitivity", "learning_rate_scales": scales}}
    with pytest.raises(ConfigError, match=told):
        load(raw)


def test_what_shows_one_learning_rate_refuses_several_and_names_stay_apart(raw, load):
    raw["suites"]["tiny"]["items"] = {"figure2": {"shows": "curves", "learning_rate_scales": [1, 2]}}
    with pytest.raises(ConfigError, match=r"items\.figure2\.learning_rate_scales: curves can only show one rate"):
        jobs.check(load(raw))
    raw["suites"]["tiny"]["items"] = {"sensitivity": {"shows": "sensitivity", "learning_rate_scales": [2]}}
    raw["arms"]["sfpo-x2"] = {"rule": "grpo", "objective": "grpo"}
    with pytest.raises(ConfigError, match=r"arms\.sfpo-x2: the name of another arm's runs at a scaled"):
        load(raw)


# ---------------------------------------------------------------------------------------------- overrides


def test_overrides_change_the_runs_that_they_concern(raw, resolve):
    raw["suites"]["tiny"]["overrides"] = [
        {"arms": ["sfpo"], "rule": {"alpha": 0.9}, "train": {"optimizer": {"learning_rate": 1e-5}}},
        {"arms": ["sfpo"], "datasets": ["programs"], "rule": {"alpha": 0.1}},  # concerns no run
        {"arms": ["sfpo"], "objective": {"clip": [0.1, 0.3]}, "execution": {"engine": {"max_sequences": 9}}},
        {"models": ["tiny-qwen2"], "max_completion_tokens": 32, "instruction": "Solve: {problem}"},
    ]
    found = resolve(raw)
    grpo, sfpo = (found[f"runs/tiny/{OF_DATA}/{arm}/seed0/settings.json"] for arm in ("grpo", "sfpo"))
    tiny = raw["suites"]["tiny"]["train"]
    assert grpo.recipe.train.optimizer.learning_rate == tiny["optimizer"]["learning_rate"]
    assert sfpo.recipe.train.optimizer.learning_rate == 1e-5 and sfpo.recipe.train.steps == tiny["steps"]
    assert sfpo.recipe.rule.settings["alpha"] == 0.9 and sfpo.recipe.rule.settings["entropy_trigger"]["window"] == 30
    assert grpo.recipe.objective.clip == (0.2, 0.2) and sfpo.recipe.objective.clip == (0.1, 0.3)
    assert sfpo.execution.engine.max_sequences == 9 and sfpo.execution.engine.kv_cache_gib == 0.5
    assert grpo.recipe.limits.max_completion_tokens == 32 and grpo.recipe.instruction == "Solve: {problem}"


def test_later_overrides_win_key_by_key(raw, resolve):
    raw["suites"]["tiny"]["overrides"] = [
        {"rule": {"alpha": 0.5, "entropy_trigger": {"window": 5}}, "train": {"steps": 3, "optimizer": {"eps": 1e-6}}},
        {"arms": ["sfpo"], "rule": {"alpha": 0.6}, "train": {"optimizer": {"eps": 1e-7}}},
    ]
    raw["suites"]["tiny"]["arms"] = ["sfpo", "sfpo_no_correction"]
    found = resolve(raw)
    sfpo, other = (found[f"runs/tiny/{OF_DATA}/{arm}/seed0/settings.json"].recipe for arm in raw["suites"]["tiny"]["arms"])
    assert (sfpo.rule.settings["alpha"], other.rule.settings["alpha"]) == (0.6, 0.5)
    assert (sfpo.train.optimizer.eps, other.train.optimizer.eps) == (1e-7, 1e-6) and sfpo.train.steps == 3
    assert sfpo.rule.settings["entropy_trigger"] == {**other.rule.settings["entropy_trigger"], "window": 5}
    assert sfpo.rule.settings["entropy_trigger"]["threshold"] == 1.0  # the arm's own


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([{"train": {"step": 3}}], r"overrides\[0\].train:\s*step: "),
        ([{"train": {"micro_batch_tokens": 3}}], r"overrides\[0\].train:\s*micro_batch_tokens: unknown key"),
        ([{"train": {"mini_batch_prompts": 3}}], r"overrides\[0\].train:\s.*must divide prompts_per_step"),
        ([{}, {"execution": {"save_evry": 3}}], r"overrides\[1\].execution:\s*save_evry: unknown key"),
        ([{"execution": {"resources": {"threads": 3}}}], r"overrides.0: execution.resources: must be the same for all jobs"),
        (
            [{"execution": {"engine": {"tensor_parallel": 2}}}],
            r"overrides.0: execution.engine.tensor_parallel: must be the same for all",
        ),
        ([{"arms": ["nobody"]}], r"suites.tiny.overrides\[0\].arms: 'nobody' is not defined"),
        ([{"instruction": "no place"}], "must contain {problem}"),
        ([{"arms": ["sfpo"], "rule": {"alpha": 2.0}}], "overrides, together, for .*/sfpo/seed0: rule.alpha = 2.0"),
        ([{"arms": ["sfpo"], "rule": {"snapshot_on_host": True}}], "rule.snapshot_on_host: .* in the suite's `execution`"),
        ([{"arms": ["grpo"], "rule": {"alpha": 0.5}}], "/grpo/seed0: rule.alpha: unknown setting of rule grpo"),
        # These would be recorded as the rule's, and another loss trained.
        ([{"rule": {"objective": "dapo"}}], "overrides.0: rule.objective: .*for another objective define another arm"),
        ([{"rule": {"rule": "grpo_k"}}], "overrides.0: rule.rule: .*for another rule define another arm"),
        ([{"rule": {"learning_rate_scale": 2.0}}], "overrides.0: rule.learning_rate_scale: "),
        ([{"rule": {"title": "Mine"}}], "overrides.0: rule.title: "),
        ([{"objective": {"clipp": [0.1, 0.1]}}], "overrides, together, for .*: objective:\n *clipp: unknown key"),
        ([{"objective": {"aggregation": "dapo"}}], "overrides, together, for .*: objective:\n *aggregation = 'dapo'"),
        # Each is possible alone.
        (
            [{"train": {"prompts_per_step": 12}}, {"train": {"mini_batch_prompts": 8}}],
            "overrides, together, for .*: train:\n *mini_batch_prompts 8 must divide prompts_per_step 12",
        ),
        (
            [{"arms": ["sfpo"], "rule": {"reposition": False}}, {"rule": {"slow_correction": "no"}}],
            "overrides, together, for .*: rule.slow_correction",
        ),
    ],
)
def test_impossible_overrides_stop_before_any_job(raw, load, overrides, told):
    raw["suites"]["tiny"]["overrides"] = overrides
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        jobs.check(load(raw))


# ---------------------------------------------------------------------------------------------- the untrained model


def test_the_untrained_model_is_scored_with_the_prompts_and_limits_of_the_runs_beside_it(raw, resolve):
    raw["suite"] = "paper"
    found = resolve(raw)
    model = "deepseek-r1-distill-qwen-1.5b"
    base = found[f"evaluations/paper/{model}/base-skywork-or1/settings.json"]
    trained = found[f"evaluations/paper/{model}/skywork-or1/grpo/seed0/settings.json"]
    assert base.run is None and base.checkpoints == {"base": f"models/paper/{model}/checkpoint"}
    assert base.limits == trained.limits and base.limits.max_completion_tokens == 22_528
    assert list(base.benchmarks) == ["aime24", "aime25"]
    assert found["results/paper/items/table2/settings.json"].base == {model: f"evaluations/paper/{model}/base-skywork-or1"}
    for item in ("table1", "table3"):
        assert found[f"results/paper/items/{item}/settings.json"].base[model] == f"evaluations/paper/{model}/base"
    assert found[f"evaluations/paper/{model}/base/settings.json"].limits.max_completion_tokens == 6144


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ({"max_completion_tokens": 32}, "base-arithmetic"),
        ({"datasets": ["arithmetic"], "instruction": "Solve: {problem}"}, "base-arithmetic"),
        ({"arms": ["grpo", "sfpo"], "max_completion_tokens": 32}, "base-arithmetic+grpo"),
        ({"arms": ["grpo_k"], "max_completion_tokens": 32}, "base"),  # no run of the item
        ({"arms": ["sfpo"], "max_completion_tokens": 64}, "base"),  # as it was
    ],
)
def test_an_override_that_concerns_all_runs_of_an_item_concerns_the_untrained_model_too(raw, resolve, override, name):
    raw["suites"]["tiny"]["overrides"] = [override]
    found = resolve(raw)
    (base,) = (one for path, one in found.items() if path.startswith("evaluations/tiny/tiny-qwen2/base"))
    trained = found[f"evaluations/tiny/{OF_DATA}/sfpo/seed0/settings.json"]
    assert (base.limits, base.instruction) == (trained.limits, trained.instruction)
    assert f"evaluations/tiny/tiny-qwen2/{name}/settings.json" in found
    assert found["results/tiny/items/table1/settings.json"].base == {"tiny-qwen2": f"evaluations/tiny/tiny-qwen2/{name}"}


def test_runs_of_other_limits_have_no_base_in_common(raw, resolve):
    tiny = raw["suites"]["tiny"]
    tiny["overrides"] = [{"arms": ["sfpo"], "max_completion_tokens": 32}]
    with pytest.raises(ConfigError, match=r"items\.table1: its runs arithmetic/grpo and arithmetic/sfpo have different"):
        resolve(raw)
    tiny["items"] = {"figure2": {"shows": "curves"}}  # scores nothing
    assert not of(resolve(raw), "evaluations")
    tiny["items"] = {"table1": {"shows": "scores", "arms": ["grpo"]}, "table2": {"shows": "scores", "arms": ["sfpo"]}}
    limits = {
        path.split("/")[3]: one.limits.max_completion_tokens for path, one in resolve(raw).items() if "tiny-qwen2/base" in path
    }
    assert limits == {"base": 64, "base-arithmetic+sfpo": 32}


def test_no_two_pairs_of_data_set_and_arm_share_a_base(raw, resolve):
    for name in ("a", "a-b"):
        raw["datasets"][name] = copy.deepcopy(raw["datasets"]["arithmetic"])
    for name in ("c", "b-c"):
        raw["arms"][name] = {"rule": "grpo", "objective": "grpo"}
    pairs = {("a-b", "c"): 32, ("a", "b-c"): 16}
    tiny = raw["suites"]["tiny"]
    tiny["items"] = {
        f"table{limit}": {"shows": "scores", "datasets": [dataset], "arms": [arm]} for (dataset, arm), limit in pairs.items()
    }
    tiny["overrides"] = [{"datasets": [d], "arms": [a], "max_completion_tokens": limit} for (d, a), limit in pairs.items()]
    limits = {one.limits.max_completion_tokens for path, one in resolve(raw).items() if "tiny-qwen2/base" in path}
    assert limits == {32, 16}


def test_an_override_of_execution_concerns_the_evaluation_of_its_runs_too(raw, resolve):
    raw["suites"]["tiny"]["overrides"] = [{"arms": ["sfpo"], "execution": {"engine": {"kv_cache_gib": 0.25}}}]
    found = resolve(raw)
    memory = [found[f"evaluations/tiny/{OF_DATA}/{arm}/seed0/settings.json"].engine.kv_cache_gib for arm in ("grpo", "sfpo")]
    assert memory == [0.5, 0.25]


def test_an_override_may_not_take_away_what_is_chosen_from(raw, resolve):
    tiny = raw["suites"]["tiny"]
    tiny["overrides"] = [{"arms": ["sfpo"], "train": {"export_every": None}}]
    resolve(raw)  # the best checkpoint on validation needs none
    tiny["evaluate"]["checkpoint"] = "best_on_benchmarks"
    with pytest.raises(ConfigError, match=r"sfpo/seed0: train\.export_every must be set"):
        resolve(raw)


def test_an_override_that_concerns_no_run_is_told(raw, load, caplog):
    raw["suites"]["tiny"]["overrides"] = [{"arms": ["sfpo"], "max_completion_tokens": 64}, {"arms": ["gspo"], "rule": {}}]
    jobs.check(load(raw))
    assert [record.getMessage() for record in caplog.records] == ["suites.tiny.overrides[1] applies to no run of the suite"]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("arms.sfpo.title", "GRPO", "arms grpo and sfpo have the same title, 'GRPO'"),
        ("benchmarks.sums.title", "Chains", "benchmarks sums and chains have the same title, 'Chains'"),
    ],
)
def test_what_a_table_tells_apart_has_titles_of_its_own(raw, load, path, value, told):
    setting(path, value)(raw)
    with pytest.raises(ConfigError, match=rf"suites\.tiny\.items\.table1: {told}"):
        jobs.check(load(raw))


def test_a_mirror_of_the_command_line_counts(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/rows.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    raw["benchmarks"]["sums"]["rows"] = {"source": "hub", "mirror": "rows.jsonl"}
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(SystemExit, match="mirror"):
        main([])  # its rows are nowhere else
    main(["--data-mirror", "mirror"])
    assert "suite tiny" in capsys.readouterr().out


def test_dapos_overlong_penalty_is_in_proportion_to_the_papers_limits(raw, resolve):
    # DAPO begins 4,096 tokens before 20,480, its longest completion: a fifth. Of 6,144 tokens that is 1,229.
    raw["suite"] = "paper"
    dapo = resolve(raw)["runs/paper/deepseek-r1-distill-qwen-1.5b/dapo-math/dapo/seed0/settings.json"].recipe
    assert dapo.objective.overlong_penalty.buffer_tokens == round(dapo.limits.max_completion_tokens / 5)
    assert dapo.objective.dynamic_sampling.max_refills == 2  # what the override does not name


def test_an_engine_has_no_more_places_than_sequences_to_fill_them(resolve, raw):
    run = next(job for job in resolve(raw).values() if isinstance(job, RunSettings))
    train = run.recipe.train
    counts = {"prompts_per_step": 10, "completions_per_prompt": 8, "mini_batch_prompts": 10}
    few = train.validation.model_copy(update={"prompts": 5, "samples": 2})
    many = train.validation.model_copy(update={"prompts": 100, "samples": 4})
    recipe = run.recipe.model_copy(update={"train": train.model_copy(update={**counts, "validation": few})})
    assert recipe.most_sequences(1) == 80  # 10 prompts x 8
    assert recipe.most_sequences(4) == 24  # 3 prompts for some engine
    recipe = run.recipe.model_copy(update={"train": train.model_copy(update={**counts, "validation": many})})
    assert recipe.most_sequences(4) == 100  # 25 prompts x 4 samples
    assert run.execution.engine.for_at_most(3).max_sequences == 3
    assert run.execution.engine.for_at_most(10**6) == run.execution.engine
