"""Generated programming problems: words, programs and tests agree, and no other program of a task passes the tests."""

import hashlib
import json
import re

import pytest

from sfpo.data import arithmetic
from sfpo.data.programs import TASKS, canonical, generate
from sfpo.rewards.code_gold import check_tests
from sfpo.rewards.code_tests import CodeGrader, extract_blocks
from sfpo.schema import ConfigError

SPLITS = ("train", "validation", "test")


def available(task, split):
    """The number of problems that the error message for too large a count names."""
    with pytest.raises(ConfigError, match=f"task '{task}' has") as error:
        generate(task, split, 10**6)
    return int(re.search(r"has (\d+)", str(error.value))[1])


@pytest.fixture(scope="module")
def everything():
    return {(task, split): generate(task, split, available(task, split)) for task in TASKS for split in SPLITS}


def function_of(row):
    """The solution, run in here."""
    names = {}
    exec(*extract_blocks(row.solution), names)
    return names["f"]


def results(row):
    (answer,) = row.answer
    return [case["result"] for case in json.loads(answer)["cases"]]


def read(problem):
    """An expression in words, as Python: '3 times x minus y, plus 4' is '3 * x - y + 4'."""
    for word, sign in [("times", "*"), ("plus", "+"), ("minus", "-"), (",", "")]:
        problem = problem.replace(word, sign)
    return problem


def understood(problem):
    """A function that does what the words say, read from them alone."""
    body = problem.removesuffix(".").split(": ", 1)[1]
    if branch := re.fullmatch(r"if x is (less|greater) than y, (.*), otherwise (.*)", body):
        sign = {"less": "<", "greater": ">"}[branch[1]]
        return eval(f"lambda x, y: ({read(branch[2])}) if x {sign} y else ({read(branch[3])})")
    if loop := re.fullmatch(r"the sum of (.*), k from (\d+) to n(?: by (\d+))?", body):
        return eval(f"lambda n: sum({read(loop[1])} for k in range({loop[2]}, n + 1) if (k - {loop[2]}) % {loop[3] or 1} == 0)")
    return eval(f"lambda x, y: {read(body)}")


def test_words_programs_and_tests_agree(everything):
    for rows in everything.values():
        for row in rows:
            ours, program = understood(row.problem), function_of(row)
            for case in json.loads(row.answer[0])["cases"]:
                assert ours(*case["arguments"]) == program(*case["arguments"]) == case["result"], row


def test_a_problem_by_hand(everything):
    rows = {row.problem: row for listed in everything.values() for row in listed}
    row = rows["Write f(x, y): x plus y, minus 3."]
    assert row.solution == "```python\ndef f(x, y):\n    return x + y - 3\n```"
    # 0+0-3, 1+0-3, 0+1-3, 2+5-3, 5+2-3, 3+3-3, -4+7-3, 9-6-3
    assert results(row) == [-3, -2, -2, 4, 4, 3, 0, 0]
    row = rows["Write f(x, y): if x is less than y, x plus 1, otherwise y minus 2."]
    assert row.solution == "```python\ndef f(x, y):\n    if x < y:\n        return x + 1\n    return y - 2\n```"
    # no: 0-2; no: 0-2; yes: 0+1; yes: 2+1; no: 2-2; no: 3-2; yes: -4+1; no: -6-2
    assert results(row) == [-2, -2, 1, 3, 0, 1, -3, -8]
    row = rows["Write f(n): the sum of 2 times k plus 1, k from 1 to n by 2."]
    assert (
        row.solution
        == "```python\ndef f(n):\n    s = 0\n    for k in range(1, n + 1, 2):\n        s += 2 * k + 1\n    return s\n```"
    )
    # terms 3 at k=1, 7 at 3, 11 at 5, 15 at 7, 19 at 9, ...; up to 20 ten terms from 3 to 39: 10 * 42 / 2
    assert results(row) == [3, 3, 10, 10, 21, 21, 36, 36, 55, 55, 210]


def test_no_problem_is_repeated_or_shared_between_splits(everything):
    problems = [row.problem for rows in everything.values() for row in rows]
    assert len(problems) == len(set(problems))


def test_equal_functions_lie_in_one_split_whatever_the_task(everything):
    split_of = {}
    for (task, split), rows in everything.items():
        points = [(x, y) for x in range(-9, 10) for y in range(-9, 10)] if task != "loops" else [(n,) for n in range(40)]
        for row in rows:
            function = function_of(row)
            table = tuple(function(*point) for point in points)
            assert split_of.setdefault(table, split) == split, row


def test_no_other_program_of_the_task_passes_the_tests(everything):
    # No two problems have the same results, so neither does the program of one pass the tests of another.
    for task in TASKS:
        tables = [tuple(results(row)) for split in SPLITS for row in everything[task, split]]
        assert len(tables) == len(set(tables)), task


def test_no_constant_passes_and_no_argument_alone(everything):
    for rows in everything.values():
        for row in rows:
            assert len(set(results(row))) >= 2, row
            arguments = [case["arguments"] for case in json.loads(row.answer[0])["cases"]]
            assert all(list(alone) != results(row) for alone in zip(*arguments, strict=True)), row


def test_every_task_is_large_enough(everything):
    for task in TASKS:
        assert len(everything[task, "train"]) >= 2000
        assert len(everything[task, "validation"]) >= 300
        assert len(everything[task, "test"]) >= 300


def test_problems_and_programs_are_short(everything):
    rows = [row for listed in everything.values() for row in listed]
    assert max(len(row.problem) for row in rows) <= 80
    assert max(len(row.solution) for row in rows) <= 110


@pytest.mark.parametrize("task", TASKS)
def test_the_grader_passes_each_solution_and_fails_its_neighbour(everything, isolation, task):
    rows = [row for split in SPLITS for row in everything[task, split][:5]]
    golds = [row.answer for row in rows]
    solutions = [row.solution for row in rows]
    with CodeGrader(workers=2) as grader:
        assert all(grade.correct for grade in grader.grade_all(solutions, golds))
        assert not any(grade.correct for grade in grader.grade_all([*solutions[1:], solutions[0]], golds))
        constant = [f"```python\ndef f(*_):\n    return {results(row)[0]}\n```" for row in rows]
        assert not any(grade.correct for grade in grader.grade_all(constant, golds))


def test_every_gold_can_be_read(everything):
    for rows in everything.values():
        for row in rows:
            assert check_tests(row.answer[0]).expected == ([[result] for result in results(row)],)


def test_tasks_have_names_that_arithmetic_has_not():
    assert not TASKS.keys() & arithmetic.TASKS.keys()


def test_a_longer_list_starts_with_the_shorter_one():
    assert generate("branches", "train", 50) == generate("branches", "train", 80)[:50]
    assert [row.id for row in generate("loops", "test", 2)] == ["loops-test-00000", "loops-test-00001"]


def test_canonical_form_of_equal_functions():
    by_words = {problem.words: problem for problem in TASKS["branches"]()}
    one = by_words["Write f(x, y): if x is less than y, x, otherwise y."]
    other = by_words["Write f(x, y): if x is greater than y, y, otherwise x."]  # the smaller one, both
    assert canonical(one) == canonical(other)
    assert canonical(one) != canonical(by_words["Write f(x, y): if x is less than y, y, otherwise x."])


def test_the_rows_never_change():
    """A golden hash: checkpoints and stored results belong to exactly these problems."""
    rows = [row for task in TASKS for split in SPLITS for row in generate(task, split, 100)]
    text = "\n".join(f"{row.id} {row.problem} {row.answer[0]} {row.solution}" for row in rows)
    assert hashlib.sha256(text.encode()).hexdigest() == "089c61bd04ac57f4c8ead3bca0e1c1b69765c96858ff1273e152309f994aa7f0"


def test_too_large_a_count_is_told_with_what_there_is():
    count = available("loops", "test")
    assert len(generate("loops", "test", count)) == count
    with pytest.raises(ConfigError, match=f"task 'loops' has {count} test problems; {count + 1} were requested"):
        generate("loops", "test", count + 1)


def test_an_unknown_task_is_told_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'sorts'; available: formulas, branches, loops"):
        generate("sorts", "train", 1)
