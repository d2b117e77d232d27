"""Every benchmark of params.yaml is an lm-eval task, and the scoring is the one grader's."""

import importlib.util
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from sfpo.data.prepare import prepare_benchmark
from sfpo.data.programs import generate
from sfpo.settings import BenchmarkSettings

TASKS = Path(__file__).parents[2] / "eval/tasks"


@pytest.fixture(scope="module")
def scoring():
    spec = importlib.util.spec_from_file_location("scoring", TASKS / "scoring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def problems(tmp_path_factory, params) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    benchmark = params.benchmarks["sums"]
    prepare_benchmark(BenchmarkSettings(name="sums", benchmark=benchmark, data_mirror=None), folder)
    return folder / "problems.parquet"


def test_each_benchmark_is_a_task_of_that_name(params):
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert sorted(manager.all_tasks) == sorted(params.benchmarks)


def test_a_task_asks_with_the_suites_instruction(problems):
    metadata = {"problems": {"sums": str(problems)}, "graders": {"sums": "math"}, "instruction": "Solve: {problem} {x}"}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    task = manager.load(["sums"])["tasks"]["sums"]
    doc = next(iter(task.test_docs()))
    assert task.doc_to_text(doc) == f"Solve: {doc['problem']} {{x}}"
    assert task.config.repeats == 4 and len(task.test_docs()) == 100


def test_a_benchmark_with_an_instruction_of_its_own(problems):
    metadata = {"problems": {"sums": str(problems)}, "graders": {"sums": "math"}, "instruction": "{problem}"}
    metadata["instructions"] = {"sums": "Own: {problem}"}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    task = manager.load(["sums"])["tasks"]["sums"]
    doc = next(iter(task.test_docs()))
    assert task.doc_to_text(doc) == f"Own: {doc['problem']}"


def test_scores_of_four_completions(scoring):
    # Right, wrong, right in another form, nothing boxed: avg@4 = 2/4, pass@4 = 1.
    completions = [r"so \boxed{42}", r"\boxed{41}", r"\boxed{42.0}", "42"]
    scores = scoring.process_results({"answer": ["42"], "grader": "math"}, [completions])
    assert scores == {"avg_at_k": 0.5, "pass_at_k": 1.0, "timed_out": 0.0, "correct": [True, False, True, False]}


def test_programs_are_scored_by_their_tests(scoring, isolation):
    row = generate("formulas", "test", 1)[0]
    wrong = "```python\ndef f(x, y):\n    return 0\n```"
    scores = scoring.process_results({"answer": list(row.answer), "grader": "code"}, [[row.solution, wrong, "no program"]])
    assert scores["correct"] == [True, False, False] and scores["pass_at_k"] == 1.0


def test_no_right_completion_is_no_pass(scoring):
    assert scoring.process_results({"answer": ["1"], "grader": "math"}, [["", r"\boxed{2}"]])["pass_at_k"] == 0.0


def test_the_share_is_over_all_completions(scoring):
    assert scoring.share([[True, False], [True, True]]) == 0.75
