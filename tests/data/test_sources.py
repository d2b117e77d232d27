import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import serve

from sfpo.config import GeneratedRows, TableRows
from sfpo.data.golds import ANSWER_FORMATS, golds
from sfpo.data.rows import Row
from sfpo.data.sources import check_mirror, read_rows
from sfpo.schema import ConfigError

SHARED = Path(__file__).parents[2].parent / "shared/data"
REPOSITORY = Path(__file__).parents[2]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data mirror ../shared/data is not here")


def table(mirror="rows.jsonl", **keys):
    return TableRows(source="hub", id="owner/name", mirror=mirror, **keys)


def write_jsonl(folder, *lines):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "rows.jsonl").write_text(text)


def write_parquet(folder, **columns):
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def fault_of(folder, rows=None):
    """The message, which the pre-flight check and the reading give alike."""
    messages = []
    for call in (check_mirror, lambda rows, mirror: read_rows("part", rows, "train", mirror)):
        with pytest.raises(ConfigError) as error:
            call(rows or table(), str(folder))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    return messages[0]


# ------------------------------------------------------------------------------------- generated


def test_generated_rows_carry_the_part_in_their_id():
    rows = GeneratedRows(source="generated", tasks={"sums": 2, "chains": 1})
    assert [row.id for row in read_rows("made", rows, "test", "/nowhere")] == [
        "made/sums-test-00000",
        "made/sums-test-00001",
        "made/chains-test-00000",
    ]


def test_the_check_finds_unknown_tasks_and_impossible_counts():
    check_mirror(GeneratedRows(source="generated", tasks={"sums": 100}), None, "test")
    with pytest.raises(ConfigError, match="no generated task 'products'"):
        check_mirror(GeneratedRows(source="generated", tasks={"products": 1}), None)
    with pytest.raises(ConfigError, match=r"task 'sums' has .* test problems; 2000 were requested"):
        check_mirror(GeneratedRows(source="generated", tasks={"sums": 2000}), None, "test")


# ------------------------------------------------------------------------------------- mirror files


def test_jsonl_takes_the_better_fields_and_every_shape_of_answer(tmp_path):
    write_jsonl(
        tmp_path,
        {"id": "set/7", "problem": " plain ", "answer": "\\frac{1}{2}"},
        {"id": "set/8", "problem": "relay T", "problem_fixed": "T=3", "answer": ["1", "2"]},
        {"id": "set/9", "problem": "units", "answer": "3e6", "answer_latex": "3 \\times 10^6"},
        {"problem": "no id", "answer": 7, "other": True},
        {"id": 12, "problem": "numbers", "answer": 142.0},
        {"id": "no", "problem": None, "answer": None},
    )
    assert read_rows("part", table(), "train", str(tmp_path)) == [
        Row("part/7", "plain", ("\\frac{1}{2}",)),
        Row("part/8", "T=3", ("1", "2")),
        Row("part/9", "units", ("3 \\times 10^6",)),
        Row("part/00003", "no id", ("7",)),
        Row("part/12", "numbers", ("142",)),
        Row("part/no", "", ("",)),
    ]
    check_mirror(table(), str(tmp_path))


@pytest.mark.parametrize(
    ("published", "gold"),
    [("033", "33"), ("000", "0"), ("-05", "-5"), ("0.5", "0.5"), (33.0, "33"), (2.5, "2.5"), (" 7 ", "7"), ("0x", "0x")],
)
def test_whole_numbers_are_written_in_one_way(tmp_path, published, gold):
    write_jsonl(tmp_path, {"problem": "p", "answer": published})
    assert read_rows("part", table(), "train", str(tmp_path))[0].answer == (gold,)


def test_parquet(tmp_path):
    write_parquet(tmp_path, id=["a/1", "a/2"], problem=["p", "q"], answer=["1", "2"], problem_fixed=[None, "q!"], level=[1, 2])
    rows = table("rows.parquet")
    check_mirror(rows, str(tmp_path))
    assert read_rows("part", rows, "train", str(tmp_path)) == [Row("part/1", "p", ("1",)), Row("part/2", "q!", ("2",))]


def test_the_hub_settings_do_not_touch_a_mirror(tmp_path):
    write_jsonl(tmp_path, {"problem": "p", "answer": "1"}, {"problem": "q", "answer": "2"})
    rows = table(problem="question", answer="solution", answer_format="last_boxed", first_rows=1)
    assert [row.answer for row in read_rows("part", rows, "train", str(tmp_path))] == [("1",), ("2",)]


def test_a_broken_line_is_named_with_the_remedy(tmp_path):
    write_jsonl(tmp_path, {"problem": "p", "answer": "1"}, '{"problem": "q", "answer')
    message = fault_of(tmp_path)
    assert message.startswith(f"{tmp_path}/rows.jsonl, line 2: not valid JSON (Invalid control character")
    assert message.endswith(
        "replace the file, correct `mirror` or `data_mirror`, or set data_mirror to null to download 'owner/name'"
    )


def test_bytes_that_are_no_text_are_a_broken_line(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"problem": "\xff", "answer": "1"}\n')
    assert "rows.jsonl, line 1: not valid JSON ('utf-8' codec can't decode byte 0xff" in fault_of(tmp_path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    assert fault_of(tmp_path, table("eval/none.jsonl")) == (
        f"{tmp_path}/eval/none.jsonl: no such file; replace the file, correct `mirror` or `data_mirror`, "
        "or set data_mirror to null to download 'owner/name'"
    )


def test_without_a_hub_id_no_download_is_offered(tmp_path):
    rows = TableRows(source="hub", mirror="none.jsonl")
    assert fault_of(tmp_path, rows).endswith("correct `mirror` or `data_mirror`")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"problem": "p", "gold": "1"}, "line 1: no column answer (there are: gold, problem)"),
        ({"answer": "1"}, "line 1: no column problem (there are: answer)"),
        ([1, 2], "line 1: a list, where an object is expected"),
        ('{"problem": "p", "answer": "1", "answer": "2"}', "line 1: duplicate key 'answer'"),
        ('{"problem": "p", "answer": "1", "more": {"a": 1, "a": 1}}', "line 1: duplicate key 'a'"),
        (
            '{"problem": "p \\ud800 q", "answer": "1"}',
            "line 1: the problem contains a lone surrogate (U+D800, character 2)",
        ),
        ('{"problem": "p", "answer": "\\udfff"}', "line 1: the answer contains a lone surrogate (U+DFFF, character 0)"),
        ('{"problem": "p", "answer": ["1", "\\udfff"]}', "line 1: the answer contains a lone surrogate"),
        ('{"problem": "p", "answer": "1", "id": "\\ud834"}', "line 1: the id contains a lone surrogate"),
        ("[" * 10**5, "line 1: not valid JSON"),
        ({"problem": 5, "answer": "1"}, "line 1: the problem is of type int, not a string"),
        (
            {"problem": "p", "answer": {"a": 1}},
            "line 1: the answer is of type dict; allowed are a string, a number, or a list of them",
        ),
        ({"problem": "p", "answer": True}, "line 1: the answer is of type bool"),
    ],
)
def test_faults_of_a_line(tmp_path, line, message):
    write_jsonl(tmp_path, line)
    assert message in fault_of(tmp_path)


def test_an_id_that_is_there_twice(tmp_path):
    write_jsonl(tmp_path, {"id": "a/1", "problem": "p", "answer": "1"}, {"id": "b/1", "problem": "q", "answer": "2"})
    assert "rows.jsonl, line 2: the id '1' (the part after the last '/') occurs twice" in fault_of(tmp_path)


@pytest.mark.parametrize("given", ['{"a": 1}', "true", '""', '"math/"', "[1]"])
def test_an_id_that_is_none(tmp_path, given):
    (tmp_path / "x.jsonl").write_text(f'{{"problem": "p", "answer": "5", "id": {given}}}\n')
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 1: the id is .*; allowed are a number, or a string"):
        read_rows("m", TableRows(source="hub", mirror="x.jsonl"), "test", str(tmp_path))


def test_a_column_of_bytes_that_are_no_text(tmp_path):
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"problem": ["p"], "answer": text}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"x\.parquet, after row 0: not a valid parquet file .*0xff"):
        read_rows("m", TableRows(source="hub", mirror="x.parquet"), "test", str(tmp_path))


def test_an_empty_file_is_named(tmp_path):
    write_jsonl(tmp_path)
    assert fault_of(tmp_path).startswith(f"{tmp_path}/rows.jsonl: the file is empty; replace the file")
    (tmp_path / "rows.jsonl").write_text("\n  \n")
    assert fault_of(tmp_path).startswith(f"{tmp_path}/rows.jsonl: the file has no rows; replace the file")
    (tmp_path / "rows.parquet").touch()
    assert fault_of(tmp_path, table("rows.parquet")).startswith(f"{tmp_path}/rows.parquet: the file is empty; replace")
    write_parquet(tmp_path, problem=pa.array([], pa.string()), answer=pa.array([], pa.string()))
    assert fault_of(tmp_path, table("rows.parquet")).startswith(f"{tmp_path}/rows.parquet: the file has no rows; replace")


def test_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_text('\ufeff{"problem": "p", "answer": "1"}\r\n\n{"problem": "q", "answer": "2"}\n   \n\n')
    assert [row.id for row in read_rows("part", table(), "train", str(tmp_path))] == ["part/00000", "part/00001"]
    check_mirror(table(), str(tmp_path))
    write_jsonl(tmp_path, {"problem": "p", "answer": "1"}, "", {"problem": 5, "answer": "1"})
    assert "rows.jsonl, line 3: the problem is of type int" in fault_of(tmp_path)  # as an editor counts


def test_surrogates_in_pairs_are_text(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"problem": "\\ud835\\udc65 = 1", "answer": "1"}\n')
    assert read_rows("part", table(), "train", str(tmp_path))[0].problem == "\U0001d465 = 1"


def test_two_columns_of_one_name(tmp_path):
    columns = [pa.array(["p"]), pa.array(["1"]), pa.array(["2"])]
    pq.write_table(pa.Table.from_arrays(columns, ["problem", "answer", "answer"]), tmp_path / "rows.parquet")
    assert "rows.parquet: duplicate column 'answer'; replace the file" in fault_of(tmp_path, table("rows.parquet"))


@pytest.mark.parametrize(
    ("values", "golds"),
    [
        (pa.array([Decimal("33.00"), Decimal("-0.50"), Decimal("1200.25")], pa.decimal128(10, 2)), ["33", "-0.5", "1200.25"]),
        (pa.array([Decimal("1E+3"), Decimal("0"), Decimal("7")], pa.decimal256(50, 0)), ["1000", "0", "7"]),
        (pa.array([0.1, 33.0, -2.5], pa.float32()), ["0.1", "33", "-2.5"]),  # not 0.10000000149011612
        (pa.array([0.1, 33.0, -2.5], pa.float64()), ["0.1", "33", "-2.5"]),
        (pa.array([1, 33, 7], pa.uint8()), ["1", "33", "7"]),
        (pa.array(["1", "33", "1"]).dictionary_encode(), ["1", "33", "1"]),
        (pa.array(["1", "33", "7"], pa.large_string()), ["1", "33", "7"]),
        (pa.array([["1"], ["33", "34"], []], pa.list_(pa.string())), ["1", "33,34", ""]),
    ],
)
def test_columns_of_other_types(tmp_path, values, golds):
    write_parquet(tmp_path, problem=["p", "q", "r"], answer=values)
    rows = read_rows("part", table("rows.parquet"), "train", str(tmp_path))
    assert [",".join(row.answer) for row in rows] == golds


@pytest.mark.parametrize(("values", "kind"), [(pa.array([b"1"]), "bytes"), (pa.array([0], pa.date32()), "date")])
def test_columns_that_are_no_answers(tmp_path, values, kind):
    write_parquet(tmp_path, problem=["p"], answer=values)
    with pytest.raises(ConfigError, match=f"rows.parquet, row 1: the answer is of type {kind}"):
        read_rows("part", table("rows.parquet"), "train", str(tmp_path))


def test_a_parquet_file_without_a_column(tmp_path):
    write_parquet(tmp_path, id=["1"], problem=["p"])
    assert "rows.parquet: no column answer (there are: id, problem); replace the file" in fault_of(
        tmp_path, table("rows.parquet")
    )


def test_a_damaged_parquet_file(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "rows.parquet: not a valid parquet file (" in fault_of(tmp_path, table("rows.parquet"))


def test_another_kind_of_file(tmp_path):
    assert "allowed are files that end in .jsonl or .parquet" in fault_of(tmp_path, table("rows.csv"))


def test_a_mirror_folder_without_a_mirror_key(tmp_path):
    message = fault_of(tmp_path, table(mirror=None))
    assert "the rows of owner/name have no `mirror` key: give their file under that folder" in message


def test_neither_hub_id_nor_mirror_folder():
    rows = TableRows(source="hub", mirror="rows.jsonl")
    for call in (check_mirror, lambda rows, mirror: read_rows("part", rows, "train", mirror)):
        with pytest.raises(ConfigError, match=r"can only be read from a mirror: set data_mirror to the folder"):
            call(rows, None)


def test_a_hub_id_alone_passes_the_check():
    check_mirror(table(mirror=None), None)


# ------------------------------------------------------------------------------------- answer formats


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so \\boxed{1}, no: \\boxed{2}.", "2"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{ \\left\\{ x }", "\\left\\{ x"),
        ("it is \\fbox{7}", "7"),
        ("it is $\\boxed 7$", "7"),
        ("it is $\\boxed7.$", "7"),
        ("it is \\boxed -3/4, as asked", "-3/4"),
        ("so \\boxed{5}. (The answer goes in \\boxed, as asked.)", "5"),  # in prose
        ("Put it in \\boxed{}: \\boxed{5}. I used \\boxed to mark it.", "5"),
        ("The answer goes in \\boxed, as asked.", ""),
        ("\\boxed{}", ""),
        ("\\boxed{never closed", ""),
        ("nothing", ""),
    ],
)
def test_last_boxed(solution, answer):
    assert ANSWER_FORMATS["last_boxed"]("row", solution) == answer


def test_other_answer_formats():
    assert ANSWER_FORMATS["first_of_list"]("row", ["$2$, $3$", "9"]) == "2, 3"
    assert ANSWER_FORMATS["first_of_list"]("row", []) == ""
    assert ANSWER_FORMATS["after_hashes"]("row", "6 * <<6*2=12>>\n#### 1,200") == "1200"
    assert ANSWER_FORMATS["after_hashes"]("row", "#### $1,234,567.50 ") == "$1234567.50"
    assert ANSWER_FORMATS["after_hashes"]("row", "#### (1,2)") == "(1,2)"
    assert ANSWER_FORMATS["after_hashes"]("row", "#### (1,200)") == "(1,200)"  # two coordinates
    assert ANSWER_FORMATS["after_hashes"]("row", "#### 1,2") == "1,2"
    assert ANSWER_FORMATS["after_hashes"]("row", "#### 1,200,30") == "1,200,30"
    assert ANSWER_FORMATS["after_hashes"]("row", "no mark") == ""
    assert ANSWER_FORMATS["plain"]("row", ["1", "2"]) == ["1", "2"]
    with pytest.raises(ConfigError, match="row 3: answer_format is first_of_list, but the answer is of type str"):
        ANSWER_FORMATS["first_of_list"]("row 3", "9")


@pytest.mark.parametrize(
    ("published", "gold"),
    [
        ("\\boxed{7}", "7"),
        ("$\\boxed 7$", "7"),
        ("The answer is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("write \\boxed", "write \\boxed"),  # nothing in it: stays, and is found when golds are checked
        ("7", "7"),
    ],
)
def test_a_gold_that_comes_in_its_box(published, gold):
    assert golds("row", published) == (gold,)
    assert golds("row", [published, "1"]) == (gold, "1")


# ------------------------------------------------------------------------------------- the hub

READ = """
import json, sys
from sfpo.config import TableRows
from sfpo.data.sources import read_rows
rows = read_rows("part", TableRows(**json.loads(sys.argv[1])), "train", None)
print(json.dumps([[row.id, row.problem, row.answer] for row in rows]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Two published tables: a parquet file with worked solutions, and a jsonl file with lists of answers."""
    root = tmp_path_factory.mktemp("hub")
    (root / "owner/solved/data").mkdir(parents=True)
    (root / "owner/listed").mkdir()
    columns = {"question": ["1+1", "2+2", "3+3"], "solution": ["so \\boxed{2}", "\\boxed{\\frac{8}{2}}", "?"]}
    pq.write_table(pa.table(columns), root / "owner/solved/data/train-00000-of-00001.parquet")
    (root / "owner/listed/test.jsonl").write_text('{"question": "q", "final_answer": ["$5$"], "id": 4}\n')
    with serve(root) as endpoint:
        yield endpoint


def read_from_hub(endpoint, home, **rows):
    """In a process of its own: the clients read HF_ENDPOINT once, when they are imported."""
    settings = json.dumps({"source": "hub", "problem": "question", **rows})
    clients = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", READ, settings], env=os.environ | clients, capture_output=True, text=True)


def test_rows_from_the_hub(hub, tmp_path):
    solved = read_from_hub(hub, tmp_path, id="owner/solved", answer="solution", answer_format="last_boxed", first_rows=2)
    assert json.loads(solved.stdout) == [["part/00000", "1+1", ["2"]], ["part/00001", "2+2", ["\\frac{8}{2}"]]]
    listed = read_from_hub(hub, tmp_path, id="owner/listed", split="test", answer="final_answer", answer_format="first_of_list")
    assert json.loads(listed.stdout) == [["part/00000", "q", ["5"]]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"id": "owner/none"}, r"hub data set 'owner/none', split 'train' cannot be loaded \(.*doesn't exist"),
        ({"id": "owner/solved", "split": "test"}, r"split 'test' cannot be loaded \(Unknown split"),
        ({"id": "owner/solved"}, r"hub data set 'owner/solved': no column answer \(there are: question, solution\)"),
    ],
)
def test_faults_of_the_hub(hub, tmp_path, rows, message):
    finished = read_from_hub(hub, tmp_path, **rows)
    assert finished.returncode == 1
    assert re.search(rf"ConfigError: .*{message}", finished.stderr), finished.stderr


# ------------------------------------------------------------------------------------- the real files


@needs_shared
@pytest.mark.parametrize(
    ("mirror", "count"),
    [
        ("eval/math500.jsonl", 500),
        ("eval/aime24.jsonl", 30),
        ("eval/aime25.jsonl", 30),
        ("eval/amc.jsonl", 83),
        ("eval/minerva_math.jsonl", 272),
        ("eval/olympiadbench.jsonl", 675),
        ("train/math_train.parquet", 7497),
        ("train/dapo_math_17k.parquet", 17176),
    ],
)
def test_real_mirror_files(mirror, count):
    check_mirror(table(mirror), str(SHARED))
    rows = read_rows("part", table(mirror), "test", str(SHARED))
    assert len(rows) == len({row.id for row in rows}) == count
    assert all(row.problem and all(row.answer) for row in rows)


@needs_shared
def test_real_olympiad_rows_have_lists_and_solvable_relays():
    rows = {row.id: row for row in read_rows("part", table("eval/olympiadbench.jsonl"), "test", str(SHARED))}
    lines = [json.loads(line) for line in (SHARED / "eval/olympiadbench.jsonl").read_text().splitlines()]
    assert sum(len(row.answer) > 1 for row in rows.values()) == sum(isinstance(line["answer"], list) for line in lines) == 91
    fixed = [line for line in lines if "problem_fixed" in line]
    assert len(fixed) == 15
    for line in fixed:
        assert rows[line["id"].replace("olympiadbench", "part")].problem == line["problem_fixed"].strip()
