# ruff: noqa: E501 (a program in each line)
"""The tests of code tasks: what is right, what is close enough, and what is no gold."""

import base64
import json
import zlib

import pytest

from sfpo.rewards.code_gold import COMPRESSED_FROM, check_tests, compressed, inflate, output_matches, results_match
from sfpo.rewards.code_tests import CodeGrader
from sfpo.rewards.math_answer import Grade

CASES = [{"arguments": [3, 4], "result": 7}, {"arguments": [1, 1], "result": 2}]
ADD = "```python\ndef f(x, y):\n    return x + y\n```"
CHECK = "def check(candidate):\n    assert candidate(3, 4) == 7\n"


@pytest.fixture(scope="module")
def grader(isolation):
    with CodeGrader(workers=1, time_limit_seconds=1) as grader:
        yield grader


def grade(grader, program, **gold) -> Grade:
    return grader.grade_all([f"```python\n{program}\n```"], [json.dumps(gold)])[0]


# ---------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("printed", "right", "same"),
    [
        ("7\n", "7", True),
        ("7  \n8\t\n\n", "7\n8\n", True),  # blanks at the ends
        ("7\r\n8\r\n", "7\n8", True),
        ("1  2", "1 2", True),  # blanks between words
        ("7\n\n8", "7\n8", False),
        ("7 8", "7\n8", False),
        (" *", "*", True),  # the text's own ends
        ("*\n *", "*\n  *", False),  # a figure
        ("0.3333333333", "0.333333", True),  # 3.3e-7 apart
        ("0.3334", "0.333333", False),  # 6.7e-5
        ("1e3", "1000.0", True),
        ("1000000.5", "1000000.0", True),  # 5e-7 of it
        ("1000010.0", "1000000.0", False),
        ("7.0", "7", False),  # an integer is held to its digits
        ("1000000000001", "1000000000000", False),
        ("Case 1: 0.50000001", "Case 1: 0.5", True),
        ("Case 2: 0.5", "Case 1: 0.5", False),
        ("nan", "0.5", False),
        ("inf", "0.5", False),
        ("1_0.0", "10.0", False),
        ("YES", "Yes", False),
    ],
)
def test_printed_texts(printed, right, same):
    assert output_matches(printed.encode(), [right], 1e-6) is same
    assert output_matches(printed.encode(), ["something else", right], 1e-6) is same


@pytest.mark.parametrize(
    ("result", "right", "same"),
    [
        (0.66667, 0.6666667, True),  # 3.3e-6 apart, 1e-5 allowed
        (0.6667, 0.6666667, False),  # 3.3e-5
        ([1.00000001, "a"], [1.0, "a"], True),
        (2, 2.0, True),
        (2.0000001, 2, False),
        (True, 1.0, False),
        ("0.66667", 0.66667, False),
    ],
)
def test_floats_of_results_are_held_to_the_tolerance(result, right, same):
    assert results_match(json.dumps([result]).encode(), [[right]], 1e-5) is same


def test_any_of_several_right_outputs(grader):
    cases = [{"arguments": [4], "results": [[1, 3], [3, 1], [2, 2]]}]
    assert grade(grader, "def f(n): return [2, 2]", function="f", cases=cases).correct
    assert not grade(grader, "def f(n): return [4, 0]", function="f", cases=cases).correct
    texts = [{"stdin": "4", "stdouts": ["1 3", "3 1"]}]
    assert grade(grader, "print(3, 4 - int(input()) + 1)", cases=texts).correct
    assert not grade(grader, "print(int(input()))", cases=texts).correct


def test_the_tolerance_of_a_problem(grader):
    cases = [{"arguments": [1], "result": 0.33333}]
    assert not grade(grader, "def f(x): return x / 3", function="f", cases=cases).correct
    assert grade(grader, "def f(x): return x / 3", function="f", cases=cases, tolerance=1e-5).correct


def test_a_test_whose_output_is_blank_among_others(grader):
    cases = [{"stdin": "0", "stdout": ""}, {"stdin": "2", "stdout": "2"}]
    assert grade(grader, "n = int(input())\nif n: print(n)", cases=cases).correct
    assert not grade(grader, "print(input())", cases=cases).correct


def test_an_output_longer_than_the_usual_limit(grader):
    line = "x" * 999 + "\n"
    assert grade(
        grader, "for _ in range(int(input())): print('x' * 999)", cases=[{"stdin": "2000", "stdout": line * 2000}]
    ).correct


# ---------------------------------------------------------------------------------------------- limits of a problem's own

BUSY = "import time\ndef busy(seconds):\n    end = time.process_time() + seconds\n    while time.process_time() < end: pass\n"


def test_a_problems_own_time_limit_goes_before_the_graders(grader):
    """The grader's is 1 s of processor time, for all calls together; the problem's holds for each case."""
    program = f"{BUSY}def f(x):\n    busy(1.3)\n    return x\n"
    cases = [{"arguments": [n], "result": n} for n in range(2)]
    assert grade(grader, program, function="f", cases=cases) == Grade(False, True, True)
    assert grade(grader, program, function="f", cases=cases, time_limit_seconds=2) == Grade(True, True, False)
    assert grade(
        grader, f"{BUSY}busy(1.3)\nprint(input())", cases=[{"stdin": "7", "stdout": "7"}], time_limit_seconds=3
    ).correct


# ---------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("def f(x, y): return x + y", CHECK),
        ("def f(x, y): return x + y", "assert f(3, 4) == 7"),
        ("def f(x): return (x, {x: {x}}, None, 1.5, b'a', 1j, frozenset([x]))", "assert f(2) == (2, {2: {2}}, None, 1.5, b'a', 1j, frozenset([2]))"),
        ("def f(xs, kind): return [x for x in xs if not isinstance(x, kind)]", "assert f((1, 'a', 2.5), int) == ['a', 2.5] and f([1], str) == [1]"),
        ("def f(x, *, by): return x * by", "assert f((1, 2), by=2) == (1, 2, 1, 2)"),
        ("def f(x): return type(x).__name__", "assert [f(1), f((1,)), f({1: 2}), f({1}), f('')] == ['int', 'tuple', 'dict', 'set', 'str']"),
        ("def f(x): return x", "assert math.isnan(f(float('nan'))) and f(float('inf')) == float('inf')"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("def f(x):\n    if x < 0: raise ValueError\n    return x", "try:\n    f(-1)\nexcept Exception:\n    assert f(1) == 1\nelse:\n    raise AssertionError"),
        ("def f(): return 4.0000001", "assert abs(f() - 4) < 1e-6"),
        ("def f(xs): return sorted(xs)", "import random\nfor n in range(50):\n    xs = random.sample(range(99), n)\n    assert f(list(xs)) == sorted(xs)"),
    ],
)  # fmt: skip
def test_a_check_calls_the_program(grader, program, check):
    assert grade(grader, program, function="f", check=check) == Grade(True, True, False)


@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("def f(x, y): return x - y", CHECK),
        ("def f(x, y): return 7.5", CHECK),
        ("def g(x, y): return x + y", CHECK),
        ("def f(x, y): return (yield)", CHECK),
        ("def f(x, y): return [7]", CHECK),
        ("def f(x, y): raise AssertionError", CHECK),
        ("def f(): return [1]", "assert f() == (1,)"),
        ("def f(): return {}", "assert f() == set()"),
        ("def f(): return 1", "pass"),  # a check that calls nothing
        ("def f(): return 1", "def check(candidate):\n    pass"),
        ("def f(): return 1", "f(); (syntax error"),
        # What the program could do if it ran in one process with the check:
        ("class E(int):\n    def __eq__(self, other): return True\ndef f(x, y): return E(1)", CHECK),
        ("import os\ndef f(x, y): os._exit(0)", CHECK),
        ("import sys\ndef f(x, y): sys.exit(0)", CHECK),
        ("def check(candidate): pass\ndef f(x, y): return 0", CHECK),
        ("import builtins\nbuiltins.AssertionError = int\ndef f(x, y): return 0", CHECK),
        ("import os\ndef f(x, y):\n    os.write(3, b'7'); os._exit(0)", CHECK.replace("== 7", "== 8")),
        ("import os\ndef f(x, y):\n    os.write(3, b'{\"eval\": [1]}'); os._exit(0)", CHECK),
        ("import os\ndef f(x, y):\n    os.write(3, b'[' * 10**5); os._exit(0)", CHECK),
        ("import gc\ndef f(x, y):\n    return 918273 if any('918273' in repr(one) for one in gc.get_objects() if type(one) is str) else 0",
         CHECK.replace("== 7", "== 918273")),
    ],
)  # fmt: skip
def test_a_check_is_not_to_be_deceived(grader, program, check):
    assert grade(grader, program, function="f", check=check) == Grade(False, True, False)


@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("def f(x, y):\n    while True: pass", CHECK),
        ("def f(x, y): return x + y", "f(1, 2)\nwhile True: pass"),
        ("def f(x, y): return bytearray(2**40)", CHECK),
    ],
)
def test_checking_code_that_takes_too_long_times_out(grader, program, check):
    assert grade(grader, program, function="f", check=check) == Grade(False, True, True)


def test_a_function_may_be_called_check(grader):
    assert grade(grader, "def check(x): return x + 1", function="check", check="assert check(1) == 2").correct
    assert not grade(grader, "def check(x): return x", function="check", check="assert check(1) == 2").correct


def test_the_preamble_is_there_for_both(grader):
    preamble = "from math import floor\ndef double(x):\n    return 2 * x\ndef f(x):\n    pass\n"
    check = "assert f(1.5) == double(1)"
    gold = {"function": "f", "check": check, "preamble": preamble}
    assert grade(grader, "def f(x): return double(floor(x))", **gold).correct
    assert grade(grader, "    return double(floor(x))", **gold).correct  # continues the preamble's last function
    assert not grade(grader, "x = 1", **gold).correct  # the stub is not the answer


# ---------------------------------------------------------------------------------------------- golds


@pytest.mark.parametrize(
    ("gold", "fault"),
    [
        ({"function": "f", "check": CHECK, "cases": CASES}, "with `function` and `check`"),
        ({"check": CHECK}, "must be a name"),
        ({"function": "f", "check": " "}, "`check` must be a non-blank string"),
        ({"function": "f", "check": 7}, "`check` must be a non-blank string"),
        (
            {"function": "f", "cases": CASES, "time_limit_seconds": 0},
            "`time_limit_seconds` = 0: it must be a number above 0 and at most 60",
        ),
        ({"function": "f", "cases": CASES, "time_limit_seconds": 1e9}, "`time_limit_seconds` = 1000000000.0"),
        ({"function": "f", "cases": CASES, "time_limit_seconds": "2"}, "`time_limit_seconds` = '2'"),
        ({"function": "f", "cases": CASES, "tolerance": True}, "`tolerance` = True"),
        ({"function": "f", "cases": CASES, "preamble": 3}, "`preamble` must be a string"),
        ({"function": "f", "cases": CASES, "limit": 3}, "a key 'limit'"),
        (
            {"function": "f", "cases": [{"arguments": [1], "results": []}]},
            "`results` must be a non-empty list of correct outputs",
        ),
        ({"function": "f", "cases": [{"arguments": [1], "results": [None, 1]}]}, "every `result` is null"),
        ({"cases": [{"stdin": "1", "stdouts": ["1", 2]}]}, "`stdout` must be a string"),
        ({"cases": [{"stdin": "1", "stdout": "1", "stdouts": ["1"]}]}, "must have only `stdin`"),
    ],
)
def test_a_faulty_gold_is_refused(gold, fault):
    with pytest.raises(ValueError, match=fault):
        check_tests(json.dumps(gold))


def test_a_long_gold_is_stored_compressed(grader):
    short, long = (json.dumps({"function": "f", "cases": CASES * times}) for times in (1, 2_000))
    assert compressed(short) == short and len(long) > COMPRESSED_FROM
    assert len(compressed(long)) < len(long) / 20
    assert check_tests(compressed(long)) == check_tests(long)
    assert grader.grade_all([ADD], [compressed(long)])[0].correct


@pytest.mark.parametrize("text", ["zlib:", "zlib:!", "zlib:" + base64.b64encode(zlib.compress(b"{}" * 99)[:-9]).decode()])
def test_a_damaged_compressed_gold(text):
    with pytest.raises(ValueError, match="tests are not valid JSON"):
        check_tests(text)


def test_unpacking_has_a_limit():
    bomb = zlib.compress(bytes(10**7))
    assert inflate(bomb, 10**7) == bytes(10**7)
    with pytest.raises(ValueError, match="more than 9999999 bytes"):
        inflate(bomb, 10**7 - 1)
