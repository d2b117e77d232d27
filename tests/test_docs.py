"""README and docs: every command is run by a test or by CI, every link leads somewhere, generated pages are current."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
WORKFLOWS = "\n".join(path.read_text() for path in (PROJECT / ".github/workflows").glob("*.yml"))
NO_MACHINE = {
    "gpu-check": "needs a GPU",
    "real": "needs the real data sets",
    "real-benchmarks": "needs the real data sets",
    "test-slurm": "installs Slurm as root",
    "sweep": "takes two hours",
}
"""Targets that no workflow of CI can run."""
ELSEWHERE = {
    "export PATH=$PWD/.venv/bin:$PATH": "every test runs so",
    "python -m pytest tests/algorithms tests/test_slow_fast.py": "make test",
    "python -m benchmarks.trigger_firing": "tests/algorithms/test_trigger_noise.py",
    "python examples/trl_sfpo.py": "tests/integrations/test_trl.py",
    "python -m workflow.gpus 1 python examples/trl_sfpo.py": "tests/workflow/test_gpus.py",
    "python -m workflow.launch 2 sfpo.train runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0/settings.json --threads 1": (
        "tests/trainer/test_torchrun.py"
    ),
    "python -m sfpo.clean --remove": "tests/workflow/test_staleness.py",
    "python -m sfpo.plan.price runs/tiny/tiny-qwen2/arithmetic/grpo/seed0/metrics.jsonl": "tests/plan/test_price.py",
    "python -m eval.power results/controls/items/table1/settings.json --gain 2": "tests/report/test_power_command.py",
    "dvc repro": "tests/workflow/test_pipeline.py",
    "dvc push": "tests/workflow/test_pipeline.py",
    "dvc pull": "tests/workflow/test_pipeline.py",
    "dvc remote add -d storage /mnt/shared/sfpo": "tests/workflow/test_pipeline.py",
    "dvc exp run --name alpha06 -S 'arms.sfpo.alpha=0.6'": "tests/workflow/test_dvc.py",
    "dvc exp run --name steps3 -S 'suites.tiny.train.steps=3'": "tests/workflow/test_dvc.py",
    "dvc exp show --only-changed": "tests/workflow/test_dvc.py",
    "dvc exp diff alpha06 steps3": "tests/workflow/test_dvc.py",
    "dvc plots diff HEAD alpha06 steps3 -o plots_page": "tests/workflow/test_dvc.py",
    "dvc exp apply alpha06": "tests/workflow/test_dvc.py",
    "dvc exp run --queue --name alpha04 -S 'arms.sfpo.alpha=0.4'": "tests/workflow/test_dvc.py",
    "dvc queue status": "tests/workflow/test_dvc.py",
    "dvc exp run --run-all": "tests/workflow/test_dvc.py",
    "pip install 'sfpo[trl]'": "make dist",
    "pip install sfpo": "make dist",
}
"""Commands that another test or target runs."""
OTHER_PROGRAMS = ("swift", "scontrol", "VERL_USE_EXTERNAL_MODULES=sfpo.integrations.verl")
"""Commands of programs that are not installed here; their pages say what has been run of them."""


def commands() -> dict[str, str]:
    """Each command -> a page that names it. Lines that a backslash continues are one command."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if command := line.split(" #")[0].strip():
                    found[command] = page.name
    return found


COMMANDS = commands()
MAKE = sorted(command for command in COMMANDS if command.startswith("make "))
SNAKEMAKE = sorted(command for command in COMMANDS if " snakemake " in f" {command} " and "slurm" not in command)
CHECKS = sorted(
    command for command in COMMANDS if re.match(r"python -m sfpo\.(jobs|plan|clean)( |$)", command) and "<" not in command
)


def test_every_command_is_run_somewhere():
    known = {*MAKE, *SNAKEMAKE, *CHECKS, *ELSEWHERE}
    left = [command for command in COMMANDS if command not in known and not command.startswith(OTHER_PROGRAMS)]
    # Placeholders (<suite>) and Slurm's profile: tests/plan and tests/workflow/test_slurm.py run these forms.
    assert [command for command in left if "<" not in command and "slurm" not in command] == []


def test_nothing_is_listed_that_no_page_names():
    assert set(ELSEWHERE) <= set(COMMANDS)


@pytest.mark.parametrize("place", sorted({place for place in ELSEWHERE.values() if place.startswith("tests/")}))
def test_the_tests_that_run_commands_exist(place):
    assert (PROJECT / place).is_file()


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_the_target_and_ci_runs_it(command):
    target = command.split()[1]
    done = subprocess.run(["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target in NO_MACHINE or target == "venv" or re.search(rf"\b{target}\b", WORKFLOWS), f"no workflow runs make {target}"


@pytest.mark.parametrize("command", [command for command in CHECKS if "--remove" not in command])
def test_checks_run_and_write_nothing(command, tmp_path):
    words = [*shlex.split(command)[1:], "--params", str(PROJECT / "params.yaml")]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.parametrize("command", SNAKEMAKE)
def test_snakemake_accepts_the_command(command):
    words = [word for word in shlex.split(command) if not word.startswith("CUDA_VISIBLE_DEVICES=")]
    done = subprocess.run(
        [sys.executable, "-m", *words, "-n", "-q", "all"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def links() -> list[tuple[str, str]]:
    """(page, target) of every link or picture that leads into the project."""
    found = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        found += [(page.name, target) for target in re.findall(r"\]\(((?!http)[^)\s]+)\)", text)]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "target"), links())
def test_links_lead_somewhere(page, target):
    (source,) = (one for one in PAGES if one.name == page)
    path, _, anchor = target.partition("#")
    linked = source.parent / path if path else source
    assert linked.exists()
    # The website has docs/ only.
    assert source.parent.name != "docs" or (PROJECT / "docs").resolve() in linked.resolve().parents
    if anchor and linked.suffix == ".md":
        heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_page_of_settings_is_current(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    import settings_page

    assert settings_page.PAGE.read_text() == settings_page.page(), "run python docs/settings_page.py"


def test_every_setting_has_a_meaning():
    # A row of the page ends in its meaning; one without ends in an empty cell.
    assert re.findall(r"^\| (`\w+`) .*\|\s+\|$", (PROJECT / "docs/settings.md").read_text(), re.MULTILINE) == []


def test_the_example_rule_is_a_rule():
    # The class of docs/your-rule.md, run as a module of the package would be.
    (code,) = re.findall(r"```python\n(.*?class Twice.*?)```", (PROJECT / "docs/your-rule.md").read_text(), re.DOTALL)
    from dataclasses import dataclass

    from sfpo.algorithms.update_rules import Passes, Policy, StepReport, Update, UpdateRule
    from sfpo.types import OldPolicy, TrainBatch

    names = {
        "dataclass": dataclass,
        "Passes": Passes,
        "Policy": Policy,
        "StepReport": StepReport,
        "UpdateRule": UpdateRule,
        "TrainBatch": TrainBatch,
    }
    exec(compile(code, "your-rule.md", "exec"), names)

    old = OldPolicy(torch.zeros(1), entropy=1.0)
    batch = TrainBatch([[1]], [[2]], torch.zeros(1), None, group_size=1)

    class Counter:
        def parameters(self):
            return []

        def descend(self, batch):
            return Update({"loss": 0.0}, old)

    assert len(names["Twice"]().step(Counter(), batch).updates) == 2
