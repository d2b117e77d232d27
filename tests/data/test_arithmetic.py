import hashlib
import re
import string

import pytest

from sfpo.data.arithmetic import (
    NEW_STORY_NAMES,
    NEW_STORY_THINGS,
    STORIES,
    STORY_NAMES,
    STORY_THINGS,
    TASKS,
    _worked,
    canonical,
    generate,
)
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


def operands(problem):
    return sorted(map(int, re.findall(r"\d+", problem)))


def value(text):
    return sum(int(term) for term in re.findall(r"[+-]?\d+", text))


def expression(row):
    """The signed terms out of the columns: "2+0=2 1+3=4 ..." is 12+30; a borrowed ten before the ones does not count."""
    *steps, _ = row.solution.split(" ")
    columns = [re.match(r"(\d+)([+-])(\d+)", step).groups() for step in steps]
    terms = [10 * int(columns[1][0]) + int(columns[0][0]) % 10]
    for (_, sign, ones), (_, _, tens) in zip(columns[::2], columns[1::2], strict=True):
        terms.append(int(f"{sign}{10 * int(tens) + int(ones)}"))
    return tuple(terms)


def test_no_problem_is_repeated_or_shared_between_splits(everything):
    for task in TASKS:
        problems = [row.problem for split in SPLITS for row in everything[task, split]]
        assert len(problems) == len(set(problems)), task


def test_equal_expressions_lie_in_one_split_whatever_the_task(everything):
    """3+5, 5+3 and "3 apples and 5 more" are one expression; so are 9+4-2 and the story of 9 less 2 and 4 more."""
    split_of = {}
    for (_, split), rows in everything.items():
        for row in rows:
            assert split_of.setdefault(canonical(expression(row)), split) == split, row


def test_sums_hold_every_unordered_pair_once(everything):
    # 90 numbers: 90 * 91 / 2 = 4095 unordered pairs with repetition.
    pairs = [tuple(operands(row.problem)) for split in SPLITS for row in everything["sums", split]]
    assert len(pairs) == len(set(pairs)) == 4095


@pytest.mark.parametrize("task", ["sums", "differences", "chains", "stories"])
def test_training_tasks_are_large_enough(everything, task):
    assert len(everything[task, "train"]) >= 2000
    assert len(everything[task, "validation"]) >= 300
    assert len(everything[task, "test"]) >= 100


def test_every_answer_is_right_and_every_solution_ends_in_it(everything):
    for rows in everything.values():
        for row in rows:
            *steps, boxed = row.solution.split(" ")
            assert boxed == f"\\boxed{{{row.answer[0]}}}"
            for step in steps:
                left, right = step.split("=")
                assert value(left) == int(right) >= 0
            # The tens of the last column, and the last digit of its ones.
            assert 10 * int(right) + int(steps[-2][-1]) == int(row.answer[0]) == sum(expression(row))
            if row.problem.endswith("=?"):
                assert value(row.problem.removesuffix("=?")) == int(row.answer[0])


def test_solutions_use_the_numbers_of_the_problem(everything):
    for rows in everything.values():
        for row in rows:
            assert sorted(map(abs, expression(row))) == operands(row.problem)


def test_shape_of_each_task():
    def shown(task):
        row = generate(task, "test", 1)[0]
        return re.sub(r"\d\d", "n", row.problem), row.solution.count("=")

    assert shown("sums") == ("n+n=?", 2)
    assert shown("differences") == ("n-n=?", 2)
    assert shown("chains") == ("n+n-n=?", 4)
    assert shown("new_chains") == ("n-n+n=?", 4)
    assert shown("stories")[1] == 2
    assert shown("new_stories")[1] == 2


def test_problems_and_solutions_are_short(everything):
    rows = [row for listed in everything.values() for row in listed]
    assert max(len(row.problem) for row in rows) <= 110
    in_training = [row for (task, _), listed in everything.items() if task in ("sums", "chains", "stories") for row in listed]
    assert max(len(row.solution) for row in in_training) <= 44


def test_new_stories_tell_of_names_and_things_that_stories_never_have(everything):
    seen = {word.strip(string.punctuation) for row in everything["stories", "train"] for word in row.problem.split()}
    assert not seen & {*NEW_STORY_NAMES, *NEW_STORY_THINGS}
    assert seen >= {*STORY_NAMES, *STORY_THINGS}


def test_every_frame_is_used(everything):
    for task in ("stories", "new_stories"):
        problems = [row.problem for row in everything[task, "train"]]
        for frame in (frame for group in STORIES.values() for frame in group):
            pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(frame))
            assert any(re.fullmatch(pattern, problem) for problem in problems), frame


def test_canonical_form_of_equal_problems():
    assert canonical((48, 37)) == canonical((37, 48)) == "37+48"
    assert canonical((30, -7, 12)) == canonical((12, 30, -7)) == "12+30-7"
    assert canonical((50, -20)) != canonical((20, -50))


def test_a_longer_list_starts_with_the_shorter_one():
    assert generate("chains", "train", 50) == generate("chains", "train", 80)[:50]
    assert [row.id for row in generate("sums", "test", 2)] == ["sums-test-00000", "sums-test-00001"]


def test_columns_by_hand():
    # 58+67: 8+7=15, carry; 5+6+1=12. 125-96: 15-6=9, borrowed; 12-9-1=2.
    row = next(row for row in generate("chains", "train", 2000) if "+1=" in row.solution and "-1=" in row.solution)
    first, second, third = expression(row)
    assert first % 10 + second % 10 >= 10 and (first + second) % 10 < -third % 10
    assert _worked((58, 67, -96)) == "8+7=15 5+6+1=12 15-6=9 12-9-1=2 \\boxed{29}"
    assert _worked((60, -20)) == "0-0=0 6-2=4 \\boxed{40}"


def test_the_rows_never_change():
    """A golden hash: checkpoints and stored results belong to exactly these problems."""
    text = "\n".join(
        f"{row.id} {row.problem} {row.answer[0]} {row.solution}"
        for task in TASKS
        for split in SPLITS
        for row in generate(task, split, 100)
    )
    assert hashlib.sha256(text.encode()).hexdigest() == "e10a9dc788952a217c0e3df4d97b17db1ad64614dc1fd05b4d04fd3b2386b7c5"


def test_too_large_a_count_is_told_with_what_there_is():
    count = available("sums", "test")
    assert len(generate("sums", "test", count)) == count
    with pytest.raises(ConfigError, match=f"task 'sums' has {count} test problems; {count + 1} were requested"):
        generate("sums", "test", count + 1)


def test_an_unknown_task_is_told_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"'products'; available: sums, differences, chains, stories, new_chains, new_stories"
    ):
        generate("products", "train", 1)
