"""Programming problems of published sets: packed tests that are no tests, and the forms that one test can have."""

import base64
import json
import pickle
import pickletools
import zlib

import pytest

from sfpo.config import TableRows
from sfpo.data.cleaning import invalid_reason
from sfpo.data.code_sets import LAYOUTS, pickled_text, read_problem
from sfpo.data.sources import read_rows
from sfpo.rewards.code_gold import check_tests, inflate
from sfpo.schema import ConfigError, parse


class Runs:
    """What a pickle can do that is loaded."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


class Text(str):
    pass


def livecodebench(private, public="[]", metadata="{}"):
    record = {"question_content": "q", "starter_code": "", "public_test_cases": public, "private_test_cases": private}
    return record | {"metadata": metadata}


def packed(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


TESTS = json.dumps([{"input": "1\n", "output": "1é\n", "testtype": "stdin"}] * 40)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["", "short", TESTS, "x" * 300, "\\ \n \x00 \U0001d465"])
def test_a_pickled_text_is_read_in_every_protocol(protocol, text):
    assert pickled_text(pickle.dumps(text, protocol)) == text
    assert pickled_text(pickletools.optimize(pickle.dumps(text, protocol))) == text


@pytest.mark.parametrize(
    ("pickled", "fault"),
    [
        (pickle.dumps(Runs()), "a pickle with opcode STACK_GLOBAL"),
        (pickle.dumps(Runs(), 0), "a pickle with opcode GLOBAL"),
        (pickle.dumps([TESTS, Runs()]), "a pickle with opcode EMPTY_LIST"),
        (pickle.dumps(Text("a")), "a pickle with"),
        (pickle.dumps(["a"]), "a pickle with opcode EMPTY_LIST"),
        (pickle.dumps(b"a"), "a pickle with opcode SHORT_BINBYTES"),
        (pickle.dumps(7), "a pickle with opcode BININT1"),
        (pickle.dumps(2**9000), "a pickle with opcode LONG4"),
        (b"P1\n.", "a pickle with opcode PERSID"),
        (b"\x82\x01.", "a pickle with opcode EXT1"),
        (b"Va\nVb\n.", "a pickle of 2 strings"),
        (b".", "a pickle of 0 strings"),
        (pickle.dumps("a") + pickle.dumps("b"), "trailing data"),
        (pickle.dumps("a")[:-1], "exhausted before seeing STOP"),
        (b"X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),  # a size that is not there
        (b"\x8d" + b"\xff" * 7 + b"\x7fabc.", "expected"),
        (b"", "exhausted"),
        (b"\xff\xff", "at position 0"),
    ],
)
def test_any_other_pickle_is_refused(pickled, fault):
    with pytest.raises(ValueError, match=fault):
        pickled_text(pickled)


@pytest.mark.parametrize(
    "private",
    [
        packed(pickle.dumps(Runs())),
        packed(pickle.dumps(TESTS[:-1])),
        packed(pickle.dumps(TESTS))[:-8],
        base64.b64encode(zlib.compress(pickle.dumps(TESTS))[:-9]).decode(),
        packed(pickle.dumps("[1, 2]")),
        packed(pickle.dumps("7")),
        packed(pickle.dumps("[" * 10**5)),
        "not base64",
        "",
        None,
        7,
        "[{}]",
        '[{"input": "1", "output": "1", "testtype": "interactive"}]',
        '[{"input": "1", "output": "1", "testtype": "stdin"}, {"input": "1", "output": "1", "testtype": "functional"}]',
        '[{"input": "{", "output": "1", "testtype": "functional"}]',
    ],
)
def test_a_row_whose_tests_cannot_be_read_is_counted(tmp_path, private, caplog):
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps(livecodebench(one, metadata='{"func_name": "f"}')) + "\n"
            for one in (private, packed(pickle.dumps(TESTS)))
        )
    )
    bad, good = read_rows("part", table("livecodebench"), "test", str(tmp_path))
    assert invalid_reason(bad, grader="code") == "faulty tests" and invalid_reason(good, grader="code") is None
    assert "rows.jsonl, line 1: its tests cannot be read" in caplog.text


def table(layout, **keys):
    return TableRows(source="hub", layout=layout, mirror="rows.jsonl", **keys)


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("sfpo.data.code_sets.inflate", lambda data: inflate(data, 10**6))
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        read_problem("livecodebench", livecodebench(packed(bytes(10**7))))


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("2.0 seconds", 2.0),
        ("1 second", 1.0),
        ("500 ms", 0.5),
        ("None", None),
        (None, None),
        ("9999 seconds", 60.0),
        ("0 s", None),
    ],
)
def test_the_time_limit_of_taco(limit, seconds):
    tests = json.dumps({"inputs": ["1"], "outputs": ["1"]})
    gold = read_problem("apps", {"question": "q", "input_output": tests, "time_limit": limit}).tests
    assert gold.get("time_limit_seconds") == seconds
    assert check_tests(json.dumps(gold)).time_limit_seconds == seconds


def test_a_tested_function_is_the_one_unknown_name():
    tests = ["assert math.isclose(f(2), 1.41, rel_tol=0.1)", "assert len(set(f(n) for n in range(3))) == 3"]
    record = {"text": "Root.", "test_list": tests, "test_setup_code": "", "code": "c"}
    found = read_problem("mbpp", record)
    assert found.tests == {"function": "f", "check": "\n".join(tests)} and found.solution == "c"
    sanitized = {"prompt": "Root.", "test_list": tests, "test_imports": ["import math"], "code": "c"}
    assert read_problem("mbpp", sanitized).tests["preamble"] == "import math"
    total = record | {"test_list": ["assert sum(10, 15) == 6", "assert str(sum(4, 6)) == '3'"]}
    assert read_problem("mbpp", total).tests["function"] == "sum"
    for other in ("assert f(g(1))", "assert True", "assert (", "assert len(str(1)) == 1", ""):
        with pytest.raises(ValueError):
            read_problem("mbpp", record | {"test_list": [other]})


def test_each_layout_names_its_columns():
    """A record with the needed columns alone is read, or refused as faulty: never a KeyError."""
    for name, layout in LAYOUTS.items():
        for value in ("", "x", "[]", None, 7, ["x"]):
            try:
                read_problem(name, dict.fromkeys(layout.needed, value))
            except ValueError:
                continue


def test_an_empty_problem_is_left_out(tmp_path):
    record = {"question": "  ", "input_output": json.dumps({"inputs": ["1"], "outputs": ["1"]})}
    (tmp_path / "rows.jsonl").write_text(json.dumps(record))
    (row,) = read_rows("part", table("apps"), "train", str(tmp_path))
    assert invalid_reason(row, grader="code") == "empty problem"


def test_dates_are_kept_as_texts(tmp_path):
    days = ["2024-07-31T23:59:59", "2024-08-01T00:00:00", "2025-01-31T00:00:00", "2025-02-01T00:00:00"]
    lines = [json.dumps(livecodebench(packed(pickle.dumps(TESTS))) | {"contest_date": day}) for day in days]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = table("livecodebench", keep={"column": "contest_date", "between": ["2024-08-01", "2025-02-01"]})
    assert [row.id for row in read_rows("part", rows, "test", str(tmp_path))] == ["part/00001", "part/00002"]
    numbers = table("livecodebench", keep={"column": "contest_date", "between": [1, 2]})
    with pytest.raises(ConfigError, match="line 1: `keep` compares numbers; the value is of type str"):
        read_rows("part", numbers, "test", str(tmp_path))
    none = table("livecodebench", keep={"column": "contest_date", "between": ["2026", "2027"]})
    with pytest.raises(ConfigError, match="part 'part': no row is kept; correct `keep`"):
        read_rows("part", none, "test", str(tmp_path))


def test_a_layout_has_its_own_columns():
    with pytest.raises(ConfigError, match="answer and problem: layout 'apps' defines its columns; remove these keys"):
        parse(TableRows, {"source": "hub", "layout": "apps", "answer": "a", "problem": "p"}, "here")
    with pytest.raises(ConfigError, match="layout = 'taco'"):
        parse(TableRows, {"source": "hub", "layout": "taco"}, "here")
