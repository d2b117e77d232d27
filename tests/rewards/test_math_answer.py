"""The grader: what it accepts and rejects, and that no answer can hold it up, kill it or fool it."""

import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import kind_pairs
import pytest
from answer_pairs import ACCEPTED_THOUGH_WRONG, REJECTED_THOUGH_RIGHT, RIGHT, WRONG
from hanging import HANG, equivalent_or_hang

from sfpo.config import TableRows
from sfpo.data.sources import read_rows
from sfpo.rewards import math_answer
from sfpo.rewards.answer_text import MAX_CHARACTERS, Answer, read
from sfpo.rewards.expression import ParseError, parse
from sfpo.rewards.math_answer import Grade, Grader, grade, reward_of
from sfpo.rewards.numerals import number

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside this checkout")
GOLD_FILES = {
    "eval/math500.jsonl": 500,
    "eval/aime24.jsonl": 30,
    "eval/aime25.jsonl": 30,
    "eval/amc.jsonl": 83,
    "eval/minerva_math.jsonl": 272,
    "eval/olympiadbench.jsonl": 675,
    "eval/gsm8k.jsonl": 1319,
    "train/math_train.parquet": 7497,
    "train/dapo_math_17k.parquet": 17176,
}
"""File -> its rows: 27,582 together."""
ALGEBRA = r"3\sqrt{2}"
"""A gold that takes algebra: an answer of another form reaches a worker."""
COSTLY = r"3\sqrt{2}" + r"+\lfloor x\rfloor-\lfloor x\rfloor" * 55
"""Equal to ALGEBRA, which takes more operations to see than an answer may."""


def box(answer: str) -> str:
    """A response that boxes the answer; a response as it is."""
    if re.search(r"\\(?:\w*box|boxed)", answer):
        return answer
    return rf"So the answer is $\boxed{{{answer}}}$."


def workers() -> set[int]:
    """Once they have been the same for half a second: another test's pool may be replacing one."""
    seen = [set()]
    while len(seen) < 6 or any(one != seen[-1] for one in seen[-5:]):
        seen.append({process.pid for process in multiprocessing.active_children()})
        time.sleep(0.1)
    return seen[-1]


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2) as grader:
        grader.grade_all([box(r"\sqrt{18}"), box(r"\sqrt{17}")], [ALGEBRA, ALGEBRA])  # starts both workers
        yield grader


# ---------------------------------------------------------------------------------------------- right and wrong


def verdicts(grader, table):
    pairs = [pair for rows in table.values() for pair in rows]
    return list(zip(pairs, grader.grade_all([box(answer) for answer, _ in pairs], [gold for _, gold in pairs]), strict=True))


def test_the_tables_are_large():
    assert sum(map(len, RIGHT.values())) >= 370
    assert sum(map(len, WRONG.values())) >= 330


def test_accuracy_over_all_pairs(grader):
    """Known misjudgements count: 740 of 748 pairs are judged rightly, 98.9%; what is let in is ACCEPTED_THOUGH_WRONG alone."""
    tables = [(RIGHT, True), (REJECTED_THOUGH_RIGHT, True), (WRONG, False), (ACCEPTED_THOUGH_WRONG, False)]
    judged = [(pair, one.correct, right) for table, right in tables for pair, one in verdicts(grader, table)]
    assert sum(verdict == right for _, verdict, right in judged) / len(judged) >= 0.975
    let_in = [pair for pair, verdict, right in judged if verdict and not right]
    assert let_in == [pair for rows in ACCEPTED_THOUGH_WRONG.values() for pair in rows]


@pytest.mark.parametrize(("table", "correct"), [(RIGHT, True), (WRONG, False)], ids=["right", "wrong"])
def test_every_answer_of_the_tables_is_judged_rightly(grader, table, correct):
    assert [pair for pair, one in verdicts(grader, table) if one != Grade(correct, boxed=True, timed_out=False)] == []


@pytest.mark.parametrize(
    ("table", "correct"), [(REJECTED_THOUGH_RIGHT, False), (ACCEPTED_THOUGH_WRONG, True)], ids=["missed", "let in"]
)
def test_the_known_misjudgements_are_these(grader, table, correct):
    assert [pair for pair, one in verdicts(grader, table) if one.correct != correct] == []


def test_the_pairs_of_each_kind_are_many_and_balanced():
    assert kind_pairs.RIGHT.keys() == kind_pairs.WRONG.keys()
    for kind, pairs in kind_pairs.RIGHT.items():
        assert len(kind_pairs.WRONG[kind]) >= 0.9 * len(pairs), kind
    tables = [kind_pairs.RIGHT, kind_pairs.WRONG, kind_pairs.HELD_OUT_RIGHT, kind_pairs.HELD_OUT_WRONG]
    assert sum(len(pairs) for table in tables for pairs in table.values()) >= 500


@pytest.mark.parametrize("name", ["RIGHT", "WRONG", "HELD_OUT_RIGHT", "HELD_OUT_WRONG"])
def test_every_pair_of_each_kind_is_judged_rightly(grader, name):
    correct = name.endswith("RIGHT")
    judged = verdicts(grader, getattr(kind_pairs, name))
    assert [pair for pair, one in judged if one.correct != correct or one.timed_out] == []


def test_a_response_without_a_box_is_wrong_even_if_it_says_the_answer(grader):
    assert grader.grade_all(["The answer is 5.", r"\boxed{5"], ["5", "5"]) == [Grade(False, False, False)] * 2


def test_grades_come_in_order_and_one_for_each_response(grader):
    responses = [box("1"), "none", box("2"), box(r"\sqrt{18}"), box("1")]
    grades = grader.grade_all(responses, ["1", "1", "1", ALGEBRA, "1"])
    assert [(one.correct, one.boxed) for one in grades] == [
        (True, True),
        (False, False),
        (False, True),
        (True, True),
        (True, True),
    ]
    assert grader.grade_all([], []) == []
    with pytest.raises(ValueError, match="shorter"):
        grader.grade_all([box("1"), box("2")], ["1"])


def test_rewards_follow_the_settings():
    grades = [Grade(True, True, False), Grade(False, True, False), Grade(False, False, False), Grade(False, True, True)]
    assert [reward_of(one, correct=1.0, boxed_but_wrong=0.1) for one in grades] == [1.0, 0.1, 0.0, 0.1]
    assert [reward_of(one, correct=2.0, boxed_but_wrong=0.0) for one in grades] == [2.0, 0.0, 0.0, 0.0]


# ---------------------------------------------------------------------------------------------- cost


def test_a_step_of_integers_costs_milliseconds_and_starts_no_process():
    before = workers()
    responses = [f"First {n} and {n}. " + box(str(n)) for n in range(256)]
    golds = [str(n // 8 * 8) for n in range(256)]
    seconds = []
    for _ in range(5):
        with Grader(workers=2) as grader:
            start = time.perf_counter()
            grades = grader.grade_all(responses, golds)
            seconds.append(time.perf_counter() - start)
    assert sum(one.correct for one in grades) == 32  # one in each group of 8
    assert min(seconds) < 0.05  # 2 to 5 ms on an idle machine; a worker process takes far longer to start
    assert workers() == before


def test_a_known_verdict_takes_no_worker_and_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(math_answer, "CACHE_SIZE", 1)
    with Grader(workers=1) as grader:
        assert grader.grade_all([box(r"\sqrt{18}")], [ALGEBRA])[0].correct
        assert grader.grade_all([box(r"\sqrt{9 \cdot 2}")], [ALGEBRA])[0].correct  # drives the first one out
    assert grader.grade_all([box(r"\sqrt{9 \cdot 2}")], [ALGEBRA])[0].correct
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade_all([box(r"\sqrt{18}")], [ALGEBRA])


@contextmanager
def at_half_speed():
    """All workers stand still for half of the time, as under a quota of half a processor."""
    ends = threading.Event()

    def throttle():
        while not ends.is_set():
            stopped = [process.pid for process in multiprocessing.active_children()]
            for one in (signal.SIGSTOP, signal.SIGCONT):
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, one)
                time.sleep(0.01)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def test_verdicts_are_the_same_at_half_speed():
    tables = [getattr(kind_pairs, name) for name in ("HELD_OUT_RIGHT", "HELD_OUT_WRONG")]
    pairs = [pair for table in tables for rows in table.values() for pair in rows] + [(COSTLY, ALGEBRA)]
    responses, golds = [box(answer) for answer, _ in pairs], [gold for _, gold in pairs]
    with Grader(workers=2) as grader:
        expected = grader.grade_all(responses, golds)
    with Grader(workers=2) as grader, at_half_speed():
        assert grader.grade_all(responses, golds) == expected
    assert expected[-1].timed_out


# ---------------------------------------------------------------------------------------------- hostile answers

HOSTILE = {
    "a million digits": "9" * 10**6,
    "as many digits as are read": "9" * MAX_CHARACTERS,
    "tower": "9^{9^{9^{9}}}",
    "tower without braces": "9^9^9^9",
    "tower of e": "e^{e^{e^{e^{e}}}}",
    "nested braces": "{" * 10_000 + "1" + "}" * 10_000,
    "short nested braces": "{" * 900 + "1" + "}" * 900,
    "nested parentheses": "(" * 900 + "1" + ")" * 900,
    "nested fractions": r"\frac{1}{" * 150 + "2" + "}" * 150,
    "nested roots": r"\sqrt{" * 200 + "2" + "}" * 200,
    "nested powers": "2" + "^{2" * 150 + "}" * 150,
    "huge binomial": r"\binom{1000000000}{500000000}",
    "tower of factorials": "((((9!)!)!)!)!",
    "row of factorials": "3" + "!" * 300,
    "huge exponent": "1e999999999",
    "huge negative exponent": r"10^{-999999999}",
    "huge sine": r"\sin(10^{10^{10}})",
    "huge logarithm": r"\log_{2}(2^{10^{9}})",
    "huge floor": r"\lfloor 10^{10^{9}} \rfloor",
    "huge gcd": r"\gcd(10^{10^{8}}, 7)",
    "huge remainder": r"7^{10^{12}} \mod 10",
    "huge matrix": r"\operatorname{zeros}(100000,100000)",
    "expansion": "(x+y+z+w)^{200}",
    "determinant": r"\det\begin{pmatrix}a&b&c&d\\e&f&g&h\\i&j&k&l\\m&n&o&p\end{pmatrix}",
    "integral": r"\int_0^\infty e^{-x^2}\sin(x^x) dx",
    "sum": r"\sum_{n=1}^{1000000000} n^{1000}",
    "product": r"\prod_{n=1}^{10^9} n",
    "limit": r"\lim_{x\to 0} \sin(1/x)",
    "long sum": "+".join(f"x_{{{n}}}" for n in range(250)),
    "long list": ",".join(map(str, range(400))),
    "commas": "," * 1999,
    "equals signs": "=1" * 900,
    "plus or minus": r"\pm 1" * 300,
    "minus signs": "-" * 1900 + "1",
    "unclosed brackets": r"\left(" * 300,
    "null byte": "4\0002",
    "code": "__import__('os').system('touch /tmp/owned')",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_answer_is_wrong_within_a_second(grader, answer):
    def seconds() -> float:
        start = time.perf_counter()
        grades = grader.grade_all([box(answer)] * 2, ["42", ALGEBRA])
        assert not any(one.correct for one in grades)
        return time.perf_counter() - start

    assert any(seconds() < 1.0 for _ in range(3))  # up to three tries: the machine may be busy


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{41} \boxed{42} \boxed{43}",
        r"\boxed{41}<|im_end|>\boxed{42} \boxed{43}",
        r"\boxed{42",
        r"\boxed{4\boxed{2}",
        "42",
        r"\boxed",
        r"}\boxed{42{",
    ],
)
def test_a_box_in_the_wrong_place_is_wrong(response):
    assert grade(response, "42") is False


def test_an_answer_that_exceeds_the_budget_of_operations_is_counted_and_named(caplog):
    with Grader(workers=1) as grader, caplog.at_level(logging.WARNING, logger="sfpo.rewards"):
        grader.grade_all([box("2^{0.5}")], [ALGEBRA])
        before = workers()
        grades = grader.grade_all([box(COSTLY), box("9" * 10**4), box(r"\sqrt{18}")], [ALGEBRA] * 3)
        after = workers()
    assert [(one.correct, one.timed_out) for one in grades] == [(False, True), (False, True), (True, False)]
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "2 of 3 answers exceeded a limit of the grader and count as wrong:"
    assert [message[:35] for message in messages[1:]] == [
        r"exceeded a limit: 3\sqrt{2}+\lfloor",
        "exceeded a limit: " + "9" * 17,
    ]
    assert after == before  # it was counted, not killed


@pytest.fixture
def hanging(monkeypatch):
    monkeypatch.setattr(math_answer, "_equivalent", equivalent_or_hang)


def test_a_hang_is_killed_counted_logged_and_the_rest_is_graded(hanging, caplog):
    answers = [HANG, r"\sqrt{18}", HANG + "+1", r"\sqrt{17}", r"9\sqrt{2}-6\sqrt{2}"]
    before = workers()
    with Grader(workers=1) as grader:
        grader.grade_all([box("2^{0.5}")], [ALGEBRA])
        (first,) = workers() - before
        with caplog.at_level(logging.WARNING, logger="sfpo.rewards"):
            grades = grader.grade_all([box(answer) for answer in answers], [ALGEBRA] * 5)
        (last,) = workers() - before
    assert [one.timed_out for one in grades] == [True, False, True, False, False]
    assert [one.correct for one in grades] == [False, True, False, False, True]
    assert all(one.boxed for one in grades)
    assert first != last
    assert [record.getMessage()[:8] for record in caplog.records] == ["2 of 5 a", "exceeded", "exceeded"]
    assert workers() == before


def test_a_worker_that_dies_at_work_loses_its_answer_alone(hanging):
    before = workers()
    with Grader(workers=1, time_limit_seconds=5.0) as grader:
        grader.grade_all([box("2^{0.5}")], [ALGEBRA])
        (worker,) = workers() - before
        threading.Timer(0.3, os.kill, (worker, signal.SIGKILL)).start()
        grades = grader.grade_all([box(HANG), box(r"\sqrt{18}")], [ALGEBRA] * 2)
    assert [(one.correct, one.timed_out) for one in grades] == [(False, True), (True, False)]


def test_a_worker_that_dies_idle_is_replaced():
    before = workers()
    with Grader(workers=1) as grader:
        grader.grade_all([box("2^{0.5}")], [ALGEBRA])
        (worker,) = workers() - before
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
        assert grader.grade_all([box(r"\sqrt{18}")], [ALGEBRA]) == [Grade(True, True, False)]
    assert workers() == before


@pytest.mark.slow
def test_a_worker_that_stands_still_is_killed_by_the_clock(hanging):
    before = workers()
    with Grader(workers=1, time_limit_seconds=0.2) as grader:  # 4 s on the clock
        grader.grade_all([box("2^{0.5}")], [ALGEBRA])
        (worker,) = workers() - before
        threading.Timer(0.05, os.kill, (worker, signal.SIGSTOP)).start()
        grades = grader.grade_all([box(HANG), box(r"\sqrt{18}")], [ALGEBRA] * 2)
    assert [(one.correct, one.timed_out) for one in grades] == [(False, True), (True, False)]


def test_any_thread_may_grade():
    def work(thread: int) -> list[bool]:
        return [grade(box(rf"\sqrt{{{n * n * 2}}}"), rf"{n + thread % 2}\sqrt{{2}}") for n in range(1, 9)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [[thread % 2 == 0] * 8 for thread in range(8)]


def test_workers_do_not_run_the_main_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(r"""
        print("main runs")
        from sfpo.rewards.math_answer import grade
        print(grade(r"\boxed{\sqrt{18}}", r"3\sqrt{2}"))
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    assert done.stdout == "main runs\nTrue\n"


def test_importing_the_grader_imports_no_sympy_and_no_torch():
    code = "import sys, sfpo.rewards.math_answer; print([name for name in ('sympy', 'torch', 'vllm') if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=True)
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------------------------------------- real golds


def golds_of(name: str) -> dict[str, tuple[str, ...]]:
    """Row id -> golds, as data preparation reads them."""
    file = next(file for file in GOLD_FILES if Path(file).stem == name)
    return {row.id: row.answer for row in read_rows(name, TableRows(source="hub", mirror=file), "test", str(DATA))}


@needs_data
@pytest.mark.parametrize(("file", "count"), GOLD_FILES.items())
def test_every_gold_is_right_in_a_box(grader, file, count):
    golds = golds_of(Path(file).stem)
    grades = grader.grade_all([rf"\boxed{{{', '.join(gold)}}}" for gold in golds.values()], list(golds.values()))
    assert [row for row, one in zip(golds, grades, strict=True) if not one.correct] == []
    assert len(golds) == count


WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in [*range(0x30, 0x3A), *map(ord, "+-(),=[]")]})
"""ASCII characters to their full-width forms."""


def respellings(golds: tuple[str, ...]) -> list[str]:
    r"""Responses that give the golds otherwise, by rule: in colour and bold, in full-width characters, and one of
    boxes for each (several golds), twice the formula over two (a formula), or a box without braces (anything else)."""
    answer = ", ".join(golds).replace(r"\left", "").replace(r"\right", "")
    parts = re.split(r"(\\(?:[A-Za-z]+|.))", answer)
    wide = "".join(part if part.startswith("\\") else part.translate(WIDE) for part in parts)
    styled = answer.replace(r"\frac", r"\dfrac")
    found = [rf"\boxed{{\textcolor{{blue}}{{\mathbf{{{styled}}}}}}}", rf"\boxed{{{wide}}}"]
    if len(golds) > 1:
        return [*found, " and ".join(rf"$\boxed{{{gold}}}$" for gold in reversed(golds))]
    reading = read(golds[0])
    if is_formula(reading):
        return [*found, rf"\boxed{{\frac{{2\left({reading.body}\right)}}{{2}}}}"]
    return [*found, rf"$\boxed {golds[0]}$" if " " not in golds[0] else rf"\fbox{{${golds[0]}$}}"]


def is_formula(reading: Answer) -> bool:
    if reading.words or number(reading.body):
        return False
    try:
        return bool(parse(reading.body))
    except ParseError:
        return False


@needs_data
@pytest.mark.parametrize("file", GOLD_FILES)
def test_three_rewritings_of_every_gold_are_correct_and_none_exceeds_a_limit(grader, file):
    golds = golds_of(Path(file).stem)
    if "dapo" in file or "gsm8k" in file:  # whole numbers alone: the first ones stand for all
        golds = dict(list(golds.items())[:200])
    asked = [(row, response, gold) for row, gold in golds.items() for response in respellings(gold)]
    grades = grader.grade_all([response for _, response, _ in asked], [gold for *_, gold in asked])
    assert [(row, response) for (row, response, _), one in zip(asked, grades, strict=True) if not one.correct] == []
    assert not any(one.timed_out for one in grades)


@needs_data
def test_plain_text_golds_of_minerva_are_read_as_their_latex():
    rows = map(json.loads, (DATA / "eval/minerva_math.jsonl").read_text().splitlines())
    pairs = {row["id"]: (box(row["answer_latex"]), row["answer"]) for row in rows if "answer_latex" in row}
    with Grader(workers=2) as grader:
        grades = grader.grade_all(*zip(*pairs.values(), strict=True))
    assert len(pairs) == 64
    assert [row for row, one in zip(pairs, grades, strict=True) if not one.correct] == []
