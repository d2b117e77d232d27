import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from report_factory import NAMES, report_settings, write_results

from eval.report import render
from eval.report.kinds import kind_names
from sfpo.data.rows import Row, write_rows
from sfpo.manifest import write_text
from sfpo.settings import to_json

ROOT = Path(__file__).parents[2]
ITEMS = {shows: f"results/tiny/items/{name}/settings.json" for shows, name in NAMES.items()}
TABLES = ("table1", "table1_pass_at_k", "table1_beside_paper", "figure4_beside_paper", "arms", "targets", "selection")
FIGURES = ("figure2", "figure3", "figure4", "figure8", "arms", "targets")
TABLE, FIGURE = ("csv", "md", "tex", "html"), ("png", "pdf", "csv")


def test_every_kind_is_written(results, tmp_path, monkeypatch, capsys):
    results()
    monkeypatch.chdir(tmp_path)
    before = dict(mpl.rcParams)
    render.main(list(ITEMS.values()))
    folder = tmp_path / "results/tiny"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"metrics.json"}
    tables = {f"tables/{name}.{kind}" for name in TABLES for kind in TABLE}
    figures = {f"figures/{name}.{kind}" for name in FIGURES for kind in FIGURE}
    assert (
        written
        == {f"items/{name}/{file}.json" for name in NAMES.values() for file in ("settings", "record")} | tables | figures
    )
    render.main([*ITEMS.values(), "--headline"])
    assert capsys.readouterr().out.startswith("Suite tiny: accuracy (avg@4, %)")
    assert dict(mpl.rcParams) == before  # the style stays inside


def test_only_what_is_asked_for_from_only_what_it_needs(results, tmp_path, monkeypatch):
    results()
    shutil.rmtree(tmp_path / "evaluations")
    monkeypatch.chdir(tmp_path)
    render.main([ITEMS["curves"]])
    assert not (tmp_path / "results/tiny/tables").exists()
    assert {path.name for path in (tmp_path / "results/tiny/figures").iterdir()} == {f"figure2.{kind}" for kind in FIGURE}


def test_overlap_is_counted_and_the_rest_is_scored(results, tmp_path, monkeypatch):
    settings = results(shows="scores").model_copy(update={"item": "contamination", "shows": "contamination"})
    write_text(tmp_path / "contamination.json", to_json(settings))
    words = "one two three four five six seven eight nine"  # two 8-grams
    held_out = []
    for name in settings.benchmarks:
        # As scored: 40 problems; of each benchmark the first is a training row and the last a validation row; all of new_chains
        # are validation rows, the first a training row as well.
        rows = [Row(f"{name}/{k:03d}", words if k == 0 else f"{name} {k}", ("1",)) for k in range(40)]
        held_out += rows[1:] if name == "new_chains" else rows[-1:]
        (tmp_path / f"data/tiny/benchmarks/{name}").mkdir(parents=True)
        write_rows(tmp_path / f"data/tiny/benchmarks/{name}/problems.parquet", rows)
    (tmp_path / "data/tiny/train/arithmetic").mkdir(parents=True)
    write_rows(tmp_path / "data/tiny/train/arithmetic/train.parquet", [Row("part/7", words, ("1",))])
    write_rows(tmp_path / "data/tiny/train/arithmetic/validation.parquet", held_out)
    monkeypatch.chdir(tmp_path)
    render.main(["contamination.json"])
    counted = pd.read_csv(tmp_path / "results/tiny/tables/contamination.csv")
    assert list(counted["arithmetic_any"]) == [2, 2, 40]
    for name in ("contamination", "contamination_without_arithmetic"):  # both may stand in one document
        assert rf"\label{{tab:{name}}}" in (tmp_path / f"results/tiny/tables/{name}.tex").read_text()
    left = pd.read_csv(tmp_path / "results/tiny/tables/contamination_without_arithmetic.csv")
    assert set(left["problems"]) == {38 + 38} and left["new_chains"].isna().all()


def test_metrics_hold_the_tables_numbers(results, tmp_path, monkeypatch):
    results(seeds=(0, 1))
    monkeypatch.chdir(tmp_path)
    render.main([*ITEMS.values(), "--metrics"])
    render.main([ITEMS["scores"]])
    found = json.loads((tmp_path / "results/tiny/metrics.json").read_text())
    assert list(found) == ["table1"]
    group = found["table1"]["tiny-qwen2"]["arithmetic"]
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
    for what in ([], ["--metrics"], ["--headline"]):
        render.main([ITEMS["scores"], *what])
    text = (tmp_path / "results/tiny/metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["table1"]["tiny-qwen2"]["arithmetic"]["sfpo-grpo"]["average_low"] is None
    assert "[n/a]" in (tmp_path / "results/tiny/tables/table1.md").read_text()


def test_equal_results_give_equal_bytes(results, tmp_path, monkeypatch):
    """Here, and in a process of its own with another hash seed."""
    results()
    monkeypatch.chdir(tmp_path)
    items = [ITEMS[shows] for shows in ("scores", "curves", "arms", "memory")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    render.main(items)
    here = digests(tmp_path)
    subprocess.run([sys.executable, "-m", "eval.report.render", *items], env=environment, check=True, timeout=120)
    assert len(here) == len(NAMES) + len(items) + 4 * len(TABLE) + 3 * len(FIGURE) and digests(tmp_path) == here


def digests(root):
    files = [path for path in (root / "results").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_pdf_holds_text_as_truetype_and_no_date(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    render.main([ITEMS["curves"]])
    pdf = (tmp_path / "results/tiny/figures/figure2.pdf").read_bytes()
    assert b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_faults_are_told_without_a_traceback(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*no such settings file"):
        render.main(["results/none/settings.json"])
    (tmp_path / "runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/summary.json").unlink()
    with pytest.raises(
        SystemExit, match=r"error: runs/tiny/tiny-qwen2/arithmetic/grpo/seed0: no summary.json: the job has not"
    ):
        render.main([ITEMS["scores"]])


def test_every_kind_has_a_caption():
    # Its first words, in bold, are what stands below the picture; the rest is folded.
    captions = {path.stem: path.read_text() for path in (ROOT / "eval/report/captions").glob("*.rst")}
    figures = {"arms_figure", "targets_figure", "regime_figure", "sensitivity_figure"}
    assert set(captions) == set(kind_names()) | figures | {"pass_at_k", "beside_paper"}
    assert all(text.startswith("**") and "{{" not in text for text in captions.values())
