"""rho of a run, and what it means."""

import json

import pytest

from eval.report.regime import paper_ratios
from sfpo.plan.price import PAPER, break_even, main, rho_of_run


def line(step, passes, **seconds):
    phases = dict.fromkeys(("generate", "grade", "old_logprobs", "update", "sync", "validate"), 0.0)
    return {"step": step, "backward_passes": passes, "seconds": {**phases, **seconds}}


@pytest.fixture
def metrics(tmp_path):
    # The first step holds the engine's start. After it 10 steps of 4 passes: 60 s of rollouts, 6 a step; 80 s of updates, 2 a
    # pass. rho = 6 / 2 = 3. Validation counts for nothing.
    lines = [
        line(1, 4, generate=100.0, update=8.0),
        line(11, 44, generate=140.0, grade=10.0, old_logprobs=9.0, sync=1.0, update=88.0),
    ]
    lines[1]["seconds"]["validate"] = 1000.0
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_rho_of_a_run(metrics, capsys):
    assert rho_of_run(metrics) == pytest.approx(3.0)
    main([str(metrics)])
    said = capsys.readouterr().out
    # (3 + 4) / (3 + 1) = 1.75
    assert "rho = 3.00" in said and "costs as much as 1.75 steps" in said and "SFPO (K = 3)" in said
    main(["--seconds", "6", "2", "--passes", "8"])
    assert "2.75 steps" in capsys.readouterr().out  # (3 + 8) / (3 + 1)


def test_break_even():
    assert break_even(0.0, 4) == 4  # rollouts for nothing
    assert break_even(1e9, 4) == pytest.approx(1)  # passes for nothing
    assert break_even(2.0, 1) == 1  # as many passes as GRPO
    assert break_even(2.0, 8, first=4) == pytest.approx(10 / 6)


def test_unusable_metrics_files_are_named(tmp_path, capsys, metrics):
    short = tmp_path / "short.jsonl"
    short.write_text(metrics.read_text().splitlines()[0] + "\n")
    with pytest.raises(SystemExit, match=r"short\.jsonl: not the metrics.jsonl of a run with at least two steps"):
        main([str(short)])
    same = tmp_path / "same.jsonl"
    same.write_text(2 * (metrics.read_text().splitlines()[0] + "\n"))
    with pytest.raises(SystemExit, match="no step with an update"):
        main([str(same)])
    with pytest.raises(SystemExit, match=r"absent\.jsonl"):
        main([str(tmp_path / "absent.jsonl")])
    for wrong in ([], [str(metrics), "--seconds", "1", "1"], ["--seconds", "1", "0"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_the_papers_prices_are_those_of_its_figure_4():
    # Qwen3-4B: 44,800 / 12,800 = 3.5 in rollouts, 13.7 / 5.2 = 2.63 in hours; 3.5 (rho + 1) / (rho + 4) = 2.63 at rho = 8.1.
    assert paper_ratios()["rho"].tolist() == pytest.approx(
        [PAPER["DS-Qwen-1.5B"], PAPER["Qwen3-4B"], PAPER["DS-Qwen-7B"]], abs=0.05
    )
