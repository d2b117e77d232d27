"""The plan of a finished suite: python -m eval.power."""

import re

import pytest
from report_factory import NAMES

from eval import power

TABLE1 = f"results/tiny/items/{NAMES['scores']}/settings.json"


def rows(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(r"\| [\d.]+ x", line)]


def test_more_samples_and_larger_gains_need_fewer_seeds(results, tmp_path, monkeypatch, capsys):
    results()
    monkeypatch.chdir(tmp_path)
    power.main([TABLE1, "--gain", "5", "--seed-sd", "1"])
    text = capsys.readouterr().out
    assert "gain of 5 points" in text and "SFPO - GRPO, assumed standard deviation over seeds 1 points" in text
    found = rows(text)
    assert [row[1:4] for row in found[:2]] == [["4"] * 3, found[1][1:4]] and [row[0] for row in found[:1]] == ["1.00 x"]
    seeds = [int(row[4]) for row in found]
    assert seeds == sorted(seeds, reverse=True) and seeds[-1] < seeds[0]
    # An hour's hundredth a seed and arm of evaluation (4 checkpoints of 36 s), 71.25 s of training: both arms, the first row.
    assert found[0][6] == f"{seeds[0] * 2 * (71.25 + 4 * 36) / 3600:.2g}"
    power.main([TABLE1, "--gain", "10", "--seed-sd", "1"])
    assert int(rows(capsys.readouterr().out)[0][4]) < seeds[0]


def test_an_estimated_variance_over_seeds_gives_a_range(results, tmp_path, monkeypatch, capsys):
    results(arms=("grpo", "gxpo", "sfpo"))
    monkeypatch.chdir(tmp_path)
    power.main([TABLE1, "--gain", "8"])
    text = capsys.readouterr().out
    assert (
        text.count("\n## ") == 2
        and "Standard deviation over seeds:" in text
        and "by source, points, with 3 seeds: seed " in text
    )
    for row in rows(text):
        low, high = (int(end.strip(">")) for end in row[5].split(" to "))
        assert low <= int(row[4].strip(">")) <= high


def test_one_seed_gives_a_plan_for_several_assumed_standard_deviations(results, tmp_path, monkeypatch, capsys):
    results(seeds=(0,))
    monkeypatch.chdir(tmp_path)
    power.main([TABLE1])
    text = capsys.readouterr().out
    assert [f"assumed standard deviation over seeds {sd:g} points" in text for sd in power.ASSUMED] == [True] * 3


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([TABLE1.replace("table1", "figure2")], "not an accuracy table with at least two arms"),
        (["results/none/settings.json"], "no such settings file"),
    ],
)
def test_unusable_settings_files_are_named(results, tmp_path, monkeypatch, arguments, told):
    results()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        power.main(arguments)


@pytest.mark.parametrize("arguments", [["--gain", "0"], ["--gain", "nan"], ["--seed-sd", "-1"]])
def test_impossible_sizes_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        power.main([TABLE1, *arguments])
    assert f"{arguments[0]} {arguments[1]}: must" in capsys.readouterr().err
