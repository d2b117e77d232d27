"""The whole graph, by DVC and by Snakemake, in real clones: what runs, and what does not."""

import json
import re
import shutil
import sys

import pandas as pd
import pytest
import yaml

from tests.workflow.pipeline import ITEMS, REPORT, change_alpha, changing, finished, planned, run, seen

pytestmark = pytest.mark.pipeline


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
    page = (built / "results/tiny/report.html").read_text()
    first_screen = re.sub(r"<[^>]*>", " ", page[: page.index("<img")])
    assert "Accuracy (avg@" in first_screen and "SFPO - GRPO" in first_screen  # the answer comes before every picture
    assert all(f"snakemake --cores all --config suite=tiny -- {name}<" in page for name in ITEMS)
    assert not re.search(r"""(src|href) *= *\\?["']https?:""", page)  # opens offline
    runs = (built / "results/tiny/runs.html").read_text()
    assert runs.count("<details>") == 2 and 'href="runs.html"' in page
    headline = run(built, sys.executable, "-m", "eval.report.render", "results/tiny/items/table1/settings.json", "--headline")
    assert "SFPO" in headline


def test_a_fresh_clone_has_nothing_to_do_and_reruns_what_a_change_makes_stale(clone):
    assert planned(clone) == {}
    before = seen(clone)
    change_alpha(clone, 0.7)
    assert planned(clone) == {"train_run": 1, "evaluate_run": 1, "record_step": 1, **REPORT}
    change_alpha(clone, 0.8)  # and back: the old result is the result again
    assert planned(clone) == {}
    change_alpha(clone, 0.7)
    run(clone, "snakemake", "--cores", "2")
    after = seen(clone)
    assert [name for name in before if before[name] != after[name]] == ["runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0"]
    assert planned(clone) == {}
    shutil.rmtree(clone / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0")
    assert planned(clone) == {"train_run": 1, "evaluate_run": 1, **REPORT}  # the recorded step continues SFPO's run


def test_a_difficulty_filter_comes_between_model_and_training(clone):
    with changing(clone) as params:
        params["suites"]["tiny"]["difficulty"] = {"samples": 2, "correct": [0, 1], "rows": 20}
    assert planned(clone) == {"filter_dataset": 1, "train_run": 2, "evaluate_run": 2, "record_step": 1, **REPORT}
    run(clone, "snakemake", "--cores", "2", "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/summary.json")
    report = json.loads((clone / "data/tiny/filtered/tiny-qwen2+arithmetic/report.json").read_text())
    summary = json.loads((clone / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/summary.json").read_text())
    assert report["scored"] == 20 and summary["prompts"] == report["kept"]
    assert planned(clone) == {"train_run": 1, "evaluate_run": 2, "record_step": 1, **REPORT}


def test_two_processes_a_job_end_in_the_same_table(built, clone):
    with changing(clone) as params:
        params["suites"]["tiny"]["execution"]["resources"]["processes"] = 2
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
    assert finished(output) == {"train_run": 1, "train": 1, "evaluate_run": 1, "record_step": 1, "evaluate": 1, **REPORT}
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
    with changing(clone) as params:
        params["arms"]["sfpo"]["learning_rate_scale"] = 1e34  # the first update destroys the weights
    told = run(clone, "snakemake", "--cores", "2", "--keep-going", ok=False)
    assert "not finished: runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0" in told and "NonFinite" in told
    table = (clone / "results/tiny/partial/tables/table1.md").read_text()
    assert "INCOMPLETE: 1 runs are not in this table: tiny/tiny-qwen2/arithmetic/sfpo/seed0" in table
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert rows["sfpo"].count("missing") == 7 and "missing" not in rows["GRPO"]  # six benchmarks and the average
    assert (clone / "results/tiny/partial/figures/figure2.png").is_file()
