import json

import pandas as pd
import pytest

from eval.report.collect import ReportError, collect

SFPO1 = "tiny/tiny-qwen2/arithmetic/sfpo/seed1"


def test_collects_every_run_and_the_base(results, tmp_path):
    settings = results(models=("tiny-qwen2", "smollm2-135m"), seeds=(0, 1))
    collected = collect(settings, tmp_path)
    # 2 models x (1 base + 2 arms x 2 seeds) x 3 benchmarks x 40 problems x 4 samples
    assert len(collected.scores) == 2 * 5 * 3 * 40 * 4
    assert len(collected.metrics) == 8 * 60 and len(collected.validation) == 8 * 13 and len(collected.summaries) == 8
    for frame in (collected.scores, collected.metrics, collected.validation, collected.summaries):
        assert list(frame.columns[:4]) == ["model", "dataset", "arm", "seed"]
    base = collected.scores[collected.scores["arm"] == "base"]
    assert base["seed"].isna().all() and base["dataset"].isna().all()
    assert set(collected.scores["seed"].dropna()) == {0, 1}


def test_values_are_those_of_the_files(results, tmp_path):
    collected = collect(results(), tmp_path)
    line = json.loads((tmp_path / "runs" / SFPO1 / "metrics.jsonl").read_text().splitlines()[6])
    row = collected.metrics.query("arm == 'sfpo' and seed == 1 and step == 7").iloc[0]
    assert row["entropy"] == line["entropy"] and row["seconds_total"] == line["seconds"]["total"]
    assert row["updates"] == line["updates"]
    fired = collected.summaries.set_index(["arm", "seed"])["trigger_fired_at"]
    assert fired["grpo"].isna().all()
    assert fired["sfpo", 1] == json.loads((tmp_path / "runs" / SFPO1 / "summary.json").read_text())["trigger_fired_at"]


def test_other_benchmarks_are_left_out(results, tmp_path):
    settings = results()
    fewer = settings.model_copy(update={"benchmarks": {"sums": "Sums"}})
    assert set(collect(fewer, tmp_path).scores["benchmark"]) == {"sums"}


@pytest.mark.parametrize("file", ["metrics.jsonl", "validation.jsonl", "summary.json"])
@pytest.mark.parametrize("damage, told", [(None, "no such file"), ('{"step": 1, "rew', "cannot be read"), ("[1]\n", "")])
def test_a_run_file_that_is_missing_or_damaged_is_named(results, tmp_path, file, damage, told):
    settings = results()
    path = tmp_path / "runs" / SFPO1 / file
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(ReportError) as error:
        collect(settings, tmp_path)
    assert str(path) in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("folder", [f"evaluations/{SFPO1}", "evaluations/tiny/tiny-qwen2/base"])
@pytest.mark.parametrize("damage, told", [(None, "no such file"), (b"PAR1 and no more", "cannot be read")])
def test_scores_that_are_missing_or_damaged_are_named(results, tmp_path, folder, damage, told):
    settings = results()
    path = tmp_path / folder / "scores.parquet"
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(ReportError, match=told) as error:
        collect(settings, tmp_path)
    assert str(path) in str(error.value)


def rewrite_scores(root, change):
    path = root / "evaluations" / SFPO1 / "scores.parquet"
    change(pd.read_parquet(path)).to_parquet(path)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda f: f[f["benchmark"] != "sums"], "no scores for sums"),
        (
            lambda f: f.iloc[1:],
            "sums must have 4 samples per problem with different numbers; sums/000 has 3 rows with 3 different numbers",
        ),
        (lambda f: pd.concat([f, f.iloc[:1]]), "sums/000 has 5 rows with 4 different numbers"),
        (lambda f: f.drop(columns="correct"), "correct"),
        (lambda f: f.replace({"problem_id": {"sums/007": "sums/907"}}), "2 differ, such as sums sums/007"),
        (lambda f: f.astype({"correct": object}).where(f["sample"] > 0, None), "must be boolean"),
    ],
)
def test_incomplete_scores_are_refused(results, tmp_path, change, told):
    settings = results()
    rewrite_scores(tmp_path, change)
    with pytest.raises(ReportError, match=told):
        collect(settings, tmp_path)


def edit_metrics(root, change):
    path = root / "runs" / SFPO1 / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda lines: [], "metrics.jsonl: the file is empty"),
        (
            lambda lines: [{"step": 1}],
            "no line has the key reward, response_length, entropy, rollouts, backward_passes, peak_memory_mb, seconds_total",
        ),
        (lambda lines: [*lines, lines[-1]], "steps must increase"),
        (lambda lines: [*lines[:3], {**lines[3], "entropy": None}, *lines[4:]], "line 4 has no value"),
    ],
)
def test_metrics_that_cannot_be_drawn_are_refused(results, tmp_path, change, told):
    settings = results()
    edit_metrics(tmp_path, change)
    with pytest.raises(ReportError, match=told):
        collect(settings, tmp_path)


def test_each_benchmark_has_its_own_number_of_samples(results, tmp_path):
    settings = results()
    more = settings.model_copy(update={"samples": {**settings.samples, "sums": 8}})
    with pytest.raises(ReportError, match="sums must have 8 samples per problem with different numbers; sums/000 has 4 rows"):
        collect(more, tmp_path)
    for path in (tmp_path / "evaluations").rglob("scores.parquet"):
        frame = pd.read_parquet(path)
        again = frame[frame["benchmark"] == "sums"]
        pd.concat([frame, again.assign(sample=again["sample"] + 4)]).to_parquet(path)
    scores = collect(more, tmp_path).scores
    assert scores.groupby("benchmark")["sample"].nunique().to_dict() == {"sums": 8, "differences": 4, "new_chains": 4}
