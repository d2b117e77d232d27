"""The whole graph on a two-step configuration, by DVC and by Snakemake, in real clones: what runs, and what does not."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.pipeline

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@t",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t",
}


def run(folder: Path, *command: str, ok: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)
    output = done.stdout + done.stderr
    logs = "".join(f"\n--- {path}\n{path.read_text()[-1500:]}" for path in folder.glob("logs/**/*.log")) if ok else ""
    assert (done.returncode == 0) == ok, f"{' '.join(command)} gave {done.returncode}\n{output[-5000:]}{logs[-20000:]}"
    return output


ITEMS = ("table1", "figure2", "figure3", "figure4", "figure8", "arms", "targets")
REPORT = dict.fromkeys((*ITEMS, "metrics", "runs_page", "all"), 1)


def planned(folder: Path) -> Counter:
    """Rule -> number of jobs that a dry run lists."""
    heads = [line.removeprefix("local").removesuffix(":").split() for line in run(folder, "snakemake", "-n").splitlines()]
    return Counter(words[1] for words in heads if len(words) == 2 and words[0] == "rule")


def finished(output: str) -> Counter:
    """Rule -> number of jobs that Snakemake says it has finished."""
    return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))


def two_steps(params: dict) -> dict:
    """The tiny suite, cut down: one seed, two steps, few problems, a model that is hardly warmed up."""
    tiny = params["suites"]["tiny"]
    tiny["seeds"] = [0]
    tiny["train"].update(steps=2, prompts_per_step=4, completions_per_prompt=4, mini_batch_prompts=2, save_every=1)
    tiny["train"]["validation"] = {"every": 1, "prompts": 4, "samples": 2}
    tiny["evaluate"]["limit"] = 5
    params["models"]["tiny-qwen2"]["warm_up"].update(
        batch_size=4, max_batches=2, check_every=1, check_prompts=4, pass_rate=[0.0, 1.0]
    )
    params["datasets"]["arithmetic"]["parts"]["generated"]["tasks"] = {"sums": 40, "stories": 40}
    params["datasets"]["arithmetic"]["validation_rows"] = 8
    return params


def change_alpha(folder: Path, alpha: float) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["arms"]["sfpo"]["alpha"] = alpha
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def seen(folder: Path) -> dict[str, str]:
    """Run -> hash of the settings that its result records."""
    summaries = sorted(folder.glob("runs/**/summary.json"))
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text())["settings_hash"] for path in summaries}


def copy_of_the_project(folder: Path) -> Path:
    """The present tree's source, without results."""
    listed = run(PROJECT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A repository of the present tree with the two-step configuration, built by `dvc repro`, committed and pushed."""
    top = tmp_path_factory.mktemp("pipeline")
    folder = copy_of_the_project(top / "origin")
    params = two_steps(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "local", str(top / "remote"))
    run(folder, "dvc", "repro")
    run(folder, "dvc", "push", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "built")
    return folder


@pytest.fixture
def clone(built, tmp_path) -> Path:
    """A fresh clone after `dvc pull`."""
    run(tmp_path, "git", "clone", "-q", str(built), "clone")
    run(tmp_path / "clone", "dvc", "pull", "-q")
    return tmp_path / "clone"


def test_everything_is_there_and_nothing_is_left_to_do(built):
    table = pd.read_csv(built / "results/tiny/tables/table1.csv")
    benchmarks = yaml.safe_load((built / "params.yaml").read_text())["suites"]["tiny"]["benchmarks"]
    scores = table[table["kind"] == "score"]
    assert list(scores["arm"]) == ["base", "grpo", "sfpo"]
    assert scores[[*benchmarks, "average"]].notna().all(axis=None)
    for figure in ("figure2", "figure3", "figure4", "figure8"):
        for kind in ("png", "pdf", "csv"):
            assert (built / f"results/tiny/figures/{figure}.{kind}").stat().st_size > 0
    assert planned(built) == {}
    assert "Data and pipelines are up to date" in run(built, "dvc", "status")
    assert "Running stage" not in run(built, "dvc", "repro")
    assert "average" in run(built, "dvc", "metrics", "show", "--json")
    run(built, "dvc", "plots", "show", "-o", "plots_page")
    run(built, "snakemake", "--report", "results/tiny/report.html")
    page = (built / "results/tiny/report.html").read_text()
    assert "Validation accuracy" in page
    captions = " ".join(re.sub(r"<[^>]*>", "", page.replace('\\"', '"')).split())
    assert all(f"Reproduce: snakemake --cores all --config suite=tiny -- {name}" in captions for name in (*ITEMS, "runs_page"))
    assert not re.search(r"""(src|href) *= *\\?["']https?:""", page)  # opens offline
    runs = (built / "results/tiny/runs.html").read_text()
    assert runs.count("<details>") == 2 and base64.b64encode(runs.encode()).decode() in page
    headline = run(built, sys.executable, "-m", "eval.report.render", "results/tiny/items/table1/settings.json", "--headline")
    assert "SFPO" in headline


def test_a_fresh_clone_has_nothing_to_do_and_reruns_what_a_change_makes_stale(clone):
    assert planned(clone) == {}
    before = seen(clone)
    change_alpha(clone, 0.7)
    assert planned(clone) == {"train_run": 1, "evaluate_run": 1, **REPORT}
    change_alpha(clone, 0.8)  # and back: the old result is the result again
    assert planned(clone) == {}
    change_alpha(clone, 0.7)
    run(clone, "snakemake", "--cores", "2")
    after = seen(clone)
    assert [name for name in before if before[name] != after[name]] == ["runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0"]
    assert planned(clone) == {}
    shutil.rmtree(clone / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0")
    assert planned(clone) == {"train_run": 1, "evaluate_run": 1, **REPORT}


def test_two_processes_a_job_end_in_the_same_table(built, clone):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["suites"]["tiny"]["resources"]["processes"] = 2
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    assert planned(clone) == {}  # how many share the work decides no result
    for arm in ("grpo", "sfpo"):
        shutil.rmtree(clone / f"runs/tiny/tiny-qwen2/arithmetic/{arm}/seed0")
    run(clone, "snakemake", "--cores", "2")
    summary = clone / "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0/summary.json"
    assert json.loads(summary.read_text())["ranks"] == 2
    ours, theirs = (pd.read_csv(folder / "results/tiny/tables/table1.csv") for folder in (built, clone))
    pd.testing.assert_frame_equal(ours, theirs)


def test_dvc_repro_reruns_the_same(clone):
    change_alpha(clone, 0.7)
    before = seen(clone)
    output = run(clone, "dvc", "repro")
    assert "Running stage 'train'" in output
    assert finished(output) == {"train_run": 1, "train": 1, "evaluate_run": 1, "evaluate": 1, **REPORT}
    after = seen(clone)
    assert [name for name in before if before[name] != after[name]] == ["runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0"]
    assert "Data and pipelines are up to date" in run(clone, "dvc", "status")
    shutil.rmtree(clone / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0")
    run(clone, "dvc", "repro")  # DVC has it in its cache
    assert seen(clone) == after and planned(clone) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["suite=smal"], "suite: 'smal' is not defined"),
        (["suite=small", "data_mirror=/nowhere"], "/nowhere/train/math_train.parquet: no such file"),
    ],
)
def test_an_impossible_setting_stops_before_any_job(built, change, told):
    assert told in run(built, "snakemake", "-n", "--config", *change, ok=False)


def test_what_fails_is_told_with_its_reason_and_the_rest_is_reported(clone):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["arms"]["sfpo"]["learning_rate_scale"] = 1e34  # the first update destroys the weights
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    told = run(clone, "snakemake", "--cores", "2", "--keep-going", ok=False)
    assert "not finished: runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0" in told and "NonFinite" in told
    table = (clone / "results/tiny/partial/tables/table1.md").read_text()
    assert "INCOMPLETE: 1 runs are not in this table: tiny/tiny-qwen2/arithmetic/sfpo/seed0" in table
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert rows["sfpo"].count("missing") == 7 and "missing" not in rows["GRPO"]  # six benchmarks and the average
    assert (clone / "results/tiny/partial/figures/figure2.png").is_file()
