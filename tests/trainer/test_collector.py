"""Rollouts with rewards through the live engine: overlong shaping, and groups without variance replaced."""

import pytest

from sfpo.config import DynamicSampling, Objective, OverlongPenalty, Sampling
from sfpo.data.prompts import render
from sfpo.rewards.code_tests import CodeGrader
from sfpo.rewards.math_answer import Grader
from sfpo.rollouts.engine import Request
from sfpo.seeding import seed_of
from sfpo.settings import Recipe, RuleSettings
from sfpo.trainer.collector import Collector, Grading, overlong_penalty
from sfpo.trainer.metrics import PhaseClock
from sfpo.types import Completion, Prompt

SHAPING = OverlongPenalty(buffer_tokens=20, penalty=1.0)


@pytest.mark.parametrize(("length", "expected"), [(10, 0.0), (44, 0.0), (45, 0.05), (54, 0.5), (64, 1.0)])
def test_the_overlong_penalty_rises_over_the_buffer(length, expected):
    # Limit 64, buffer 20: it begins after 44 tokens and grows by 1/20 a token.
    assert overlong_penalty(SHAPING, length, 64) == pytest.approx(expected)


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def code_grader(isolation):
    with CodeGrader(workers=2) as grader:
        yield grader


ADD = "```python\ndef f(a, b):\n    return a + b\n```"
SUM = ('{"function": "f", "cases": [{"arguments": [3, 4], "result": 7}]}',)


def completion_of(text):
    return Completion(token_ids=[1], logprobs=[0.0], text=text, truncated=False)


def test_grades_come_in_the_order_of_the_places(code_grader):
    texts = [ADD, "no program", ADD.replace("+", "-"), ADD]
    grading = Grading(code_grader, [SUM] * 4)
    for place in (2, 0, 3, 1):
        grading.add(place, completion_of(texts[place]))
    assert grading.grades() == code_grader.grade_all(texts, [SUM] * 4)
    assert [grade.correct for grade in code_grader.grade_all(texts, [SUM] * 4)] == [True, False, False, True]
    assert Grading(code_grader, []).grades() == []


def test_what_the_grader_raises_is_raised(code_grader):
    grading = Grading(code_grader, [("no tests",)])
    grading.add(0, completion_of(ADD))
    with pytest.raises(ValueError, match="not valid JSON"):
        grading.grades()


@pytest.mark.engine
def test_grading_begins_while_the_engine_samples(engine, collect, monkeypatch):
    unfinished = []
    plain = collect()

    def watched(self, responses, golds, grade_all=Grader.grade_all):
        unfinished.append(engine._llm.llm_engine.get_num_unfinished_requests())
        return grade_all(self, responses, golds)

    monkeypatch.setattr(Grader, "grade_all", watched)
    assert collect() == plain
    assert unfinished[0] > 0


@pytest.fixture
def collect(engine, grader, params, limits):
    """Groups of a step under an objective. The random policy never boxes an answer and often runs into the token limit: rewards
    differ by the overlong penalty alone, so that some groups have variance and some have not."""
    every = [Prompt(f"p{k}", f"{k}+1=?", (str(k + 1),), render(engine.tokenizer, "{problem}", f"{k}+1=?")) for k in range(40)]

    def run(step=1, prompts=40, **objective):
        tiny = params.suites["tiny"]
        train = tiny.train.model_copy(update={"prompts_per_step": 12, "completions_per_prompt": 5})
        recipe = Recipe(
            model="the random model",
            data="sums",
            grader="math",
            limits=limits,
            instruction="{problem}",
            seed=0,
            rule=RuleSettings(name="grpo", settings={}),
            learning_rate_scale=1.0,
            objective=Objective(**objective),
            train=train,
            sampler=tiny.sampler,
        )
        return Collector(engine, grader, recipe, 1, PhaseClock()).training_groups(every[:prompts], step)

    return run


@pytest.mark.engine
def test_without_dynamic_sampling_what_is_drawn_is_trained_on(collect):
    rollouts = collect()
    assert rollouts.groups == rollouts.drawn and len(rollouts.groups) == 12
    assert not any(group.has_variance for group in rollouts.groups)  # all wrong, nothing boxed
    assert collect() == rollouts != collect(step=2)


@pytest.mark.engine
def test_dynamic_sampling_replaces_groups_without_variance_in_their_place(collect):
    plain = collect(overlong_penalty=SHAPING).groups
    useful = [group.has_variance for group in plain]
    assert any(useful) and not all(useful)
    rollouts = collect(overlong_penalty=SHAPING, dynamic_sampling=DynamicSampling(max_refills=1))
    missing = useful.count(False)
    assert rollouts.drawn[:12] == plain and len(rollouts.drawn) == 12 + missing
    fresh = [group for group in rollouts.drawn[12:] if group.has_variance]
    assert fresh  # else the test would show nothing
    assert [g for g, had in zip(rollouts.groups, useful, strict=True) if had] == [g for g in plain if g.has_variance]
    filled = [g for g, had in zip(rollouts.groups, useful, strict=True) if not had]
    assert filled[: len(fresh)] == fresh and all(not group.has_variance for group in filled[len(fresh) :])
    names = [group.prompt.id for group in rollouts.drawn]
    assert len(names) == len(set(names))


@pytest.mark.engine
def test_refills_end_with_the_prompts(collect):
    # Nothing ever has variance here: all 40 prompts are drawn once, 12 and 12, 12, 4 more, and the batch stays whole.
    rollouts = collect(dynamic_sampling=DynamicSampling(max_refills=10))
    assert len(rollouts.drawn) == 40 and rollouts.groups == rollouts.drawn[:12]


@pytest.mark.engine
def test_a_prompt_met_twice_in_a_step_has_other_samples(engine, collect):
    """12 places and 5 prompts: each prompt has two or three groups. The first has samples 0 to 4 of the prompt, the second 5 to
    9, the third 10 to 14."""
    groups = collect(prompts=5).groups
    of_prompt = {}
    for group in groups:
        of_prompt.setdefault(group.prompt.id, []).append(group)
    assert sorted(map(len, of_prompt.values())) == [2, 2, 2, 3, 3]
    for same in of_prompt.values():
        texts = [completion.token_ids for group in same for completion in group.completions]
        assert len({tuple(ids) for ids in texts}) == len(texts)
        requests = [
            Request(same[0].prompt.token_ids, seed_of(0, "rollout", 1, same[0].prompt.id, k)) for k in range(len(texts))
        ]
        assert [completion.token_ids for completion in engine.generate(requests, Sampling())] == texts
