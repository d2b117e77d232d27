"""What tests of whole training jobs share: a small data set, and the settings of a short run on it."""

from pathlib import Path

import pytest

from sfpo.algorithms.update_rules import complete_settings
from sfpo.data.prepare import prepare_dataset
from sfpo.settings import DatasetSettings, RunId, RunSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory, params) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = {"generated": {"source": "generated", "tasks": {"sums": 40}}}
    dataset = params.datasets["arithmetic"].model_validate({"parts": rows, "validation_rows": 8})
    prepare_dataset(DatasetSettings(name="sums", dataset=dataset, data_mirror=None), folder)
    return folder


@pytest.fixture
def settings(params, checkpoint, data, limits) -> RunSettings:
    small = {"steps": 4, "prompts_per_step": 4, "completions_per_prompt": 4, "mini_batch_prompts": 2, "export_every": 3}
    tiny = params.suites["tiny"]
    train = tiny.train.model_dump() | small | {"validation": {"every": 2, "prompts": 4, "samples": 2}}
    rule = {"num_fast_steps": 2, "alpha": 0.5, "entropy_trigger": {"window": 3}}
    return RunSettings.model_validate(
        {
            "run": RunId(suite="test", model="tiny", dataset="sums", arm="sfpo", seed=0),
            "model_path": str(checkpoint),
            "data_path": str(data),
            "recipe": {
                "model": "the random model",
                "data": "the sums",
                "grader": "math",
                "limits": limits,
                "instruction": "{problem}",
                "seed": 0,
                "rule": {"name": "sfpo", "settings": complete_settings("sfpo", rule)},
                "learning_rate_scale": 1.0,
                # A boxed answer is beyond a random policy, so every advantage is 0: the entropy bonus is what moves the
                # weights here.
                "objective": params.objectives["grpo"].model_copy(update={"entropy_coefficient": 0.1}),
                "train": train,
                "sampler": tiny.sampler,
            },
            "execution": tiny.execution.model_copy(update={"save_every": 2}),
        }
    )
