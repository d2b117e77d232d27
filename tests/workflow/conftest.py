"""One built pipeline for all tests that need one: it takes a minute."""

import os
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.workflow.pipeline import copy_of_the_project, run, two_steps


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A repository of the present tree with the two-step configuration, built by `dvc repro`, committed and pushed."""
    base = tmp_path_factory.getbasetemp()
    top = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pipeline"  # one for all processes of pytest -n
    with FileLock(f"{top}.lock"):
        if not (top / "built").exists():
            build(top)
            (top / "built").touch()
    return top / "origin"


def build(top: Path) -> None:
    top.mkdir()
    folder = copy_of_the_project(top / "origin")
    params = two_steps(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "local", str(top / "remote"))
    run(folder, "dvc", "repro")
    run(folder, "dvc", "push", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "built")


@pytest.fixture
def clone(built, tmp_path) -> Path:
    """A fresh clone after `dvc pull`."""
    run(tmp_path, "git", "clone", "-q", str(built), "clone")
    run(tmp_path / "clone", "dvc", "pull", "-q")
    return tmp_path / "clone"
