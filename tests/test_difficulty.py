"""The filter of training rows by pass rate. Expected rows are worked out by hand from the numbers of correct completions."""

import json

import pytest

from sfpo.config import Difficulty
from sfpo.data.prepare import prepare_dataset
from sfpo.data.prompts import load_problems
from sfpo.difficulty import filter_rows
from sfpo.manifest import content_sha256
from sfpo.ranks import SINGLE_PROCESS
from sfpo.schema import ConfigError
from sfpo.settings import DatasetSettings, FilterSettings, settings_hash


@pytest.fixture(scope="module")
def data(tmp_path_factory, params):
    """Eight sums, sums/00000 to sums/00007, and two for validation."""
    folder = tmp_path_factory.mktemp("data")
    rows = {"sums": {"source": "generated", "tasks": {"sums": 8}}}
    dataset = params.datasets["arithmetic"].model_validate({"parts": rows, "validation_rows": 2})
    prepare_dataset(DatasetSettings(name="sums", dataset=dataset, data_mirror=None), folder)
    return folder


@pytest.fixture
def settings(params, checkpoint, data, limits):
    tiny = params.suites["tiny"]

    def make(**difficulty):
        return FilterSettings(
            model_path=str(checkpoint),
            model="the random model",
            data_path=str(data),
            data="eight sums",
            grader="math",
            limits=limits.model_copy(update={"max_completion_tokens": 4}),
            instruction="{problem}",
            difficulty=Difficulty(samples=4, **difficulty),
            sampler=tiny.sampler.model_copy(update={"library": "transformers"}),
            engine=tiny.execution.engine,
        )

    return make


def scored_before(settings, folder, data, checkpoint, correct):
    """The state that a killed job has left: the last line was cut off."""
    state = folder / "state" / settings_hash(settings)[:12] / "correct.jsonl"
    state.parent.mkdir(parents=True)
    inputs = {str(path): content_sha256(path) for path in (data / "train.parquet", checkpoint / "manifest.json")}
    lines = [inputs, *({"id": row_id, "correct": count} for row_id, count in correct.items())]
    state.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "cut')
    return state


COUNTS = [0, 1, 2, 3, 4, 0, 4, 2]


@pytest.mark.parametrize(
    ("correct", "places"),
    [
        (None, [1, 2, 3, 7]),  # 1 to 3 of 4: neither never (0, 5) nor always (4, 6)
        ([0, 2], [0, 1, 2, 5, 7]),
        ([4, 4], [4, 6]),
        ([0, 4], list(range(8))),
    ],
)
def test_rows_within_the_bounds_are_kept_in_their_order(settings, data, checkpoint, tmp_path, correct, places):
    rows, filtering = load_problems(data / "train.parquet"), settings(correct=correct)
    scored_before(filtering, tmp_path, data, checkpoint, {row.id: count for row, count in zip(rows, COUNTS, strict=True)})
    report = filter_rows(filtering, tmp_path, SINGLE_PROCESS)
    assert load_problems(tmp_path / "train.parquet") == [rows[place] for place in places]
    assert load_problems(tmp_path / "validation.parquet") == load_problems(data / "validation.parquet")
    assert report["rows_by_correct_completions"] == {"0": 2, "1": 1, "2": 2, "3": 1, "4": 2}
    # (0 + 1 + 2 + 3 + 4 + 0 + 4 + 2) / (8 rows x 4 completions) = 16 / 32
    assert (report["kept"], report["scored"], report["pass_rate"]) == (len(places), 8, 0.5)
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_a_killed_job_scores_the_rows_that_are_left(settings, data, checkpoint, tmp_path):
    rows, filtering = load_problems(data / "train.parquet"), settings()
    state = scored_before(filtering, tmp_path, data, checkpoint, {rows[3].id: 2, rows[5].id: 4})
    report = filter_rows(filtering, tmp_path, SINGLE_PROCESS)
    # A random policy boxes nothing in four tokens: the six others are never solved.
    assert report["rows_by_correct_completions"] == {"0": 6, "1": 0, "2": 1, "3": 0, "4": 1}
    assert [row.id for row in load_problems(tmp_path / "train.parquet")] == [rows[3].id]
    assert len(state.read_text().splitlines()) == 1 + 8  # inputs, then each row once


def test_where_no_row_is_left_the_numbers_are_named_and_nothing_is_written(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"no row has 1 to 3 correct completions of 4 .*: 0: 8, 1: 0, 2: 0, 3: 0, 4: 0\)"):
        filter_rows(settings(), tmp_path, SINGLE_PROCESS)
    assert not (tmp_path / "train.parquet").exists() and not (tmp_path / "report.json").exists()


def test_other_inputs_are_scored_anew(settings, data, checkpoint, tmp_path):
    rows, filtering = load_problems(data / "train.parquet"), settings(correct=[0, 4])
    state = scored_before(filtering, tmp_path, data, checkpoint, {row.id: 4 for row in rows})
    state.write_text(state.read_text().replace(content_sha256(data / "train.parquet"), "0" * 64))
    assert filter_rows(filtering, tmp_path, SINGLE_PROCESS)["pass_rate"] == 0.0


def test_some_rows_are_drawn_and_the_rest_is_not_trained_on(settings, data, tmp_path):
    draws = set()
    for seed in range(3):
        folder = tmp_path / str(seed)
        report = filter_rows(settings(correct=[0, 4], rows=3, seed=seed), folder, SINGLE_PROCESS)
        assert (report["scored"], report["not_scored"], report["kept"]) == (3, 5, 3)
        draws.add(tuple(row.id for row in load_problems(folder / "train.parquet")))
    assert len(draws) > 1  # by the seed


def test_prompts_over_the_limit_are_listed_and_not_kept(settings, data, tmp_path):
    filtering = settings(correct=[0, 4])
    shortest = min(len(row.problem) for row in load_problems(data / "train.parquet"))
    for limit in range(shortest + 3, 200):  # the first at which some are too long and some are not
        limits = filtering.limits.model_copy(update={"max_prompt_tokens": limit})
        try:
            report = filter_rows(filtering.model_copy(update={"limits": limits}), tmp_path / str(limit), SINGLE_PROCESS)
        except ConfigError:
            continue
        break
    assert report["kept"] + len(report["prompts_too_long"]) == 8 and report["kept"] > 0


@pytest.mark.parametrize("correct", [[3, 2], [1, 5]])
def test_impossible_bounds_are_refused(correct):
    with pytest.raises(ValueError, match=r"correct .*: must be increasing, and at most samples 4"):
        Difficulty(samples=4, correct=correct)
