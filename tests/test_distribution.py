"""What is installed: a core that needs torch alone, a wheel without top-level `eval`, locks of what the suite asks for."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy of what the wheel is made of, eval/ beside it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("sfpo", "eval"):
        shutil.copytree(PROJECT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([*command, str(source)], check=True)
    (file,) = out.iterdir()
    return zipfile.ZipFile(file)


def test_the_wheel_holds_the_whole_package_and_nothing_beside_it(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {
        str(file.relative_to(PROJECT))
        for file in (PROJECT / "sfpo").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "sfpo/py.typed" in files


def test_the_wheel_asks_for_torch_alone_and_has_the_license(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    fields = message_from_bytes(wheel.read(metadata))
    required = [name for name in fields.get_all("Requires-Dist") if "extra ==" not in name]
    assert required == ["torch>=2.4"] and fields["License-Expression"] == "Apache-2.0"
    assert set(fields.get_all("Provides-Extra")) == {"trl", "verl", "suite", "cpu", "gpu", "wandb", "trackio", "mlflow", "test"}
    assert wheel.read(metadata.replace("METADATA", "licenses/LICENSE")) == (PROJECT / "LICENSE").read_bytes()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_locks_hold_what_the_suite_asks_for(device):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = dict(
        line.strip().split("==") for line in (PROJECT / f"requirements/{device}.txt").read_text().splitlines() if "==" in line
    )
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [Requirement(text) for extra in ("suite", device, "test", "trl") for text in extras[extra]]
    for requirement in asked:
        if requirement.name != "sfpo":
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement
