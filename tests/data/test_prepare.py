import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpo.config import Benchmark, Dataset, GeneratedRows, TableRows
from sfpo.data import prepare
from sfpo.data.cleaning import duplicates_to_drop, invalid_reason, normalized
from sfpo.data.prepare import main, proportional
from sfpo.data.prompts import load_problems
from sfpo.schema import ConfigError
from sfpo.settings import BenchmarkSettings, DatasetSettings, settings_hash, to_json

SHARED = Path(__file__).parents[2].parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data mirror ../shared/data is not here")


def table(mirror):
    return TableRows(source="hub", mirror=mirror)


def generated(**tasks):
    return GeneratedRows(source="generated", tasks=tasks)


def write_mirror(folder, name, *rows):
    """Rows as (id, problem, answer)."""
    lines = [json.dumps({"id": row_id, "problem": problem, "answer": answer}) for row_id, problem, answer in rows]
    (folder / name).write_text("\n".join(lines) + "\n")


def prepare_dataset(folder, parts, validation_rows, mirror=None, **keys):
    dataset = Dataset(parts=parts, validation_rows=validation_rows, **keys)
    settings = DatasetSettings(name="set", dataset=dataset, data_mirror=mirror and str(mirror))
    (folder / "settings.json").write_text(to_json(settings))
    main([str(folder / "settings.json"), "--kind", "dataset"])
    report = json.loads((folder / "report.json").read_text())
    assert report["settings_hash"] == settings_hash(settings)
    return load_problems(folder / "train.parquet"), load_problems(folder / "validation.parquet"), report


def prepare_benchmark(folder, rows, mirror=None):
    settings = BenchmarkSettings(name="bench", benchmark=Benchmark(title="B", rows=rows), data_mirror=mirror and str(mirror))
    (folder / "settings.json").write_text(to_json(settings))
    main([str(folder / "settings.json"), "--kind", "benchmark"])
    return load_problems(folder / "problems.parquet"), json.loads((folder / "report.json").read_text())


def test_a_generated_data_set(tmp_path):
    train, validation, report = prepare_dataset(tmp_path, {"made": generated(sums=30, chains=10)}, validation_rows=8)
    assert [row.id for row in train[:2]] == ["made/sums-train-00000", "made/sums-train-00001"]
    assert train[0].solution.endswith(f"\\boxed{{{train[0].answer[0]}}}")
    # 8 validation rows shared 30 : 10 are 6 and 2, out of the generator's validation split.
    expected = {f"made/sums-validation-{n:05d}" for n in range(6)} | {f"made/chains-validation-{n:05d}" for n in range(2)}
    assert {row.id for row in validation} == expected
    assert report["kept"] == len(train) == 40
    assert report["validation"] == 8
    assert report["excluded"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.json",
        "settings.json",
        "train.parquet",
        "validation.parquet",
    ]


def test_the_first_validation_rows_stand_for_all_tasks(tmp_path):
    tasks = dict.fromkeys(["sums", "differences", "chains", "stories"], 200)
    _, validation, _ = prepare_dataset(tmp_path, {"made": generated(**tasks)}, validation_rows=256)
    assert {row.id.split("/")[1].split("-")[0] for row in validation[:32]} == set(tasks)


def test_every_reason_is_counted_and_listed(tmp_path, capsys):
    rows = [
        ("1", "Find $x$.", "5"),
        ("2", "find x", "5"),
        ("3", "Which is it?", "1"),
        ("4", "which is it", "2"),
        ("5", "", "1"),
        ("6", "no gold", ""),
        ("7", "bad gold", "\\\\"),
        ("8", "l" * 31, "1"),
        *((f"good{n}", f"problem {n}", str(n)) for n in range(10)),
    ]
    write_mirror(tmp_path, "a.jsonl", *rows)
    write_mirror(tmp_path, "b.jsonl", ("9", "Find $x$!?", "5"), ("10", "Find x:", "5"), ("11", "alone", "???"))
    train, validation, report = prepare_dataset(
        tmp_path, {"a": table("a.jsonl"), "b": table("b.jsonl")}, 3, tmp_path, max_problem_characters=30
    )
    assert report["excluded"] == {
        "conflicting golds": {"count": 2, "ids": ["a/3", "a/4"]},
        "duplicate": {"count": 2, "ids": ["a/2", "b/10"]},
        "empty gold": {"count": 1, "ids": ["a/6"]},
        "empty problem": {"count": 1, "ids": ["a/5"]},
        "problem too long": {"count": 1, "ids": ["a/8"]},
        "unparsable gold": {"count": 1, "ids": ["a/7"]},
    }
    assert report["golds_read_as_text"] == {"count": 1, "ids": ["b/11"]}
    # 21 rows read, 8 left out; "Find $x$!?" keeps its '!', so it is a problem of its own.
    assert {row.id for row in train + validation} == {"a/1", "b/9", "b/11", *(f"a/good{n}" for n in range(10))}
    # 3 validation rows shared 18 : 3 are 2.57 and 0.43: 2 and 0, and the one left goes to the larger remainder.
    assert report["parts"] == {
        "a": {"read": 18, "kept": 8, "validation": 3},
        "b": {"read": 3, "kept": 2, "validation": 0},
    }
    assert report["kept"] == len(train) == 10
    assert report["validation"] == len(validation) == 3
    printed = capsys.readouterr().err
    assert "set, a: 18 read, 8 kept, 3 validation\n" in printed
    assert "set: excluded 2, conflicting golds\n" in printed


def test_what_is_held_out_depends_on_the_id_alone(tmp_path):
    rows = [(str(n), f"problem {n}", str(n)) for n in range(40)]
    held_out = []
    for folder, listed in (("one", rows), ("two", rows[::-1])):
        (tmp_path / folder).mkdir()
        write_mirror(tmp_path / folder, "a.jsonl", *listed)
        train, validation, _ = prepare_dataset(tmp_path / folder, {"a": table("a.jsonl")}, 10, tmp_path / folder)
        assert len(train) == 30
        held_out.append([row.id for row in validation])
    assert held_out[0] == held_out[1]
    assert held_out[0] != [f"a/{n}" for n in range(10)]


def test_a_table_that_repeats_generated_validation_rows_loses_them(tmp_path):
    """The part 'b' publishes a problem that the generator holds out: it must not come back into training."""
    _, validation, _ = prepare_dataset(tmp_path, {"made": generated(sums=30)}, 2)
    # 2 validation rows shared 2 : 30 are 0.125 and 1.875: none from the table, both from the generator.
    write_mirror(tmp_path, "b.jsonl", ("copy", f" {validation[0].problem} ", validation[0].answer[0]), ("x", "p", "1"))
    train, validation, report = prepare_dataset(tmp_path, {"b": table("b.jsonl"), "made": generated(sums=30)}, 2, tmp_path)
    assert report["excluded"] == {"duplicate": {"count": 1, "ids": ["b/copy"]}}
    assert not {normalized(row.problem) for row in train} & {normalized(row.problem) for row in validation}
    assert len(validation) == 2


def test_too_few_rows_to_hold_out(tmp_path):
    write_mirror(tmp_path, "a.jsonl", ("1", "p", "1"), ("2", "q", "2"))
    with pytest.raises(
        ConfigError, match=r"part 'a': 2 of its 2 valid rows would be held out for validation; lower validation_rows"
    ):
        prepare_dataset(tmp_path, {"a": table("a.jsonl")}, 2, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_benchmark_keeps_its_rows_and_reports_repeats(tmp_path):
    rows = [("1", "Find $x$.", ["5", "6"]), ("2", "find x", "7"), ("3", "no gold", ""), ("4", "l" * 10**4, "1")]
    write_mirror(tmp_path, "a.jsonl", *rows)
    problems, report = prepare_benchmark(tmp_path, table("a.jsonl"), tmp_path)
    assert [(row.id, row.answer) for row in problems] == [("bench/1", ("5", "6")), ("bench/2", ("7",)), ("bench/4", ("1",))]
    assert report["kept"] == 3
    assert report["parts"] == {"bench": {"read": 4, "kept": 3}}
    assert report["excluded"] == {"empty gold": {"count": 1, "ids": ["bench/3"]}}
    assert report["duplicate_groups"] == [["bench/1", "bench/2"]]


def test_a_generated_benchmark_comes_from_the_test_split(tmp_path):
    problems, report = prepare_benchmark(tmp_path, generated(sums=5))
    assert [row.id for row in problems] == [f"bench/sums-test-{n:05d}" for n in range(5)]
    assert report["excluded"] == {}


def test_a_benchmark_without_a_usable_row(tmp_path):
    write_mirror(tmp_path, "a.jsonl", ("1", "p", ""))
    with pytest.raises(ConfigError, match=r"benchmark 'bench': none of its 1 rows is valid: \{'empty gold': 1\}"):
        prepare_benchmark(tmp_path, table("a.jsonl"), tmp_path)


def test_the_same_settings_give_the_same_bytes(tmp_path):
    files = []
    for _ in range(2):
        prepare_dataset(tmp_path, {"made": generated(stories=50)}, 10)
        files.append([(tmp_path / name).read_bytes() for name in ("train.parquet", "validation.parquet", "report.json")])
    assert files[0] == files[1]


@given(st.integers(0, 500), st.lists(st.integers(1, 10**4), min_size=1, max_size=6))
def test_shares_are_whole_exact_and_fair(total, weights):
    named = {str(place): weight for place, weight in enumerate(weights)}
    shares = proportional(total, named)
    assert sum(shares.values()) == total
    assert all(abs(shares[name] - total * weight / sum(weights)) < 1 for name, weight in named.items())


@needs_shared
@pytest.mark.parametrize(
    ("name", "count"),
    [("aime24", 30), ("aime25", 30), ("amc", 83), ("minerva_math", 272), ("olympiadbench", 675), ("math500", 500)],
)
def test_real_benchmarks_keep_every_row(tmp_path, name, count):
    problems, report = prepare_benchmark(tmp_path, table(f"eval/{name}.jsonl"), SHARED)
    assert len(problems) == count
    assert report["excluded"] == {}


@needs_shared
def test_real_training_set(tmp_path):
    """DAPO-Math-17k without its exact copies still holds copies in other formatting, some with disagreeing golds."""
    train, validation, report = prepare_dataset(tmp_path, {"dapo": table("train/dapo_math_17k.parquet")}, 256, SHARED)
    excluded = report["excluded"]
    assert set(excluded) == {"conflicting golds", "duplicate"}
    # The same text but for a colon and line breaks, golds 6 and 12.
    assert {"dapo/00274", "dapo/07444"} <= set(excluded["conflicting golds"]["ids"])
    assert report["kept"] + report["validation"] + sum(reason["count"] for reason in excluded.values()) == 17176
    problems = [normalized(row.problem) for row in train + validation]
    assert len(problems) == len(set(problems))


def test_nan_and_infinity_are_counted_and_listed(tmp_path):
    golds = ["NaN", "Infinity", "-Infinity", '"nan"', "7", "8"]
    lines = [f'{{"problem": "p{number}", "answer": {gold}}}' for number, gold in enumerate(golds)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    _, _, report = prepare_dataset(tmp_path, {"a": table("a.jsonl")}, 1, tmp_path)
    assert report["excluded"] == {"gold is NaN or infinite": {"count": 4, "ids": [f"a/{n:05d}" for n in range(4)]}}


def test_the_report_says_which_rows_were_read(tmp_path):
    """A mirror file and a hub branch can change without the settings: rows as read have a hash, in whatever file they are."""
    found = []
    for answer, name in (("1", "a.jsonl"), ("2", "a.jsonl"), ("1", "b.jsonl")):
        write_mirror(tmp_path, name, *[(str(n), f"p{n}", answer) for n in range(3)])
        prepare_dataset(tmp_path, {"a": table(name)}, 1, tmp_path)
        found.append(json.loads((tmp_path / "report.json").read_text())["read_sha256"]["a"])
    assert found[0] == found[2] != found[1]
    _, report = prepare_benchmark(tmp_path, table("b.jsonl"), tmp_path)
    assert len(report["read_sha256"]["bench"]) == 64


def test_programs_are_held_to_their_tests(tmp_path, params):
    settings = BenchmarkSettings(name="loops", benchmark=params.benchmarks["loops"], data_mirror=None)
    assert prepare.prepare_benchmark(settings, tmp_path)["kept"] == 100
    row = load_problems(tmp_path / "problems.parquet")[0]
    assert invalid_reason(row, grader="code") is None
    assert invalid_reason(dataclasses.replace(row, answer=("{}",)), grader="code") == "faulty tests"
    # The same words with other tests are no copy of it: neither can be trusted.
    other = dataclasses.replace(row, id="other", answer=(row.answer[0].replace("1", "2"),))
    assert duplicates_to_drop([row, other], "code") == {row.id: "conflicting golds", "other": "conflicting golds"}
    assert duplicates_to_drop([row, dataclasses.replace(row, id="other")], "code") == {"other": "duplicate"}
