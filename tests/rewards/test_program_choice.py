# ruff: noqa: E501 (a program in each line)
"""Which blocks of an answer are the program: answers as models write them, graded whole."""

import json

import pytest

from sfpo.rewards.choice import choose
from sfpo.rewards.code_tests import CodeGrader

SUM = json.dumps({"function": "f", "cases": [{"arguments": [3, 4], "result": 7}, {"arguments": [-5, 5], "result": 0}]})
LINE = json.dumps({"cases": [{"stdin": "3 4\n", "stdout": "7\n"}, {"stdin": "1 1\n", "stdout": "2\n"}]})
NO_INPUT = json.dumps({"cases": [{"stdin": "", "stdout": "7\n"}]})
LENGTHS = json.dumps({"function": "f", "cases": [{"arguments": [["a", "bc"]], "result": {"a": 1, "bc": 2}}]})

ADD = "def f(x, y):\n    return x + y"
READ = "a, b = map(int, input().split())\nprint(a + b)"
WRONG_ADD = "def f(x, y):\n    return x * y"
WRONG_READ = "a, b = map(int, input().split())\nprint(a * b)"
SOLVE = "def solve(a, b):\n    return a + b"


def answer(*blocks: str) -> str:
    return "\n\nThen:\n\n".join(block if block.startswith("```") else f"```python\n{block}\n```" for block in blocks)


RIGHT = {
    # tests of a function: what defines it
    "output after it": (SUM, [ADD, "```\n7\n```"]),
    "output after it, in a block marked python": (SUM, [ADD, "7"]),
    "sample after it": (SUM, [ADD, "```\nInput: x = 3, y = 4\nOutput: 7\n```"]),
    "usage after it": (SUM, [ADD, "print(f(3, 4))  # 7"]),
    "usage that imports it": (SUM, [ADD, "from solution import f\nprint(f(3, 4))"]),
    "tests after it": (SUM, [ADD, "import unittest\nclass TestF(unittest.TestCase):\n    def test(self): assert f(3, 4) == 7"]),
    "session after it": (SUM, [ADD, "```\n>>> f(3, 4)\n7\n```"]),
    "the signature again": (SUM, [ADD, "def f(x, y):\n    ..."]),
    "the signature again, with a docstring": (SUM, [ADD, 'def f(x, y):\n    """The sum."""\n    raise NotImplementedError']),
    "a brute force for comparison": (SUM, [ADD, "def brute(x, y):\n    return sum([x, y])\nassert brute(1, 2) == f(1, 2)"]),
    "another language after it": (SUM, [ADD, "```java\nint f(int x, int y) { return x * y; }\n```"]),
    "an unmarked block of another language": (SUM, [ADD, "```\nint f(int x, int y) { return x * y; }\n```"]),
    "corrected": (SUM, [WRONG_ADD, ADD]),
    "helper before it": (SUM, ["def plus(x, y):\n    return x + y", "def f(x, y):\n    return plus(x, y)"]),
    "helper after it": (SUM, ["def f(x, y):\n    return plus(x, y)", "def plus(x, y):\n    return x + y"]),
    "helper of a helper": (SUM, ["ONE = 1", "def one():\n    return ONE", "def f(x, y):\n    return (x + y) * one()"]),
    "helper with an example that fails": (SUM, ["def plus(x, y):\n    return x + y\nassert plus(1, 1) == 3", "def f(x, y):\n    return plus(x, y)"]),
    "imports in a block of their own": (SUM, ["from operator import add as plus", "def f(x, y):\n    return plus(x, y)"]),
    "helper that is defined twice": (SUM, ["def g(x):\n    return 0", "def g(x):\n    return x", "def f(x, y):\n    return g(x) + g(y)"]),
    "an alias": (SUM, ["class Solution:\n    def add(self, x, y):\n        return x + y", "f = Solution().add"]),
    "a class Solution": (SUM, ["class Solution:\n    def f(self, x, y):\n        return x + y"]),
    "typing names without an import": (LENGTHS, ["class Solution:\n    def f(self, words: List[str]) -> Dict[str, Optional[int]]:\n        return {word: len(word) for word in words}"]),
    "library names without an import": (LENGTHS, ["def f(words):\n    found = defaultdict(int)\n    for word in words: found[word] = math.floor(sqrt(len(word) ** 2))\n    return found"]),
    "a Solution without the function, which stands beside it": (SUM, [f"class Solution:\n    pass\n{ADD}"]),
    "defined under a condition": (SUM, [f"if True:\n    def f(x, y):\n        return x + y\nelse:\n    {'f = None'}"]),
    "exit at the end": (SUM, [f"{ADD}\nprint(f(1, 2))\nexit()"]),
    "quit at the end": (SUM, [f"{ADD}\nquit()"]),
    "unittest.main at the end": (SUM, [f"import unittest\n{ADD}\nif __name__ == '__main__':\n    unittest.main()"]),
    "a demonstration that asks for input": (SUM, [f"{ADD}\nprint(f(int(input()), int(input())))"]),
    "in a list": (SUM, ["```text\n1.\n```\n   ```python\n   def f(x, y):\n       return x + y\n   ```"]),
    "imported from the library": (SUM, ["from operator import add as f"]),
    "wrapped later": (SUM, [ADD, "from functools import lru_cache\nf = lru_cache(None)(f)"]),
    "the signature again, without a body": (SUM, [ADD, "```\ndef f(x: int, y: int) -> int\n```"]),
    "the signature again, with a colon": (SUM, [ADD, "```\ndef f(x: int, y: int) -> int:\n```"]),
    # tests on stdin: what reads it
    "stdin, output after it": (LINE, [READ, "```\n7\n```"]),
    "stdin, sample after it": (LINE, [READ, "```\n3 4\n```"]),
    "stdin, usage after it": (LINE, [f"{SOLVE}\na, b = map(int, input().split())\nprint(solve(a, b))", "print(solve(3, 4))"]),
    "stdin, usage that puts in a text": (LINE, [f"def main():\n    {READ.replace(chr(10), chr(10) + '    ')}\nmain()", "import io, sys\nsys.stdin = io.StringIO('3 5')\nmain()"]),
    "stdin, usage that puts in a text and reads": (LINE, [READ, f"import io, sys\nsys.stdin = io.StringIO('3 5')\n{READ}"]),
    "stdin, usage that patches input": (LINE, [READ, "from unittest.mock import patch\nwith patch('builtins.input', return_value='3 5'):\n    print(sum(map(int, input().split())))"]),
    "stdin, a shell line after it": (LINE, [READ, "```bash\necho 3 4 | python a.py\n```"]),
    "stdin, an unmarked shell line after it": (LINE, [READ, "```\necho 3 4 | python a.py  # reads stdin\n```"]),
    "stdin, helper before it": (LINE, [SOLVE, "a, b = map(int, input().split())\nprint(solve(a, b))"]),
    "stdin, helper before it with an example": (LINE, [f"{SOLVE}\nprint(solve(3, 4))", "a, b = map(int, input().split())\nprint(solve(a, b))"]),
    "stdin, helper in an earlier whole program": (LINE, [f"{SOLVE}\na, b = map(int, input().split())\nprint(solve(a, b) + 1)", "a, b = map(int, input().split())\nprint(solve(a, b))"]),
    "stdin, in pieces": (LINE, ["a, b = map(int, input().split())", "print(a + b)"]),
    "stdin, main and its call": (LINE, ["def main():\n    a, b = map(int, input().split())\n    print(a + b)", "if __name__ == '__main__':\n    main()"]),
    "stdin, corrected": (LINE, [WRONG_READ, READ]),
    "stdin, the function alone after it": (LINE, [READ, f"{SOLVE}  # if you prefer a function"]),
    "stdin, exit at the end": (LINE, [f"{READ}\nexit()"]),
    "stdin, exit(0) in main": (LINE, [f"def main():\n    {READ.replace(chr(10), chr(10) + '    ')}\n    exit(0)\nmain()"]),
    "stdin, sys.exit without an import": (LINE, [f"{READ}\nsys.exit()"]),
    "stdin, read by readline": (LINE, ["import sys\ninput = sys.stdin.readline\nprint(sum(map(int, input().split())))", "```\n7\n```"]),
    "stdin, read by open": (LINE, ["print(sum(map(int, open(0).read().split())))", "7"]),
    "stdin, read by os": (LINE, ["import os\nprint(sum(map(int, os.read(0, 99).split())))", "7"]),
    "stdin, wrapped": (LINE, ["import io, os, sys\nsys.stdin = io.BytesIO(os.read(0, 99))\nprint(sum(map(int, sys.stdin.readline().split())))", "7"]),
    "stdin, a parameter called input": (LINE, ["def solve(input):\n    return sum(map(int, input.split()))\nprint(solve(input()))", "print(solve('3 4'))"]),
    "stdin, the line that reads": (LINE, [READ, "a, b = map(int, input().split())"]),
    "stdin, the lines that changed": (LINE, [f"{SOLVE}\na, b = map(int, input().split())\nprint(solve(a, b))", "print(solve(a, b))"]),
    "stdin, in a thread with a large stack": (LINE, [f"import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\ndef deep(n):\n    return 0 if n == 0 else deep(n - 1)\ndef main():\n    deep(20000)\n    {READ.replace(chr(10), chr(10) + '    ')}\nt = threading.Thread(target=main)\nt.start()\nt.join()"]),
    "no input": (NO_INPUT, ["print(3 + 4)", "```\n7\n```"]),
}  # fmt: skip

WRONG = {
    "changed for the worse": (SUM, [ADD, WRONG_ADD]),
    "changed for the worse, cut short": (SUM, [ADD, "def f(x, y):\n    return x +"]),  # a last version that is no program
    "the signature alone": (SUM, ["def f(x, y):\n    ..."]),
    "a helper alone": (SUM, ["def plus(x, y):\n    return x + y"]),
    "another function": (SUM, [f"{SOLVE}"]),
    "a name of the library that nobody asked for": (SUM.replace('"f"', '"add"'), ["x = 1"]),
    "a name of the builtins": (SUM.replace('"f"', '"pow"'), ["x = 1"]),
    "an error after it is defined": (SUM, [f"{ADD}\n1 / 0"]),
    "helper missing": (SUM, ["def f(x, y):\n    return plus(x, y)"]),
    "a program where a function is asked for": (SUM, [READ]),
    "output alone": (LINE, ["```\n7\n```"]),
    "stdin, changed for the worse": (LINE, [READ, WRONG_READ]),
    "stdin, the function alone": (LINE, [SOLVE]),
    "stdin, prints the sample": (LINE, ["print(7)"]),
    "stdin, ends in an error": (LINE, [f"{READ}\nexit('no')"]),
    "stdin, exit before printing": (LINE, ["exit()\n" + READ]),
    "no input, wrong": (NO_INPUT, ["print(8)", "```\n7\n```"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def grader(isolation):
    with CodeGrader(workers=2) as grader:
        yield grader


@pytest.mark.parametrize("name", RIGHT)
def test_the_program_that_is_meant_is_found(grader, name):
    gold, blocks = RIGHT[name]
    assert grader.grade_all([answer(*blocks)], [gold])[0].correct


@pytest.mark.parametrize("name", WRONG)
def test_no_other_program_is_taken_for_it(grader, name):
    gold, blocks = WRONG[name]
    assert not grader.grade_all([answer(*blocks)], [gold])[0].correct


@pytest.mark.parametrize("text", ["(" * 60_000, "x = " + "-" * 60_000 + "1", "[" * 30_000 + "]" * 30_000, "\0", "\ud800"])
def test_hostile_blocks_do_not_stand_in_the_way(grader, text):
    assert grader.grade_all([answer(ADD, text)], [SUM])[0].correct


def test_the_last_block_where_none_is_what_is_asked_for():
    assert choose(["7", "is not Python"], "f", False) == ["is not Python"]


def test_a_block_that_goes_on_inside_the_preamble():
    """As a base model completes HumanEval's prompts."""
    (part,) = choose(["    return x + y"], "f", False, "def f(x, y):\n")
    names = {}
    exec(compile(part, "program", "exec"), names)
    assert names["f"](3, 4) == 7
