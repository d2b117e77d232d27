"""A small model trained from scratch: its tokenizer, and its architecture with random weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from sfpo.config import ScratchModel
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.transformers_internals import PRETOKENIZE_REGEX

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML without a system turn. (transformers renders with trim_blocks, so there is no newline after a block.)"""

PIECES = PRETOKENIZE_REGEX
"""Qwen2's pre-tokenizer: BPE merges stay inside a digit, a word, punctuation, or whitespace. transformers (5.19) sets it in
every tokenizer that it loads for a Qwen2 model, ignoring the tokenizer's files, so another one would be lost on reload."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: encoding is lossless for any text; every digit is a separate token.

    Args:
        texts: training corpus. The same texts in the same order give the same tokenizer.
        vocabulary_size: upper bound; includes the 256 bytes and the three special tokens.

    Raises:
        ConfigError: ``vocabulary_size`` is too small for the bytes and the special tokens.
    """
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), [PAD, TURN_START, TURN_END]
    if vocabulary_size < len(alphabet) + len(special):
        raise ConfigError(f"vocabulary_size = {vocabulary_size}: at least {len(alphabet) + len(special)} are needed")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        unk_token=PAD,  # never needed, but without it transformers would add a token that has no row in the embedding
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_policy(model: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The architecture with random float32 weights (a function of ``model.seed``); input and output embeddings are tied.

    Raises:
        ConfigError: ``hidden_size`` is not an even multiple of the number of attention heads.
    """
    if model.hidden_size % (2 * model.num_attention_heads):
        raise ConfigError(
            f"hidden_size = {model.hidden_size}: must be an even multiple of num_attention_heads {model.num_attention_heads}"
        )
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(
        model.architecture,
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_attention_heads,
        max_position_embeddings=2 * (model.max_prompt_tokens + model.max_completion_tokens),
        tie_word_embeddings=True,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(model.seed, "weights"))
        policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    policy.generation_config = GenerationConfig(**special)
    return policy
