"""The sweep over learning rates, cut down: two arms, two rates, two seeds, two steps."""

import pandas as pd
import pytest
import yaml

from tests.workflow.pipeline import changing, copy_of_the_project, planned, run, two_steps

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def cut_down(params: dict) -> dict:
    params = two_steps(params)
    params["suites"]["sweep"].update(
        arms=["grpo", "sfpo"],
        seeds=[0, 1],
        items={"sensitivity": {"shows": "sensitivity", "learning_rate_scales": [1, 3]}, "figure2": {"shows": "curves"}},
        train={"steps": 2, "validation": {"every": 1, "prompts": 4, "samples": 2}, "export_every": None},
    )
    return {**params, "suite": "sweep"}


def test_a_sweep_trains_every_arm_at_every_rate_and_a_new_rate_alone_is_trained(tmp_path):
    folder = copy_of_the_project(tmp_path / "project")
    (folder / "params.yaml").write_text(yaml.safe_dump(cut_down(yaml.safe_load((folder / "params.yaml").read_text()))))
    run(folder, "snakemake", "--cores", "2")
    runs = {
        str(path.parent.relative_to(folder / "runs/sweep/tiny-qwen2/arithmetic"))
        for path in folder.glob("runs/**/summary.json")
    }
    names = ("grpo", "grpo-x3", "sfpo", "sfpo-x3")
    assert {one for one in runs if "state" not in one} == {f"{name}/seed{seed}" for name in names for seed in (0, 1)}
    table = pd.read_csv(folder / "results/sweep/tables/sensitivity.csv")
    assert len(table) == 2 * 3  # arms x budgets
    figure = pd.read_csv(folder / "results/sweep/figures/sensitivity.csv")
    assert sorted(figure["learning_rate"].unique()) == pytest.approx([3e-5, 9e-5])
    with changing(folder) as params:
        params["suites"]["sweep"]["items"]["sensitivity"]["learning_rate_scales"] = [1, 3, 10]
    assert planned(folder)["train_run"] == 4  # 2 arms x 2 seeds
