"""Every hub table that params.yaml names, through the real client: rows of the published schema, with its quirks.

The schemas are those of the data cards; the rows are made up. A loopback server stands in for the hub.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import serve

from sfpo.config import TableRows, load_params

REPOSITORY = Path(__file__).parents[2]
READ = """
import json, sys
from sfpo.config import TableRows
from sfpo.data.sources import read_rows
tables = json.loads(sys.argv[1])
found = {id: read_rows("part", TableRows(**settings), "train", None) for id, settings in tables.items()}
print(json.dumps({id: [[row.id, row.problem, row.answer] for row in rows] for id, rows in found.items()}))
"""


def skywork(problem, gold, difficulty):
    models = ("DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Qwen-32B")
    return {
        "data_source": "train-math-numinamath1.5_olympiads",
        "prompt": [{"content": problem, "role": "user"}],
        "ability": "math",
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": 7, "model_difficulty": dict.fromkeys(models, difficulty)},
    }


PUBLISHED = {
    # id: (file, rows as published, (row number, problem, gold) as they must be read)
    "xDAN2099/lighteval-MATH": (
        "data/train-00000-of-00001.parquet",
        [
            {
                "problem": "a",
                "level": "Level 5",
                "type": "Algebra",
                "solution": "so \\boxed{\\frac{1}{2}}, not \\boxed{\\text{(E)}}",
            },
            {"problem": "b", "level": "Level ?", "type": "Geometry", "solution": "$\\boxed{}$"},
        ],
        [(0, "a", "\\text{(E)}"), (1, "b", "")],  # an empty box is no gold: cleaning counts and drops it
    ),
    "haizhongzheng/DAPO-Math-17K-cleaned": (
        "data/train-00000-of-00001.parquet",
        [{"prompt": " q1 ", "target": "-1"}, {"prompt": "\u6c42", "target": "34"}],
        [(0, "q1", "-1"), (1, "\u6c42", "34")],
    ),
    "HuggingFaceH4/MATH-500": (
        "test.jsonl",
        [{"problem": "p", "solution": "s", "answer": "1,-2", "subject": "Algebra", "level": 2, "unique_id": "test/a/1.json"}],
        [(0, "p", "1,-2")],
    ),
    "HuggingFaceH4/aime_2024": (
        "data/train-00000-of-00001.parquet",
        [{"id": 60, "problem": "p", "solution": "s", "answer": "033", "url": "https://a", "year": "2024"}],
        [(0, "p", "33")],  # zero-padded
    ),
    "MathArena/aime_2025": (
        "data/train-00000-of-00001.parquet",
        [{"problem_idx": 1, "problem": "p", "answer": 70, "problem_type": ["Number Theory"]}],
        [(0, "p", "70")],
    ),
    "AI-MO/aimo-validation-amc": (
        "data/train-00000-of-00001.parquet",
        [{"id": 0, "problem": "p", "answer": 142.0, "url": "u"}, {"id": 0, "problem": "r", "answer": 0.5, "url": "u"}],
        [(0, "p", "142"), (1, "r", "0.5")],  # floats, and ids that repeat
    ),
    "math-ai/minervamath": ("test.jsonl", [{"question": "p", "answer": "3e6"}], [(0, "p", "3e6")]),
    "math-ai/olympiadbench": (
        "test.jsonl",
        [{"id": 9, "question": "p", "solution": ["s"], "final_answer": ["$1$,$2$"], "is_multiple_answer": True, "error": None}],
        [(0, "p", "1,2")],
    ),
    "Skywork/Skywork-OR1-RL-Data": (
        "data/math-00000-of-00001.parquet",
        [
            skywork("too easy", '["1"]', 0),
            skywork("p", '["\\\\frac{1}{2}"]', 1),
            skywork("r", "[5]", 15),
            skywork("x", '["2"]', 16),
        ],
        [(1, "p", "\\frac{1}{2}"), (2, "r", "5")],  # 1 to 15 of 16 are kept; the gold is JSON in a text
    ),
}


def named_in_params() -> dict[str, TableRows]:
    params = load_params(REPOSITORY / "params.yaml")
    parts = [rows for dataset in params.datasets.values() for rows in dataset.parts.values()]
    tables = [rows for rows in [*parts, *(one.rows for one in params.benchmarks.values())] if isinstance(rows, TableRows)]
    return {rows.id: rows for rows in tables}


def test_every_hub_table_has_a_case_here():
    assert set(named_in_params()) == set(PUBLISHED)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Hub id -> rows, read by the real client in a process of its own."""
    root = tmp_path_factory.mktemp("hub")
    for hub_id, (name, rows, _) in PUBLISHED.items():
        path = root / hub_id / name
        path.parent.mkdir(parents=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = json.dumps({hub_id: rows.model_dump() for hub_id, rows in named_in_params().items()})
    home = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(REPOSITORY)}
    with serve(root) as endpoint:
        environment = os.environ | home | {"HF_ENDPOINT": endpoint}
        done = subprocess.run([sys.executable, "-c", READ, settings], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("hub_id", PUBLISHED)
def test_rows_as_published(found, hub_id):
    expected = [[f"part/{number:05d}", problem, [gold]] for number, problem, gold in PUBLISHED[hub_id][2]]
    assert found[hub_id] == expected
