"""The benchmarks run, and their sums are right. That the figures are good is for ``make bench`` to say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arms import Arm, ArmFailed, Options, Turns, take_turns
from benchmarks.figures import paired_ratio
from benchmarks.grpo_step import over_ideal
from benchmarks.run import BENCHMARKS
from benchmarks.scaling import slope
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
        "one": [Arm(count, threads, {"seconds": seconds}) for threads, seconds in ((1, 3.0), (2, 2.0))],
        "other": [Arm(count, 1, {"seconds": 4.0})],
    }
    measured = take_turns(sides, Options("", repetitions=2, patience=0.0))
    assert measured["one"].chosen == {"threads": 2, "seconds": 2.0} and len(measured["one"].trials) == 2
    assert measured["one"].values("done") == [3, 4]  # one to warm up, one trial
    assert measured["other"].values("done") == [2, 3] and measured["other"].trials == []
    ratio = paired_ratio(measured["other"].values(), measured["one"].values())
    assert (ratio.median, ratio.min, ratio.max, ratio.repetitions) == (2.0, 2.0, 2.0, 2)


def test_an_arm_that_dies_is_named():
    with pytest.raises(ArmFailed, match="count"):
        take_turns({"one": [Arm(count, 1, {"seconds": 1.0, "fail": True})]}, Options("", repetitions=1, patience=0.0))


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
    for before in (f"head\n{BEGIN}\nold\n{END}\ntail\n", page):
        page.write_text(before if isinstance(before, str) else before.read_text())
        summarize(tmp_path, BENCHMARKS, page)
        text = page.read_text()
        assert text.startswith("head\n") and text.endswith("tail\n") and "old" not in text
        assert text.count("| GRPO step, SmolLM2-135M: TRL's time / ours | 3.46 | 3 to 4 | at least 3: met |") == 1
    assert json.loads((tmp_path / "summary.json").read_text())["grpo_step_speedup_vs_trl"] == 3.456
    assert (tmp_path / "summary.png").is_file()


def test_results_of_different_commits_are_told_as_such(tmp_path):
    for name, commit in (("memory", "abc"), ("planner", "abc"), ("logprobs", "def-dirty")):
        made_by = {"versions": {"torch": "2.13", "commit": commit}, "machine": {"cpu": "some CPU", "cores": 2, "gpus": ["A"]}}
        one = {"median": 1.0, "min": 1.0, "max": 1.0, "repetitions": 1}
        (tmp_path / f"{name}.json").write_text(json.dumps({"figures": {name: one}, "sides": {}, "minutes": 1.0, **made_by}))
    summarize(tmp_path, BENCHMARKS, None)
    assert "some CPU, 2 cores, A; torch 2.13, commit abc and def-dirty. " in (tmp_path / "summary.md").read_text()


@pytest.mark.slow
def test_the_gpu_check_runs_where_there_is_no_gpu_and_says_so(tmp_path):
    subprocess.run([sys.executable, "-m", "benchmarks.gpu_check", "--quick", "--out", str(tmp_path)], check=True, cwd=PROJECT)
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert bool(found["left_out"]) == (not found["machine"]["gpus"])
    for arm in ("grpo", "sfpo"):
        assert 0 < found[arm]["gap_after_wake"] < 0.05 and found[arm]["skipped"] == 0  # bfloat16 rounding, not stale weights
    assert found["update"]["share_of_a_product"] > 0 and "| training in bfloat16 |" in (tmp_path / "gpu_check.md").read_text()


@pytest.mark.slow
def test_every_benchmark_runs(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "models" / "tiny" / "tiny-qwen2" / "checkpoint")
    out = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--models", str(tmp_path / "models"), "--out", str(out)]
    subprocess.run(command, check=True, cwd=PROJECT)
    summary = json.loads((out / "summary.json").read_text())
    assert set(HEADLINES) <= set(summary) and all(summary[key] > 0 for key in HEADLINES if "extra" not in key)
