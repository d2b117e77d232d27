"""The tokenizer and the random weights of a model of our own."""

import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sfpo.data.arithmetic import generate
from sfpo.models.scratch import new_policy, train_tokenizer
from sfpo.schema import ConfigError

ROWS = generate("stories", "train", 100)
TEXTS = [text for row in ROWS for text in (row.problem, row.solution)]


@pytest.fixture(scope="module")
def made():
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def folder_and_policy(request, made, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    policy = new_policy(tiny_model.model_copy(update={"architecture": request.param}), made)
    made.save_pretrained(folder)
    policy.save_pretrained(folder)
    return folder, policy


@settings(deadline=None)
@given(text=st.text())
def test_any_text_comes_back_as_it_was(made, text):
    assert made.decode(made.encode(text)) == text


@settings(deadline=None)
@given(text=st.text())
def test_a_reload_changes_at_most_the_unicode_normal_form(folder_and_policy, text):
    """Qwen2's tokenizer class puts text into form NFC."""
    reloaded = AutoTokenizer.from_pretrained(folder_and_policy[0])
    assert unicodedata.normalize("NFC", reloaded.decode(reloaded.encode(text))) == unicodedata.normalize("NFC", text)


def test_every_token_has_a_row_in_the_embedding(folder_and_policy):
    """Names of special tokens that the tokenizer's class knows, but this tokenizer does not have, are ordinary text."""
    folder, policy = folder_and_policy
    reloaded = AutoTokenizer.from_pretrained(folder)
    rows = policy.get_input_embeddings().weight.shape[0]
    assert len(reloaded) == rows
    assert max(reloaded.encode("<|endoftext|> <unk> <s> </s> <|im_start|> <|im_end|> <|pad|>")) < rows


def test_the_vocabulary_is_bounded_and_the_same_each_time(made):
    again = train_tokenizer(TEXTS, 400)
    assert len(made) <= 400
    assert made.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert len(train_tokenizer([], 400)) == 256 + 3  # the bytes and the special tokens; nothing to merge
    with pytest.raises(ConfigError, match="vocabulary_size = 258: at least 259 are needed"):
        train_tokenizer(TEXTS, 258)


def test_special_tokens(made):
    assert made.convert_tokens_to_ids(["<|pad|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (made.pad_token_id, made.eos_token_id) == (0, 2)
    assert made.encode("<|im_start|>1<|im_end|>")[::2] == [1, 2]


def test_weights_are_a_function_of_the_seed_alone(tiny_model, made):
    torch.manual_seed(1)
    first = new_policy(tiny_model, made)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected), "global random state was moved"
    again, other = new_policy(tiny_model, made), new_policy(tiny_model.model_copy(update={"seed": 1}), made)
    weights = [policy.get_input_embeddings().weight for policy in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_model_is_the_one_that_the_settings_describe(tiny_model, folder_and_policy):
    _, policy = folder_and_policy
    config = policy.config
    assert policy.dtype == torch.float32
    assert policy.get_output_embeddings().weight is policy.get_input_embeddings().weight
    assert (config.hidden_size, config.num_hidden_layers) == (tiny_model.hidden_size, tiny_model.num_hidden_layers)
    assert config.max_position_embeddings > tiny_model.max_prompt_tokens + tiny_model.max_completion_tokens
    assert (policy.generation_config.eos_token_id, policy.generation_config.pad_token_id) == (2, 0)


def test_heads_that_do_not_share_out_the_hidden_size_are_refused(tiny_model, made):
    odd = tiny_model.model_copy(update={"hidden_size": 192, "num_attention_heads": 5})
    with pytest.raises(ConfigError, match="hidden_size = 192: must be an even multiple of num_attention_heads 5"):
        new_policy(odd, made)
