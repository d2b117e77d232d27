"""A kind of table or figure is one file, found by its name."""

import subprocess
import sys

import pytest
import yaml

from eval.report import kinds
from eval.report.kinds import find_kind, kind_names
from sfpo.config import load_params
from sfpo.jobs import reports, resolve
from sfpo.schema import ConfigError

LENGTHS = """
from eval.report.kinds.base import FIGURE, Kind


def write(collected, settings, folder):
    (folder / f"{settings.item}.txt").write_text("lengths")


KIND = Kind(files=lambda item: {f"figures/{item.item}": ("dynamics", FIGURE)}, write=write)
"""


def with_items(**items):
    """params.yaml with these items in its active suite."""
    params = load_params()
    suite = type(params.active).model_validate({**params.active.model_dump(), "items": items})
    return params.model_copy(update={"suites": {params.suite: suite}})


def test_a_kind_in_a_new_file_can_be_named(tmp_path, monkeypatch):
    (tmp_path / "lengths.py").write_text(LENGTHS)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    params = with_items(figure99={"shows": "lengths"})
    (item,) = reports(params)
    assert item.shows == "lengths" and not item.scored
    assert not any(path.startswith("evaluations/") for path in resolve(params))
    find_kind("lengths").write(None, item, tmp_path)
    assert (tmp_path / "figure99.txt").read_text() == "lengths"


def test_what_is_no_kind_is_an_error_that_names_the_item():
    with pytest.raises(
        ConfigError, match=r"suites\.tiny\.items\.table1\.shows = 'score': allowed are arms, .*did you mean scores"
    ):
        reports(with_items(table1={"shows": "score"}))
    with pytest.raises(ValueError, match="allowed are"):
        find_kind("base")


def test_the_heads_of_kinds_import_nothing_heavy():
    program = (
        f"import sys; from eval.report.kinds import find_kind; [find_kind(k) for k in {kind_names()}]; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pandas", "matplotlib", "seaborn", "torch", "transformers"} & set(done.stdout.split())


def test_every_kind_is_used_by_a_suite():
    with open("params.yaml") as file:
        suites = yaml.safe_load(file)["suites"].values()
    assert {item["shows"] for suite in suites for item in suite.get("items", {}).values()} == set(kind_names())
