"""What a later reader loads is what was made: tokens and weights, for both architectures."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from sfpo.data.arithmetic import generate
from sfpo.data.prompts import render
from sfpo.models.scratch import new_policy, train_tokenizer


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def made_and_reloaded(request, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    rows = generate("stories", "train", 200)
    made = train_tokenizer([text for row in rows for text in (row.problem, row.solution)], tiny_model.vocabulary_size)
    policy = new_policy(tiny_model.model_copy(update={"architecture": request.param}), made)
    made.save_pretrained(folder)
    policy.save_pretrained(folder)
    return made, AutoTokenizer.from_pretrained(folder), policy, AutoModelForCausalLM.from_pretrained(folder)


def test_the_reloaded_tokenizer_gives_the_same_tokens(made_and_reloaded):
    made, reloaded, _, _ = made_and_reloaded
    for row in generate("new_stories", "test", 50) + generate("chains", "test", 50):
        assert render(made, "{problem}", row.problem) == render(reloaded, "{problem}", row.problem)
        assert made.encode(row.solution) == reloaded.encode(row.solution)
    assert (made.eos_token_id, made.pad_token_id) == (reloaded.eos_token_id, reloaded.pad_token_id)


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec="ascii")))
def test_any_text_comes_back_and_digits_are_single_tokens(made_and_reloaded, text):
    _, reloaded, _, _ = made_and_reloaded
    ids = reloaded.encode(text, add_special_tokens=False)
    assert reloaded.decode(ids) == text
    assert all(len(token) == 1 for token in reloaded.convert_ids_to_tokens(ids) if any(map(str.isdigit, token)))


def test_the_reloaded_model_gives_the_same_logits(made_and_reloaded):
    _, reloaded, policy, model = made_and_reloaded
    ids = torch.tensor([render(reloaded, "{problem}", "12+30=?")])
    assert torch.equal(policy(ids).logits, model(ids).logits)


def test_the_chat_template_by_hand(made_and_reloaded):
    _, reloaded, _, _ = made_and_reloaded
    text = reloaded.decode(render(reloaded, "Solve {problem}", "1+{2}=?"))
    assert text == "<|im_start|>user\nSolve 1+{2}=?<|im_end|>\n<|im_start|>assistant\n"
