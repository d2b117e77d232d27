"""A user's own update rule, arm and local model: one file and entries in params.yaml put them into every table and figure."""

import re
import shutil
import sys

import pandas as pd
import pytest
import yaml

from tests.workflow.pipeline import PROJECT, copy_of_the_project, run, two_steps

pytestmark = pytest.mark.pipeline


def test_an_own_rule_and_model_are_in_every_table_and_figure(checkpoint, tmp_path):
    folder = copy_of_the_project(tmp_path / "project")
    # The rule and the arm are those that docs/your-rule.md shows.
    page = (PROJECT / "docs/your-rule.md").read_text()
    (rule,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (arms,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (folder / "sfpo/algorithms/update_rules/twice.py").write_text(rule)
    shutil.copytree(checkpoint, tmp_path / "model")
    params = two_steps(yaml.safe_load((folder / "params.yaml").read_text()))
    params["arms"].update(yaml.safe_load(arms)["arms"])
    params["models"]["mine"] = {
        "source": "local",
        "path": str(tmp_path / "model"),
        "max_prompt_tokens": 72,
        "max_completion_tokens": 64,
    }
    params["suites"]["tiny"].update(models=["mine"], arms=["grpo", "twice"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params))

    run(folder, "snakemake", "--cores", "2")

    results = folder / "results/tiny"
    tables = {path.stem: pd.read_csv(path) for path in results.glob("*/*.csv")}
    for of_the_paper in ("table1_beside_paper", "figure4_beside_paper"):
        assert tables.pop(of_the_paper).empty  # it has no such model
    assert set(tables) >= {"table1", "table1_pass_at_k", "arms", "figure2", "figure3", "figure4", "figure8"}
    for name, table in tables.items():
        table = table[table["series"] != "paper"] if "series" in table else table  # the paper's own curves, for comparison
        assert set(table["model"]) == {"mine"} and "twice" in set(table["arm"]), name
    assert "TWICE" in (results / "tables/table1.md").read_text()
    assert "TWICE" in run(
        folder, sys.executable, "-m", "eval.report.render", "results/tiny/items/table1/settings.json", "--headline"
    )
