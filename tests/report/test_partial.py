"""An unfinished suite: what is reported, and how what is missing is marked."""

import shutil

from report_factory import report_settings

from eval.report import render
from eval.report.partial import finished_part

ITEMS = [f"results/tiny/items/{name}/settings.json" for name in ("table1", "figure2")]


def drop(root, arm, seed, top="runs"):
    shutil.rmtree(root / f"{top}/tiny/tiny-qwen2/arithmetic/{arm}/seed{seed}")


def test_a_finished_suite_is_reported_whole(results, tmp_path):
    settings = results()
    assert finished_part(settings, tmp_path) == settings


def test_a_seed_that_one_arm_lacks_is_left_out_for_all(results, tmp_path):
    # Gains are paired by seed, so seed 1 of GRPO counts for nothing without seed 1 of SFPO. Its evaluation alone is gone.
    settings = results()
    drop(tmp_path, "sfpo", 1, "evaluations")
    part = finished_part(settings, tmp_path)
    assert (part.seeds, list(part.arms)) == ([0, 2], ["grpo", "sfpo"])
    assert part.missing == tuple(f"tiny/tiny-qwen2/arithmetic/{arm}/seed1" for arm in ("grpo", "sfpo"))


def test_an_arm_without_a_common_seed_is_left_out(results, tmp_path):
    # GRPO has seeds 0, 1, 2, SFPO none, GRPO-K 1 and 2: SFPO goes first, and seeds 1 and 2 of the others are left.
    settings = results(arms=("grpo", "sfpo", "grpo_k"))
    for seed in (0, 1, 2):
        drop(tmp_path, "sfpo", seed)
    drop(tmp_path, "grpo_k", 0)
    part = finished_part(settings, tmp_path)
    assert (part.seeds, list(part.arms)) == ([1, 2], ["grpo", "grpo_k"]) and len(part.missing) == 5


def test_what_shows_training_alone_needs_no_evaluation(results, tmp_path):
    settings = results(shows="curves")
    shutil.rmtree(tmp_path / "evaluations")
    assert finished_part(settings, tmp_path) == settings


def test_nothing_finished_is_nothing_to_report(tmp_path):
    assert finished_part(report_settings(), tmp_path) is None


def test_the_partial_report_marks_what_is_missing_and_leaves_the_final_one(results, tmp_path, monkeypatch, capsys):
    results(arms=("grpo", "sfpo", "grpo_k"))
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 2):
        drop(tmp_path, "sfpo", seed)
    render.main([*ITEMS, "--partial"])
    table = (tmp_path / "results/tiny/partial/tables/table1.md").read_text()
    (row,) = (line for line in table.splitlines() if line.startswith("| sfpo"))
    assert row.count("missing") == 4  # three benchmarks and the average
    assert "INCOMPLETE: 3 runs are not in this table: tiny/tiny-qwen2/arithmetic/sfpo/seed0" in table
    assert (tmp_path / "results/tiny/partial/figures/figure2.png").is_file()
    runs = (tmp_path / "results/tiny/partial/runs.html").read_text()
    assert runs.count("<details>") == 6 and "Not finished: tiny/tiny-qwen2/arithmetic/sfpo/seed0, " in runs
    assert not (tmp_path / "results/tiny/tables").exists()
    assert "INCOMPLETE" in capsys.readouterr().out
