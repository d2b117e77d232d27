"""The page of all runs: what it says of each, what it marks, and that no text of a run becomes markup."""

import json
import re
from html import unescape

import pytest

from eval.report import render
from eval.report.collect import ReportError
from eval.report.runs_page import runs_page

FOLDER = "runs/tiny/tiny-qwen2/arithmetic"


def change(root, arm, seed, **changes):
    """Replace keys of a run's summary."""
    path = root / f"{FOLDER}/{arm}/seed{seed}/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rows(page):
    """Of each run: the cells of its first row, and what is marked in it."""
    bodies = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    return {
        tuple(cells[2:4]): (cells, re.findall(r"<mark>≠ (.*?)</mark>", body))
        for body in bodies
        if (cells := re.findall(r"<td>(.*?)</td>", body))
    }


def marked(page):
    return {f"{arm}/{seed}": marks for (arm, seed), (_, marks) in rows(page).items() if marks}


def test_each_run_is_told_with_its_numbers_what_made_it_and_its_settings(results, tmp_path):
    settings = results()
    change(tmp_path, "sfpo", 1, trigger_fired_at=None, engine_restarts=3)
    change(tmp_path, "sfpo", 2, trigger_fired_at=44)
    page = runs_page([settings, settings], tmp_path)
    found = {run: cells for run, (cells, _) in rows(page).items()}
    assert len(found) == 6
    assert found["grpo", "0"] == ["tiny-qwen2", "arithmetic", "grpo", "0", "60", "71.2", "-", "0"]
    assert found["sfpo", "1"][-2:] == ["never", "3"] and found["sfpo", "2"][-2:] == ["44", "0"]
    for text in (
        "commit: abc1234",
        "versions: python 3.11.7, torch 2.13.0",
        "hardware: AMD EPYC, cores 2, threads 1, GPU none",
    ):
        assert page.count(text) == 6
    shown = re.findall(r"<details><summary>(.*?)</summary><pre>(.*?)</pre></details>", page, re.DOTALL)
    assert [name for name, _ in shown] == [f"{FOLDER}/{arm}/seed{seed}" for arm in ("grpo", "sfpo") for seed in range(3)]
    for name, text in shown:
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert json.loads(unescape(text)) == {key: summary[key] for key in ("recipe", "execution")}
    assert marked(page) == {} and "differ in commit, versions or hardware: 0 of 6" in page


def test_what_made_a_run_is_marked_where_most_others_differ(results, tmp_path):
    settings = results()
    gpus = {"cpu": "AMD EPYC", "cores": 2, "threads": 1, "gpus": ["H200", "H200"]}
    change(tmp_path, "sfpo", 0, versions={"python": "3.11.7", "torch": "2.12.0", "commit": "abc1234"})
    change(tmp_path, "sfpo", 1, versions={"python": "3.11.7", "commit": "abc1234-dirty"}, hardware=gpus)
    change(tmp_path, "grpo", 2, settings_hash="0" * 64)
    page = runs_page([settings], tmp_path)
    assert marked(page) == {
        "sfpo/0": ["torch 2.12.0"],
        "sfpo/1": ["abc1234-dirty", "torch absent", "GPU 2 x H200"],
        "grpo/2": ["settings changed since this run"],
    }
    assert "differ in commit, versions or hardware: 2 of 6" in page


def test_without_a_majority_all_are_marked(results, tmp_path):
    settings = results(seeds=(0,))
    change(tmp_path, "sfpo", 0, versions={"python": "3.11.7", "torch": "2.13.0"})
    assert marked(runs_page([settings], tmp_path)) == {"grpo/0": ["abc1234"], "sfpo/0": ["unknown"]}


def test_runs_of_another_model_are_not_compared(results, tmp_path):
    settings = results(models=("tiny-qwen2", "other"), seeds=(0,))
    for arm in ("grpo", "sfpo"):
        change(tmp_path, arm, 0, versions={"python": "3.12.0", "vllm": "0.32.0", "commit": "def5678"})
    page = runs_page([settings], tmp_path)
    assert page.count("<details>") == 4 and "<mark>" not in page
    assert "absent" not in page  # what no run of a model has is not said of it


def test_no_text_of_a_run_becomes_markup(results, tmp_path):
    settings = results(seeds=(0,))
    evil = "</pre><script>alert(1)</script>"
    recipe = json.loads((tmp_path / f"{FOLDER}/sfpo/seed0/summary.json").read_text())["recipe"]
    change(tmp_path, "sfpo", 0, recipe={**recipe, "instruction": evil})
    change(tmp_path, "sfpo", 0, versions={evil: evil, "commit": evil})
    change(tmp_path, "grpo", 0, hardware={"cpu": evil, "cores": 1, "threads": 1, "gpus": [evil]})
    page = runs_page([settings], tmp_path)
    # The instruction, the package (absent from the other run) and its version, the commit, processor and GPU.
    assert "<script" not in page and page.count("&lt;script&gt;") == 7


def test_what_has_not_finished_is_named(results, tmp_path):
    settings = results(seeds=(0,))
    for arm in ("sfpo", "grpo"):
        (tmp_path / f"{FOLDER}/{arm}/seed0/summary.json").unlink()
        page = runs_page([settings], tmp_path)
        assert re.search(rf"Not finished: .*{arm}/seed0", page)
    assert "<table>" not in page


def test_a_damaged_file_is_named(results, tmp_path):
    settings = results(seeds=(0,))
    change(tmp_path, "sfpo", 0, hardware=None)
    with pytest.raises(ReportError, match=r"sfpo/seed0/summary\.json: cannot be read"):
        runs_page([settings], tmp_path)


def test_the_command_line_writes_the_page_from_the_runs_alone(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluations").rename(tmp_path / "gone")
    render.main(["results/tiny/items/table1/settings.json", "results/tiny/items/figure2/settings.json", "--runs"])
    assert len(rows((tmp_path / "results/tiny/runs.html").read_text())) == 6
    assert not (tmp_path / "results/tiny/tables").exists()
