"""Every hub table that params.yaml names, through the real client: rows of the published schema, with its quirks.

The schemas are those of the data cards; the rows are made up. A loopback server stands in for the hub. The sets of programming
problems are read from a mirror folder too, which holds the published files.
"""

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import serve

from sfpo.config import TableRows, load_params
from sfpo.data.sources import check_mirror, read_rows
from sfpo.rewards.code_gold import check_tests
from sfpo.schema import ConfigError

REPOSITORY = Path(__file__).parents[2]
READ = """
import json, sys
from sfpo.config import TableRows
from sfpo.data.sources import read_rows
tables = json.loads(sys.argv[1])
found = {name: read_rows("part", TableRows(**settings), "train", None) for name, settings in tables.items()}
print(json.dumps({name: [[row.id, row.problem, row.answer] for row in rows] for name, rows in found.items()}))
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


# ---------------------------------------------------------------------------------------------- programming problems


def packed(tests) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def livecodebench(content, public, private, date, function=None, starter_code=""):
    return {
        "question_title": "t",
        "question_content": content,
        "platform": "leetcode" if function else "atcoder",
        "question_id": "abc300_a",
        "contest_id": "abc300",
        "contest_date": date,
        "starter_code": starter_code,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps({"func_name": function} if function else {}),
    }


def stdin_test(given, wanted):
    return {"input": given, "output": wanted, "testtype": "stdin"}


def call_test(given, wanted, **metadata):
    return {"input": given, "output": wanted, "testtype": "functional"} | ({"metadata": metadata} if metadata else {})


TWO_SUM = "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        "
HUGE = f'{{"inputs": [{"9" * 5000}], "outputs": [1]}}'
CODE = {
    # id: ({file: rows as published}, {subset: [(row number, part of the problem, gold but for options)]})
    "livecodebench/code_generation_lite": (
        {
            "code_generation_lite.py": None,  # a loader that must not be run
            "test4.jsonl": [livecodebench("too early", [stdin_test("1", "1")], "[]", "2024-07-31T00:00:00")],
            "test5.jsonl": [
                livecodebench("Add.", [stdin_test("1 2\n", "3\n")], packed([stdin_test("5 5", "10")]), "2024-08-01T07:00:00"),
                livecodebench(
                    "Find two.",
                    [call_test("[2, 7, 11]\n9", "[0, 1]")],
                    json.dumps([call_test("[3, 3]\n6", "[0, 1]")]),  # not packed, as in older files
                    "2025-01-31T23:59:59",
                    "twoSum",
                    TWO_SUM,
                ),
                livecodebench("Evil.", [stdin_test("1", "1")], "gANjb3MKc3lzdGVtCg==", "2024-09-01T00:00:00"),
            ],
            "test6.jsonl": [livecodebench("too late", [stdin_test("1", "1")], "[]", "2025-02-01T00:00:00")],
        },
        {
            None: [
                (1, "Add.", {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "5 5", "stdout": "10"}]}),
                (
                    2,
                    f"starting from this code:\n```python\n{TWO_SUM.rstrip()}\n```",
                    {
                        "function": "twoSum",
                        "cases": [
                            {"arguments": [[2, 7, 11], 9], "result": [0, 1]},
                            {"arguments": [[3, 3], 6], "result": [0, 1]},
                        ],
                    },
                ),
                (3, "", None),  # no zlib stream: no gold
            ]
        },
    ),
    "agentica-org/DeepCoder-Preview-Dataset": (
        {
            "taco/train-00000-of-00001.parquet": [
                {"problem": "Add.", "tests": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}), "solutions": ["x"]},
                {
                    "problem": "Call.",
                    "tests": json.dumps({"fn_name": "f", "inputs": [[1, 2], [0, 0]], "outputs": [[3], [0]]}),
                    "solutions": ["x"],
                },
            ],
            "primeintellect/train-00000-of-00001.parquet": [
                {
                    "problem": "Add.",
                    "tests": json.dumps([{"type": "stdin_stdout", "fn_name": None, "input": "1 2\n", "output": "3\n"}]),
                    "solutions": ["x"],
                },
                {
                    "problem": "Call.",
                    "tests": json.dumps([{"type": "function_call", "fn_name": "f", "input": [1, 2], "output": [3]}]),
                    "solutions": ["x"],
                },
            ],
            "lcbv5/train-00000-of-00001.parquet": [
                {
                    "problem": "Add.",
                    "starter_code": "",
                    "tests": json.dumps([stdin_test("1 2", "3") | {"metadata": {"func_name": None}}]),
                    "metadata": {"func_name": None},
                },
                {
                    "problem": "Call.",
                    "starter_code": "class Solution:\n    def f(self, x, y):\n        ",
                    "tests": json.dumps([call_test("1\n2", "3", func_name="f")]),
                    "metadata": {"func_name": "f"},
                },
            ],
        },
        {
            "taco": [
                (0, "Add.", {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}]}),
                (
                    1,
                    "Write the Python function `f`.",
                    {
                        "function": "f",
                        "cases": [{"arguments": [1, 2], "results": [3, [3]]}, {"arguments": [0, 0], "results": [0, [0]]}],
                    },
                ),
            ],
            "primeintellect": [
                (0, "reads the input from stdin", {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}]}),
                (1, "Call.", {"function": "f", "cases": [{"arguments": [1, 2], "results": [3, [3]]}]}),
            ],
            "lcbv5": [
                (0, "Add.", {"cases": [{"stdin": "1 2", "stdout": "3"}]}),
                (1, "    def f(self, x, y):\n```", {"function": "f", "cases": [{"arguments": [1, 2], "result": 3}]}),
            ],
        },
    ),
    "codeparrot/apps": (
        {
            "apps.py": None,
            "train.jsonl": [
                {
                    "id": 0,
                    "question": "Add.",
                    "solutions": json.dumps(["print(3)", "x"]),
                    "input_output": json.dumps({"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7", ""]]}),
                    "difficulty": "interview",
                    "url": "u",
                    "starter_code": "",
                },
                {
                    "id": 1,
                    "question": "Split.",
                    "solutions": "",
                    "input_output": '{"fn_name": "f", "inputs": [["ab"], ["c"]], "outputs": [["a", "b"], ["c"]]}',
                    "difficulty": "introductory",
                    "url": "u",
                    "starter_code": "def f(s):\n\t",
                },
                {"id": 2, "question": "No tests.", "solutions": "", "input_output": "", "starter_code": ""},
                {
                    "id": 3,
                    "question": "Huge.",
                    "solutions": "",
                    "input_output": HUGE,
                    "starter_code": "",
                },
            ],
        },
        {
            None: [
                (0, "Add.", {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "3\n4", "stdout": "7\n"}]}),
                (
                    1,
                    "def f(s):\n```",
                    {  # two results are no list of one: both are as they stand
                        "function": "f",
                        "cases": [{"arguments": ["ab"], "results": [["a", "b"]]}, {"arguments": ["c"], "results": [["c"]]}],
                    },
                ),
                (2, "", None),
                (3, "", None),  # Python refuses integers of over 4300 digits
            ]
        },
    ),
    "openai/openai_humaneval": (
        {
            "openai_humaneval/test-00000-of-00001.parquet": [
                {
                    "task_id": "HumanEval/0",
                    "prompt": 'def f(x):\n    """Add one."""\n',
                    "canonical_solution": "    return x + 1\n",
                    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n",
                    "entry_point": "f",
                }
            ]
        },
        {
            None: [
                (
                    0,
                    'def f(x):\n    """Add one."""\n```',
                    {
                        "function": "f",
                        "check": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n",
                        "preamble": 'def f(x):\n    """Add one."""\n',
                    },
                )
            ]
        },
    ),
    "google-research-datasets/mbpp": (
        {
            "full/test-00000-of-00001.parquet": [
                {
                    "task_id": 11,
                    "text": "Write a function to add one.",
                    "code": "def f(x):\r\n  return x + 1",
                    "test_list": ["assert f(1) == 2", "assert set(f(2)) == {3}"],
                    "test_setup_code": "",
                    "challenge_test_list": [],
                },
                {
                    "task_id": 12,
                    "text": "Write a function to build pairs.",
                    "code": "x",
                    "test_list": ["assert f([Pair(1, 2)]) == 2"],
                    "test_setup_code": "",
                    "challenge_test_list": [],
                },
            ]
        },
        {
            "full": [
                (
                    0,
                    "Write a function to add one.\nYour function must pass these tests:\n```python\nassert f(1) == 2\n",
                    {"function": "f", "check": "assert f(1) == 2\nassert set(f(2)) == {3}"},
                ),
                (1, "", None),  # a class that the program would have to define under the same name
            ],
        },
    ),
}


def tables() -> dict[str, TableRows]:
    """'<id> <subset>' -> table, of all that params.yaml names."""
    params = load_params(REPOSITORY / "params.yaml")
    parts = [rows for dataset in params.datasets.values() for rows in dataset.parts.values()]
    found = [rows for rows in [*parts, *(one.rows for one in params.benchmarks.values())] if isinstance(rows, TableRows)]
    return {f"{rows.id} {rows.subset}": rows for rows in found}


MATH_TABLES = [name for name, rows in tables().items() if rows.layout == "columns"]
CODE_TABLES = [name for name, rows in tables().items() if rows.layout != "columns"]


def test_every_hub_table_has_a_case_here():
    assert set(MATH_TABLES) == {f"{hub_id} None" for hub_id in PUBLISHED}
    assert set(CODE_TABLES) == {f"{hub_id} {subset}" for hub_id, (_, cases) in CODE.items() for subset in cases}


def write(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows is None:
        path.write_text("raise SystemExit('a script of the repository was run')\n")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def card(hub_id: str) -> str:
    """The README that names the configurations, as the hub's own loader needs it."""
    folders = sorted({file.split("/")[0] for file in CODE[hub_id][0] if "/" in file})
    splits = [(folder, "test" if folder in ("full", "openai_humaneval") else "train") for folder in folders]
    configs = "".join(
        f"- config_name: {folder}\n  data_files:\n  - split: {split}\n    path: {folder}/{split}-*\n"
        for folder, split in splits
    )
    return f"---\nconfigs:\n{configs}---\n" if configs else ""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the files of every repository."""
    root = tmp_path_factory.mktemp("hub")
    for hub_id, (name, rows, _) in PUBLISHED.items():
        write(root / hub_id / name, rows)
    for hub_id, (files, _) in CODE.items():
        for name, rows in files.items():
            write(root / hub_id / name, rows)
        (root / hub_id / "README.md").write_text(card(hub_id))
    return root


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """'<id> <subset>' -> rows, read by the real client in a process of its own."""
    settings = json.dumps({name: rows.model_dump() for name, rows in tables().items()})
    home = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(REPOSITORY)}
    with serve(root) as endpoint:
        environment = os.environ | home | {"HF_ENDPOINT": endpoint}
        done = subprocess.run([sys.executable, "-c", READ, settings], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("hub_id", PUBLISHED)
def test_rows_as_published(found, hub_id):
    expected = [[f"part/{number:05d}", problem, [gold]] for number, problem, gold in PUBLISHED[hub_id][2]]
    assert found[f"{hub_id} None"] == expected


OPTIONS = {
    # tolerance of stdin and of calls, limit where the set states one
    "livecodebench/code_generation_lite": (
        {"tolerance": 1e-6, "time_limit_seconds": 6},
        {"tolerance": 1e-5, "time_limit_seconds": 6},
    ),
    "agentica-org/DeepCoder-Preview-Dataset": ({"tolerance": 1e-6}, {"tolerance": 1e-5}),
    "codeparrot/apps": ({"tolerance": 1e-6}, {"tolerance": 1e-5}),
    "openai/openai_humaneval": ({}, {}),
    "google-research-datasets/mbpp": ({}, {}),
}  # fmt: skip


def check_code_rows(name, rows):
    hub_id, subset = name.split(" ")
    cases = CODE[hub_id][1][None if subset == "None" else subset]
    assert [row[0] for row in rows] == [f"part/{number:05d}" for number, _, _ in cases]
    for (_, problem, (gold,)), (_, part, expected) in zip(rows, cases, strict=True):
        assert part in problem
        if expected is None:
            assert gold == ""
        else:
            assert json.loads(gold) == expected | OPTIONS[hub_id]["function" in expected]
            check_tests(gold)


@pytest.mark.parametrize("name", CODE_TABLES)
def test_programming_problems_as_published(found, name):
    check_code_rows(name, found[name])


@pytest.mark.parametrize("name", CODE_TABLES)
def test_programming_problems_from_a_mirror_of_the_published_files(root, tmp_path, name):
    """A folder where the settings name several files, else the one file, also as JSON lines."""
    rows = tables()[name]
    if rows.files is not None:
        shutil.copytree(root / rows.id, tmp_path / rows.mirror)
    else:
        folder = root / rows.id / (rows.subset or "openai_humaneval")
        (file,) = folder.iterdir()
        (tmp_path / rows.mirror).parent.mkdir(parents=True)
        if rows.mirror.endswith(".parquet"):
            shutil.copy(file, tmp_path / rows.mirror)
        else:
            write(tmp_path / rows.mirror, pq.read_table(file).to_pylist())
    check_mirror(rows, str(tmp_path))
    check_code_rows(name, [[row.id, row.problem, row.answer] for row in read_rows("part", rows, "train", str(tmp_path))])


def test_a_mirror_of_another_layout_is_refused(root, tmp_path):
    rows = tables()["openai/openai_humaneval None"]
    (tmp_path / "eval").mkdir()
    write(tmp_path / rows.mirror, [{"problem": "p", "answer": "1"}])
    for call in (check_mirror, lambda rows, mirror: read_rows("part", rows, "train", mirror)):
        with pytest.raises(
            ConfigError, match=r"line 1: no column prompt and entry_point and test \(there are: answer, problem\)"
        ):
            call(rows, str(tmp_path))


def test_a_file_that_the_hub_has_not(root, tmp_path_factory):
    settings = tables()["codeparrot/apps None"].model_copy(update={"files": ["none.jsonl"]}).model_dump()
    home = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(REPOSITORY)}
    with serve(root) as endpoint:
        environment = os.environ | home | {"HF_ENDPOINT": endpoint}
        command = [sys.executable, "-c", READ, json.dumps({"apps": settings})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ConfigError: hub data set 'codeparrot/apps', file 'none.jsonl' cannot be loaded" in done.stderr
