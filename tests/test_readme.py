"""The README's commands and links exist. (The pipeline test and CI run the long ones.)"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_knows_the_target(command):
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_check_of_params_lists_the_jobs(capsys, monkeypatch, tmp_path):
    assert "python -m sfpo.jobs" in COMMANDS
    monkeypatch.chdir(tmp_path)
    from sfpo.jobs.__main__ import main

    main(["--params", str(PROJECT / "params.yaml")])
    assert "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0/settings.json" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())  # a check writes nothing


def test_only_known_programs_are_named():
    assert {command.split()[0] for command in COMMANDS} <= {"make", "export", "python", "snakemake", "dvc"}


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (PROJECT / target).exists()


def test_the_example_rule_is_a_rule():
    # The class in "Add an update rule", run as a module of the package would be.
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Twice" in block)
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
    exec(compile(code, "README.md", "exec"), names)

    old = OldPolicy(torch.zeros(1), entropy=1.0)
    batch = TrainBatch([[1]], [[2]], torch.zeros(1), None, group_size=1)

    class Counter:
        def parameters(self):
            return []

        def descend(self, batch):
            return Update({"loss": 0.0}, old)

    assert len(names["Twice"]().step(Counter(), batch).updates) == 2
