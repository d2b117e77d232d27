"""lm-eval through the live engine: order, seeds of repeats, and the prompt that training uses."""

import pytest
from lm_eval.api.instance import Instance

from eval.engine_lm import EngineLM
from sfpo.data.prompts import prompts_sha256, render

pytestmark = pytest.mark.engine
SAMPLING = {"until": [], "do_sample": True, "temperature": 1.0, "top_p": 1.0}


@pytest.fixture
def lm(engine):
    return EngineLM(engine, seed=0)


def instances(problems: list[str], repeats: int) -> list[Instance]:
    """As lm-eval makes them: one object a problem, listed ``repeats`` times."""
    listed = []
    for number, problem in enumerate(problems):
        doc = {"id": f"p/{number}"}
        instance = Instance("generate_until", doc, (problem, dict(SAMPLING)), 0, metadata=("sums", number, repeats))
        listed += [instance] * repeats
    return listed


def test_the_prompt_is_the_training_prompt(lm, engine):
    lm.generate_until(instances(["12+30=?"], 1), disable_tqdm=True)
    assert lm.prompts_sha256 == {"sums": prompts_sha256([("p/0", render(engine.tokenizer, "{problem}", "12+30=?"))])}


def test_repeats_differ_and_are_the_same_in_any_order(lm):
    problems = ["12+30=?", "What is 7 - 5?"]
    texts = lm.generate_until(instances(problems, 4), disable_tqdm=True)
    assert len(set(texts[:4])) > 1
    backward = lm.generate_until(instances(problems, 4)[::-1], disable_tqdm=True)
    # Problem by problem: the repeats of one problem are numbered as they come.
    assert backward[:4] == texts[4:] and backward[4:] == texts[:4]


def test_another_seed_gives_other_texts(engine):
    texts = [EngineLM(engine, seed).generate_until(instances(["1+1"], 8), True) for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_scoring_given_texts_is_refused(lm):
    with pytest.raises(TypeError, match="generate_until"):
        lm.loglikelihood([])


def test_a_prompt_over_the_limit_is_counted_not_asked_and_loses_nothing_else(lm, engine, caplog):
    long = "1+" * engine.max_prompt_tokens + "1=?"
    texts = lm.generate_until(instances(["12+30=?", long], 2), disable_tqdm=True)
    assert texts[2:] == ["", ""] and lm.prompts_too_long == {"sums": ["p/1"]}
    assert (
        f"sums: 1 prompts exceed {engine.max_prompt_tokens} tokens; they are not sampled and count as wrong: p/1" in caplog.text
    )
    assert texts[:2] == lm.generate_until(instances(["12+30=?"], 2), disable_tqdm=True) != ["", ""]
