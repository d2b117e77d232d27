"""Published programming problems through the whole of training: an APPS-like file is prepared, a tiny model learns its
solutions, and GRPO takes a step on what the model's own programs earn."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from sfpo.config import Dataset, ModelLimits, ScratchModel
from sfpo.data.prepare import prepare_dataset
from sfpo.data.prompts import load_problems
from sfpo.manifest import write_manifest
from sfpo.models.scratch import new_policy, train_tokenizer
from sfpo.models.warm_up import read_examples
from sfpo.rewards.code_tests import CodeGrader
from sfpo.settings import DatasetSettings, Recipe, RuleSettings, RunId, RunSettings, to_json

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


def learn_by_heart(model: ScratchModel, file: Path, folder: Path) -> None:
    """A policy that writes the solution of a problem about every second time: it learns until a solution has a probability of
    one half on average."""
    rows = load_problems(file)
    tokenizer = train_tokenizer([text for row in rows for text in (row.problem, row.solution)], model.vocabulary_size)
    policy = new_policy(model, tokenizer)
    examples, too_long = read_examples(file, rows, tokenizer, "{problem}", model)
    assert too_long == []
    longest = max(len(one.prompt_ids) + len(one.completion_ids) for one in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, one in enumerate(examples):
        length, end = len(one.prompt_ids), len(one.prompt_ids) + len(one.completion_ids)
        ids[row, :end] = torch.tensor(one.prompt_ids + one.completion_ids)
        labels[row, length:end] = ids[row, length:end]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(400):
        logits = policy(input_ids=ids).logits[:, :-1]  # what comes behind an example is masked by causality
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / len(examples)
        if loss.item() < math.log(2):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_manifest(folder)


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
    learn_by_heart(ScratchModel(**params.models["tiny-coder"].model_dump() | limits), data / "train.parquet", model)

    small = {"steps": 1, "prompts_per_step": 8, "completions_per_prompt": 8, "mini_batch_prompts": 4, "export_every": None}
    suite = params.suites["programs"]
    recipe = Recipe(
        model="the policy that has learned solutions by heart",
        data="the problems like those of APPS",
        grader="code",
        limits=ModelLimits(**limits),
        instruction="{problem}",
        seed=0,
        rule=RuleSettings(name="grpo", settings={}),
        learning_rate_scale=1.0,
        objective=params.objectives["grpo"],
        train=suite.train.model_dump() | small | {"validation": {"every": 1, "prompts": 8, "samples": 2}},
        sampler=suite.sampler,
    )
    settings = RunSettings(
        run=RunId(suite="test", model="tiny", dataset="apps", arm="grpo", seed=0),
        model_path=str(model),
        data_path=str(data),
        recipe=recipe,
        execution=suite.execution,
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
