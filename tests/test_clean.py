"""Unused results are listed and removed; those of a suite never are, whatever is wrong in params.yaml."""

import json
import os
from pathlib import Path

import pytest
import yaml

from sfpo import jobs
from sfpo.clean import main, size
from sfpo.config import load_params
from sfpo.config.plain_yaml import PlainLoader
from sfpo.settings import EvaluationSettings, RunSettings, settings_hash
from sfpo.trainer.lock import run_lock

PROJECT = Path(__file__).parent.parent
OF_TINY = "tiny-qwen2/arithmetic"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)
    found = yaml.load((PROJECT / "params.yaml").read_text(), Loader=PlainLoader)
    Path("params.yaml").write_text(yaml.safe_dump(found))
    return found


def save(raw: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(raw))


def compute(suite: str, data_mirror: str | None = None) -> None:
    """Everything of a suite that takes time is there, as far as its folders tell."""
    changes = {"data_mirror": data_mirror} if data_mirror else {}
    found = jobs.resolve(load_params("params.yaml", suite, changes))
    jobs.write_settings({path: one for path, one in found.items() if not path.startswith("results/")})
    for path, one in found.items():
        if isinstance(one, RunSettings):
            state = Path(path).parent / "state" / one.recipe_hash[:12]
            state.mkdir(parents=True)
            (state / "recipe.json").write_text(json.dumps(one.recipe.model_dump(mode="json")))
        if isinstance(one, EvaluationSettings):
            (Path(path).parent / "state" / settings_hash(one)[:12]).mkdir(parents=True)


@pytest.fixture
def listed(capsys):
    def lines(*arguments: str) -> dict[str, str]:
        main(list(arguments))
        *found, _ = capsys.readouterr().out.splitlines()
        return dict(line.split(": ", 1) for line in found)

    return lines


def test_nothing_is_listed_where_a_suite_names_all(raw, listed):
    compute("tiny")
    compute("controls")
    assert listed() == {}


def test_other_recipes_states_are_listed_and_removed_and_nothing_else(raw, listed):
    compute("tiny")
    raw["arms"]["sfpo"]["alpha"] = 0.5
    save(raw)
    found = listed()
    kinds = [why.split(",")[0] for why in found.values()]
    # Of 3 runs the state, and of their evaluations the scores.
    assert sorted(kinds) == ["another recipe"] * 3 + ["scores of other settings"] * 3
    assert all("/sfpo/seed" in folder for folder in found)
    assert listed("--remove").keys() == found.keys() and not any(Path(folder).exists() for folder in found)
    assert listed() == {}


def test_more_steps_are_no_other_recipe(raw, listed):
    compute("tiny")
    raw["suites"]["tiny"]["train"]["steps"] = 80
    save(raw)
    assert {why.split(",")[0] for why in listed().values()} == {"scores of other settings"}


def test_what_a_deleted_suite_or_a_renamed_arm_has_left_is_listed(raw, listed):
    compute("controls")
    raw["arms"]["plain"] = raw["arms"].pop("grpo_k")
    raw["suites"]["controls"]["arms"][2] = "plain"
    for suite in ("arms", "sweep"):
        raw["suites"][suite]["arms"].remove("grpo_k")
    save(raw)
    assert listed().keys() == {f"{top}/controls/{OF_TINY}/grpo_k/seed{k}" for top in ("runs", "evaluations") for k in range(5)}
    del raw["suites"]["controls"]
    save(raw)
    found = listed()
    assert {
        "data/controls/train/arithmetic",
        "models/controls/tiny-qwen2",
        "evaluations/controls/tiny-qwen2/base",
    } < found.keys()
    assert len(found) == 7 + 1 + 20 + 1 + 20 + 1  # data, model, runs, untrained model, evaluations, recorded step


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("suites", "controls", "train"), {"stepz": 3}),
        (("suites", "controls", "extends"), "tinny"),
        (("arms", "grpo_k", "objective"), "nothing"),
        (("arms", "grpo_k", "num_fast_steps"), 0),
        (("models", "tiny-coder", "max_prompt_tokens"), "many"),
        (("suites", "controls", "models"), ["tiny-qwen3"]),
    ],
)
def test_nothing_is_removed_while_anything_is_wrong_in_params(raw, path, value):
    # A suite that cannot be read names nothing: its runs would be taken for those of no suite.
    compute("controls")
    section, entry, key = path
    raw[section][entry][key] = value
    save(raw)
    with pytest.raises(SystemExit, match="Nothing is listed or removed"):
        main(["--remove"])
    assert Path(f"runs/controls/{OF_TINY}/grpo_k/seed0").is_dir()


def test_a_suite_is_compared_with_the_mirror_that_its_data_are_from(raw, listed, tmp_path):
    # `snakemake --config data_mirror=...` says it, not params.yaml; and of suite paper the mirror has not all.
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "rows.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    raw["datasets"]["arithmetic"]["parts"] = {"rows": {"source": "hub", "id": "a/b", "mirror": "rows.jsonl"}}
    save(raw)
    compute("tiny", str(mirror))
    assert listed() == {}
    (mirror / "rows.jsonl").write_text('{"problem": "1+1", "answer": "3"}\n')
    assert {why.split(",")[0] for why in listed().values()} == {"another recipe", "scores of other settings"}


def test_a_run_that_is_being_trained_is_left_alone(raw, listed):
    compute("tiny")
    raw["arms"]["sfpo"]["alpha"] = 0.5
    save(raw)
    with run_lock(Path(f"runs/tiny/{OF_TINY}/sfpo/seed1")):
        found = listed("--remove")
    (kept,) = [folder for folder in found if Path(folder).exists()]
    assert kept.startswith(f"runs/tiny/{OF_TINY}/sfpo/seed1/state/") and "not removed" in found[kept]


def test_a_state_that_a_kill_has_left_without_its_recipe_is_passed_over(raw, listed):
    compute("tiny")
    Path(f"runs/tiny/{OF_TINY}/sfpo/seed0/state/0123").mkdir()
    assert listed() == {}


def test_a_size_is_what_deleting_frees(tmp_path):
    inside, outside = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (inside / "state", inside / "best", outside):
        folder.mkdir(parents=True)
    for name in ("weights", "shared"):
        (inside / "state" / name).write_bytes(bytes(100))
    os.link(inside / "state/weights", inside / "best/weights")  # both go
    os.link(inside / "state/shared", outside / "shared")  # stays
    (inside / "summary.json").write_bytes(bytes(7))
    assert size(inside) == 107
