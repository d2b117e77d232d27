import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from report_factory import report_settings, write_results

from eval.report import render

ROOT = Path(__file__).parents[2]
SETTINGS = "results/tiny/settings.json"


def test_every_item_is_written(results, tmp_path, monkeypatch, capsys):
    results()
    monkeypatch.chdir(tmp_path)
    before = dict(mpl.rcParams)
    render.main([SETTINGS, *render.ITEMS])
    folder = tmp_path / "results/tiny"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {f"tables/{name}.{kind}" for name in ("table1", "table1_pass_at_k", "arms") for kind in ("csv", "md", "tex")}
    figures = {f"figures/{name}.{kind}" for name in ("figure2", "figure3", "figure4", "arms") for kind in ("png", "pdf", "csv")}
    assert written == {"settings.json", "metrics.json"} | tables | figures
    assert capsys.readouterr().out.startswith("Suite tiny: accuracy (avg@4, %)")
    assert dict(mpl.rcParams) == before  # the style stays inside


def test_only_what_is_asked_for(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    render.main([SETTINGS, "figure2"])
    assert not (tmp_path / "results/tiny/tables").exists()
    assert {path.name for path in (tmp_path / "results/tiny/figures").iterdir()} == {
        "figure2.png",
        "figure2.pdf",
        "figure2.csv",
    }


def test_metrics_hold_the_tables_numbers(results, tmp_path, monkeypatch):
    results(seeds=(0, 1))
    monkeypatch.chdir(tmp_path)
    render.main([SETTINGS, "metrics", "table1"])
    group = json.loads((tmp_path / "results/tiny/metrics.json").read_text())["tiny-qwen2"]["arithmetic"]
    table = pd.read_csv(tmp_path / "results/tiny/tables/table1.csv").set_index("arm")
    assert set(group) == {"base", "grpo", "sfpo", "grpo-base", "sfpo-base", "sfpo-grpo"}
    assert group["sfpo"]["average"] == round(table.loc["sfpo", "average"], 4)
    assert group["sfpo-grpo"]["average_low"] == round(table.loc["sfpo-grpo", "average_low"], 4)
    assert group["grpo"]["trigger_fired_at"] == {"seed0": None, "seed1": None}
    for seed in (0, 1):
        summary = json.loads((tmp_path / f"runs/tiny/tiny-qwen2/arithmetic/sfpo/seed{seed}/summary.json").read_text())
        assert group["sfpo"]["trigger_fired_at"][f"seed{seed}"] == summary["trigger_fired_at"]


def test_metrics_without_an_interval_are_valid_json(tmp_path, monkeypatch):
    write_results(tmp_path, report_settings(), problems=1)
    monkeypatch.chdir(tmp_path)
    render.main([SETTINGS, "metrics", "table1", "headline"])
    text = (tmp_path / "results/tiny/metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["tiny-qwen2"]["arithmetic"]["sfpo-grpo"]["average_low"] is None
    assert "[n/a]" in (tmp_path / "results/tiny/tables/table1.md").read_text()


def test_equal_results_give_equal_bytes(results, tmp_path, monkeypatch):
    """Here, and in a process of its own with another hash seed."""
    results()
    monkeypatch.chdir(tmp_path)
    items = [SETTINGS, "table1", "figure2", "arms", "metrics"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    render.main(items)
    here = digests(tmp_path)
    subprocess.run([sys.executable, "-m", "eval.report.render", *items], env=environment, check=True, timeout=120)
    assert len(here) == 17 and digests(tmp_path) == here


def digests(root):
    files = [path for path in (root / "results").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_pdf_holds_text_as_truetype_and_no_date(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    render.main([SETTINGS, "figure2"])
    pdf = (tmp_path / "results/tiny/figures/figure2.pdf").read_bytes()
    assert b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_faults_are_told_without_a_traceback(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*no such settings file"):
        render.main(["results/none/settings.json", "table1"])
    (tmp_path / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/summary.json").unlink()
    with pytest.raises(SystemExit, match=r"error: runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/summary.json: no such file"):
        render.main([SETTINGS, "table1"])
    with pytest.raises(SystemExit) as error:
        render.main([SETTINGS, "figure99"])
    assert error.value.code == 2


def test_every_picture_and_table_has_a_caption():
    captions = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    assert captions == (set(render.ITEMS) - {"metrics", "headline"}) | {"table1_pass_at_k", "arms_figure", "workflow"}
