"""The page of completions: what is on it, and that a hostile text stays a text."""

import json
import re

import pytest

from eval.report import completions_page as page_module
from eval.report.collect import ReportError
from eval.report.completions_page import as_script_data, completions_page
from sfpo.settings import ReportSettings, RunId

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028 & \\boxed{42}"
RUNS = [RunId(suite="s", model="m", dataset="d", arm=arm, seed=0) for arm in ("grpo", "sfpo")]


@pytest.fixture
def item() -> ReportSettings:
    return ReportSettings(
        suite="s",
        item="table1",
        shows="scores",
        scored=True,
        title=None,
        models=["m"],
        datasets=["d"],
        arms={"grpo": "GRPO", "sfpo": "SFPO"},
        seeds=[0],
        benchmarks={"sums": "Sums"},
        out_of_distribution=[],
        samples={"sums": 2},
        checkpoint="best",
        base={"m": "evaluations/s/m/base"},
        made_from={},
    )


def training_line(step: int, text: str = "4") -> dict:
    completion = {"text": text, "reward": 1.0, "correct": True, "advantage": 0.5, "tokens": 3, "truncated": False}
    wrong = completion | {"text": "5", "reward": 0.0, "correct": False, "advantage": -0.5}
    return {"step": step, "prompt": "sums/1", "problem": "2+2=?", "answer": ["4"], "completions": [wrong, completion]}


def write(root, folder: str, name: str, lines: list[dict]) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def data_of(page: str) -> dict:
    (block,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


def test_training_validation_and_evaluation_of_every_run(item, tmp_path):
    for run in RUNS:
        write(tmp_path, f"runs/{run.path}", "completions.jsonl", [training_line(1), training_line(2)])
        write(tmp_path, f"runs/{run.path}", "validation_completions.jsonl", [training_line(0)])
    sample = {"checkpoint": "best", "benchmark": "sums", "id": "sums/7", "problem": "1+1=?", "answer": ["2"], "grader": "math"}
    sample |= {"responses": ["\\boxed{2}", "I do not know"], "correct": [True, False]}
    write(tmp_path, "evaluations/s/m/base", "samples.jsonl", [sample])
    data = data_of(completions_page([item, item], tmp_path))
    assert [run["name"] for run in data["runs"]] == ["GRPO, seed 0", "SFPO, seed 0", "before training"]
    kinds = [(group[0], group[1], group[2]) for group in data["groups"]]
    of_a_run = [("training", 1), ("training", 2), ("validation", 0)]
    assert kinds == [*((run, *one) for run in (0, 1) for one in of_a_run), (2, "evaluation", "best")]
    assert data["groups"][0][3:6] == ["sums/1", "2+2=?", ["4"]]
    assert data["groups"][0][6] == [["5", 0.0, False, -0.5, 3, False, None], ["4", 1.0, True, 0.5, 3, False, None]]
    assert [one[-1] for one in data["groups"][-1][6]] == ["2", "no box"]  # what the grader extracts


def test_a_hostile_text_is_data(item, tmp_path):
    write(tmp_path, f"runs/{RUNS[0].path}", "completions.jsonl", [training_line(1, HOSTILE)])
    page = completions_page([item], tmp_path)
    assert HOSTILE not in page and page.count("</script>") == 2  # the data's end and the program's
    assert data_of(page)["groups"][0][6][1][0] == HOSTILE
    assert json.loads(as_script_data(HOSTILE)) == HOSTILE


def test_of_too_many_completions_whole_steps_are_left_out_and_counted(item, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_COMPLETIONS", 5)
    write(tmp_path, f"runs/{RUNS[0].path}", "completions.jsonl", [training_line(step) for step in range(1, 7)])
    data = data_of(completions_page([item], tmp_path))
    # 6 steps of 2 completions are 12, over twice 5: every third step stays, 1 and 4.
    assert [group[2] for group in data["groups"]] == [1, 4] and data["notes"].startswith("8 completions")


def test_a_damaged_file_is_named(item, tmp_path):
    write(tmp_path, f"runs/{RUNS[0].path}", "completions.jsonl", [])
    (tmp_path / f"runs/{RUNS[0].path}/completions.jsonl").write_text("{torn")
    with pytest.raises(ReportError, match=r"grpo/seed0/completions\.jsonl"):
        completions_page([item], tmp_path)
