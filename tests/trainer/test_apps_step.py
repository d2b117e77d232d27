"""Published programming problems through the whole of training: an APPS-like file is prepared, a tiny model is warmed up on its
solutions, and GRPO takes a step on what the model's own programs earn."""

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sfpo.config import Dataset, ModelLimits, ScratchModel
from sfpo.data.prepare import prepare_dataset
from sfpo.data.prompts import load_problems
from sfpo.models.prepare import prepare as prepare_model
from sfpo.rewards.code_tests import CodeGrader
from sfpo.settings import DatasetSettings, ModelSettings, RunId, RunSettings, to_json

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.engine, pytest.mark.slow]


def apps_rows() -> list[dict]:
    """Rows as codeparrot/apps has them: problems on stdin, and calls of a function with results in lists of one."""
    rows = []
    for a in range(2, 6):
        for b in range(1, 3):
            given = [(3, 4), (0, 7), (-5, 2)]
            stdin = {"inputs": [f"{x} {y}\n" for x, y in given], "outputs": [f"{a * x + b * y}\n" for x, y in given]}
            rows.append(
                {
                    "question": f"Read x and y, print {a} x + {b} y.",
                    "solutions": json.dumps([f"x, y = map(int, input().split())\nprint({a} * x + {b} * y)\n"]),
                    "input_output": json.dumps(stdin),
                    "starter_code": "",
                }
            )
            calls = {"fn_name": "f", "inputs": [[x] for x, _ in given], "outputs": [[a * x + b] for x, _ in given]}
            rows.append(
                {
                    "question": f"Give {a} x + {b}.",
                    "solutions": json.dumps([f"def f(x):\n    return {a} * x + {b}\n"]),
                    "input_output": json.dumps(calls),
                    "starter_code": "def f(x):\n\t",
                }
            )
    random.Random(0).shuffle(rows)
    return rows


def test_one_step_on_an_apps_like_set(tmp_path, params, isolation):
    mirror, data, model = tmp_path / "mirror", tmp_path / "data", tmp_path / "model"
    for folder in (mirror, data, model):
        folder.mkdir()
    (mirror / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in apps_rows()))
    parts = {"apps": {"source": "hub", "layout": "apps", "files": ["train.jsonl"], "mirror": "."}}
    dataset = Dataset(parts=parts, grader="code", validation_rows=4)
    report = prepare_dataset(DatasetSettings(name="apps", dataset=dataset, data_mirror=str(mirror)), data)
    assert report["kept"] + report["validation"] == 16 and report["excluded"] == {}

    rows = load_problems(data / "train.parquet")
    with CodeGrader(workers=2) as grader:
        golds = [row.answer for row in rows]
        assert all(grade.correct for grade in grader.grade_all([row.solution for row in rows], golds))
        others = [row.solution.replace("return ", "return 1 + ").replace("print(", "print(1 + ") for row in rows]
        assert not any(grade.correct for grade in grader.grade_all(others, golds))

    limits = {"max_prompt_tokens": 128, "max_completion_tokens": 64}
    # On so few problems a model learns by heart: its pass rate is measured on what it learned.
    by_heart = tmp_path / "by_heart"
    by_heart.mkdir()
    for name in ("train.parquet", "validation.parquet"):
        shutil.copy(data / "train.parquet", by_heart / name)
    warm_up = {"learning_rate": 3e-3, "batch_size": 8, "max_batches": 400, "check_every": 10, "check_prompts": 12}
    warm_up["pass_rate"] = (0.25, 0.75)
    scratch = ScratchModel(**params.models["tiny-coder"].model_dump() | limits | {"warm_up": warm_up})
    words = ModelSettings(name="tiny", model=scratch, instruction="{problem}", warm_up_data=str(by_heart), grader="code")
    prepare_model(words, model / "checkpoint")

    small = {"steps": 1, "prompts_per_step": 8, "completions_per_prompt": 8, "mini_batch_prompts": 4, "export_every": None}
    train = params.suites["programs"].train.model_dump() | small | {"validation": {"every": 1, "prompts": 8, "samples": 2}}
    settings = RunSettings(
        run=RunId(suite="test", model="tiny", dataset="apps", arm="grpo", seed=0),
        model_path=str(model / "checkpoint"),
        data_path=str(data),
        grader="code",
        limits=ModelLimits(**limits),
        instruction="{problem}",
        arm=params.arms["grpo"],
        objective=params.objectives["grpo"],
        train=train,
        engine=params.suites["programs"].engine,
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text(to_json(settings))
    command = [sys.executable, "-m", "sfpo.train", str(run / "settings.json"), "--threads", "1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (step,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert 0 < step["reward"] < 1  # some programs pass, some do not
    assert all(math.isfinite(update["grad_norm"]) and update["grad_norm"] > 0 for update in step["updates"])
