"""What the tests of both integrations share. It needs torch and transformers alone, not the suite: the tests also run in
environments that have a trainer and nothing else of ours (`make test-trl`, `make test-verl`)."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that wait for each other on a busy machine take many times longer

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """A Qwen2 of two layers with random weights in float32, and a tokenizer of 64 words."""
    return save_small_model(tmp_path_factory.mktemp("small"), tied=False)


@pytest.fixture(scope="session")
def tied_checkpoint(tmp_path_factory) -> Path:
    """The same with tied embeddings: every rank of verl then reads the weights itself; FSDP1 can send them on a GPU alone."""
    return save_small_model(tmp_path_factory.mktemp("tied"), tied=True)


def save_small_model(folder: Path, tied: bool) -> Path:
    words = {f"t{number}": number for number in range(62)} | {"<pad>": 62, "<eos>": 63}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        pad_token_id=62,
        eos_token_id=63,
        bos_token_id=63,
    )
    Qwen2ForCausalLM(shape).float().save_pretrained(folder)
    return folder
