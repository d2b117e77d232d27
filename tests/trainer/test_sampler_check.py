"""The engine is tried before a run starts, and a gap beyond rounding stops it."""

import json

import pytest
import torch

from sfpo.config import Engine, Sampler, Sampling
from sfpo.rollouts import make_engine
from sfpo.rollouts.transformers_engine import SeededSampler, TransformersEngine
from sfpo.trainer.loop import train
from sfpo.trainer.policy import Policy
from sfpo.trainer.sampler_check import SamplerGapTooLarge, allowed_gap, check_sampler, require_gap
from tests.changes import changed

SYNCS_BEFORE_STEP_1 = 2
"""Moved weights and back, before the run."""
FLOAT = Sampler(library="transformers", dtype="float32")


@pytest.fixture(scope="module")
def policy(checkpoint, params):
    tiny = params.suites["tiny"]
    return Policy(checkpoint, params.objectives["grpo"], tiny.train, tiny.execution, 32)


@pytest.fixture(scope="module")
def plain_engine(checkpoint, limits):
    return make_engine(checkpoint, limits, FLOAT, Engine())


def test_an_engine_that_takes_the_weights_passes_and_all_is_as_it_was(policy, plain_engine):
    before, most = {name: weight.clone() for name, weight in policy.weights()}, plain_engine.max_completion_tokens
    found = check_sampler(policy, plain_engine, FLOAT, seed=0)
    assert found["gap_mean"] < 1e-4 and found["moved_by"] > 0.1 and plain_engine.max_completion_tokens == most
    held = plain_engine._model.state_dict()
    for name, weight in policy.weights():
        assert torch.equal(weight, before[name]) and torch.equal(weight, held[name])


def test_an_engine_whose_weights_stay_stale_is_refused(policy, plain_engine, monkeypatch):
    monkeypatch.setattr(plain_engine, "load_weights", lambda weights: [None for _ in weights])
    with pytest.raises(
        SamplerGapTooLarge, match=r"before the first step, with perturbed weights: log-probs .*train.max_sampler_gap"
    ):
        check_sampler(policy, plain_engine, FLOAT, seed=0)


def test_an_engine_that_computes_another_model_is_refused_whatever_weights_it_gets(policy, plain_engine, monkeypatch):
    sample = SeededSampler.__call__
    monkeypatch.setattr(SeededSampler, "__call__", lambda self, input_ids, scores: sample(self, input_ids, 1.1 * scores))
    with pytest.raises(SamplerGapTooLarge, match="before the first step"):
        check_sampler(policy, plain_engine, FLOAT, seed=0)


@pytest.mark.parametrize(("most", "stops"), [(0.001, True), (None, False)])
def test_a_run_whose_engine_falls_behind_stops(most, stops, settings, tmp_path, monkeypatch):
    sampler = {"library": "transformers", "dtype": "float32"}
    train_settings = {"recipe__train__max_sampler_gap": most, "recipe__train__steps": 2, "recipe__sampler": sampler}
    short = changed(settings, recipe__train__optimizer__learning_rate=0.01, **train_settings)
    synced, load_weights = [], TransformersEngine.load_weights

    def twice(engine, weights):
        synced.append(len(synced))
        load_weights(engine, weights if len(synced) <= SYNCS_BEFORE_STEP_1 else ())

    monkeypatch.setattr(TransformersEngine, "load_weights", twice)
    if stops:
        with pytest.raises(SamplerGapTooLarge, match=r"step 2: log-probs .* the limit is 0.001"):
            train(short, tmp_path)
        assert not (tmp_path / "summary.json").exists()
    else:
        train(short, tmp_path)
        gaps = [json.loads(line)["sampler_gap_mean"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert gaps[0] < 1e-4 and gaps[1] > 0.001


def test_the_limit_is_that_of_rounding_unless_the_recipe_has_one(params):
    train = params.suites["tiny"].train
    assert allowed_gap(train, FLOAT) == 0.005 and allowed_gap(train, Sampler(dtype="bfloat16")) == 0.2
    assert allowed_gap(train.model_copy(update={"policy_dtype": "bfloat16"}), FLOAT) == 0.2
    assert allowed_gap(train.model_copy(update={"sampling": Sampling(top_p=0.9)}), FLOAT) is None
    assert allowed_gap(train.model_copy(update={"max_sampler_gap": 0.5}), FLOAT) == 0.5
    assert allowed_gap(train.model_copy(update={"max_sampler_gap": None}), FLOAT) is None


def test_a_gap_is_the_mean_over_tokens():
    # |-1 - -1.1| = 0.1 and |-2 - -2.3| = 0.3: 0.2 on average.
    ours, theirs = torch.tensor([-1.0, -2.0]), torch.tensor([-1.1, -2.3])
    assert require_gap(ours, theirs, 0.21, "step 1").mean == pytest.approx(0.2)
    assert require_gap(ours, theirs, None, "step 1").max == pytest.approx(0.3)
    with pytest.raises(SamplerGapTooLarge, match=r"step 1: .* differ by 0.2 nats per token on average, at most 0.3"):
        require_gap(ours, theirs, 0.19, "step 1")
