"""A table shows only what its settings say."""

import json
from pathlib import Path

import pytest

from eval.report import render
from eval.report.collect import ReportError
from eval.report.freshness import page_settings, require_current, write_record
from eval.report.partial import finished_part
from sfpo.config import load_params
from sfpo.jobs import resolve
from sfpo.manifest import file_sha256
from sfpo.settings import PageSettings, ReportSettings, settings_hash
from sfpo.staleness import changed_input

RUN = "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed1"
EVALUATION = "evaluations/tiny/tiny-qwen2/arithmetic/sfpo/seed1"


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_current_is_reported(results, tmp_path):
    require_current(results(), tmp_path)


@pytest.mark.parametrize("folder", [RUN, EVALUATION, "evaluations/tiny/tiny-qwen2/base"])
def test_a_product_of_other_settings_is_refused_by_name(results, tmp_path, folder):
    settings = results()
    path = next(path for name in ("summary.json", "results.json") if (path := tmp_path / folder / name).is_file())
    change(path, settings_hash="another")
    with pytest.raises(ReportError, match=f"^{folder}: stale: made with other settings or inputs .*run the workflow again"):
        require_current(settings, tmp_path)
    path.unlink()
    with pytest.raises(ReportError, match=f"^{folder}: no {path.name}: the job has not finished"):
        require_current(settings, tmp_path)


def test_a_product_whose_inputs_have_changed_is_refused(results, tmp_path):
    settings = results()
    data = tmp_path / "data/train.parquet"
    data.parent.mkdir()
    data.write_bytes(b"gold 1")
    change(tmp_path / RUN / "summary.json", inputs={"data/train.parquet": file_sha256(data), "data/not_here.parquet": "0"})
    require_current(settings, tmp_path)  # an input that is not there says nothing
    data.write_bytes(b"gold 2")
    with pytest.raises(ReportError, match=f"^{RUN}: data/train.parquet changed"):
        require_current(settings, tmp_path)


def test_a_stale_run_is_not_in_a_report_of_what_has_finished(results, tmp_path):
    settings = results()
    change(tmp_path / RUN / "summary.json", settings_hash="another")
    part = finished_part(settings, tmp_path)
    assert part.seeds == [0, 2] and RUN.removeprefix("runs/") in part.missing
    require_current(part, tmp_path)


def test_the_record_names_the_settings_and_the_content_of_what_was_read(results, tmp_path):
    settings = results()
    write_record(tmp_path / "items/table1", settings, settings.made_from, tmp_path)
    written = json.loads((tmp_path / "items/table1/record.json").read_text())
    assert written["settings_hash"] == settings_hash(settings)
    assert written["inputs"][f"{RUN}/summary.json"] == file_sha256(tmp_path / RUN / "summary.json")
    assert changed_input(written, tmp_path) is None
    change(tmp_path / EVALUATION / "results.json", seconds=1)
    assert changed_input(written, tmp_path) == f"{EVALUATION}/results.json changed"


def test_pages_have_the_identity_that_the_workflow_asks_for():
    settings = resolve(load_params())
    items = [one for one in settings.values() if isinstance(one, ReportSettings)]
    pages = [one for one in settings.values() if isinstance(one, PageSettings)]
    assert pages and all(page_settings(items, page.page) == page for page in pages)


def test_pages_record_what_they_read_and_refuse_stale_runs(results, tmp_path, monkeypatch):
    results()
    monkeypatch.chdir(tmp_path)
    items = [str(path) for path in sorted(Path("results/tiny/items").glob("*/settings.json"))]
    render.main([*items, "--metrics"])
    render.main([*items, "--runs"])
    records = {
        page: json.loads(Path(f"results/tiny/pages/{page}/record.json").read_text()) for page in ("metrics", "runs_page")
    }
    assert f"{EVALUATION}/results.json" in records["metrics"]["inputs"]
    assert set(records["runs_page"]["inputs"]) == {
        f"{folder}/summary.json" for folder in map(str, Path("runs").glob("*/*/*/*/*"))
    }
    change(Path(EVALUATION) / "results.json", seconds=1)
    assert changed_input(records["metrics"]) and not changed_input(records["runs_page"])
    change(Path(RUN) / "summary.json", settings_hash="another")
    before = Path("results/tiny/runs.html").read_text()
    for page in ("--metrics", "--runs"):
        with pytest.raises(SystemExit, match=f"error: {RUN}: stale: made with other settings"):
            render.main([*items, page])
    assert Path("results/tiny/runs.html").read_text() == before
