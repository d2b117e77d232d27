"""What is not current, and what is made from it."""

import json
from pathlib import Path

import pytest

from sfpo.config import load_params
from sfpo.jobs import resolve
from sfpo.settings import settings_hash
from sfpo.staleness import RECORDS
from workflow.changes import date_back, mark_changed, stale_results

RUN = "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed1"
SHOWN_IN = {f"results/tiny/items/{item}" for item in load_params().active.items} | {
    f"results/tiny/pages/{page}" for page in ("metrics", "runs_page")
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Every product of suite tiny is there, by its record."""
    monkeypatch.chdir(tmp_path)
    found = resolve(load_params(Path(__file__).parents[2] / "params.yaml"))
    for path, one in found.items():
        folder = Path(path).parent
        write(folder, settings_hash=settings_hash(one), inputs={})
    return found


def write(folder, **record):
    path = Path(folder) / RECORDS[Path(folder).parts[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_nothing_is_marked_where_all_is_current(settings):
    assert mark_changed(settings) == {}


def test_what_is_made_from_a_stale_product_is_not_current_either(settings):
    Path("gold.parquet").write_text("1")
    write(RUN, settings_hash=settings_hash(settings[f"{RUN}/settings.json"]), inputs={"gold.parquet": "of another gold"})
    found = mark_changed(settings)
    # The run has a marker; its evaluation, every table and figure and both pages are made from it.
    assert set(found) == {RUN, RUN.replace("runs", "evaluations"), *SHOWN_IN}
    assert [folder for folder, marker in found.items() if marker] == [RUN]
    assert Path(found[RUN]).stat().st_mtime > 4e9
    date_back(found.values())
    assert Path(found[RUN]).stat().st_mtime == 0


def test_a_product_that_is_gone_takes_along_what_was_made_from_it(settings):
    (Path(RUN) / "summary.json").unlink()
    assert mark_changed(settings) == dict.fromkeys((RUN, RUN.replace("runs", "evaluations"), *SHOWN_IN))


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}"])
def test_a_product_whose_record_cannot_be_read_is_made_again(settings, damaged):
    # Its files are there, so that Snakemake would not make it again by itself.
    (Path(RUN) / "summary.json").write_text(damaged)
    found = mark_changed(settings)
    assert set(found) == {RUN, RUN.replace("runs", "evaluations"), *SHOWN_IN} and found[RUN]


def test_results_on_disk_that_are_made_from_what_is_not_current_are_named(settings):
    assert stale_results(mark_changed(settings)) == []
    (Path(RUN) / "summary.json").unlink()
    (Path("results/tiny/items/figure2") / "record.json").unlink()  # not there to be shown
    assert set(stale_results(mark_changed(settings))) == SHOWN_IN - {"results/tiny/items/figure2"}


def test_a_data_set_takes_along_all_that_is_trained_on_it(settings):
    write("data/tiny/train/arithmetic", settings_hash="another", inputs={})
    assert set(mark_changed(settings)) == {str(Path(path).parent) for path in settings if "benchmarks" not in path}


def test_a_marker_has_another_name_for_another_version_of_the_product(settings):
    write(RUN, settings_hash="one", inputs={})
    first = mark_changed(settings)[RUN]
    write(RUN, settings_hash="two", inputs={})
    assert mark_changed(settings)[RUN] != first
