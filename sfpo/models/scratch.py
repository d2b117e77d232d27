"""A small model of our own: a tokenizer, random weights, and a warm-up that makes a policy of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from sfpo.config import ConfigError, ScratchModel
from sfpo.data.prompts import load_problems, load_prompts
from sfpo.models.warm_up import read_examples, warm_up
from sfpo.seeding import seed_of

log = logging.getLogger(__name__)

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML without a system turn. (The template engine drops the newline that follows a block, so none is written there.)"""

PIECES = r"\p{N}| ?\\?\p{L}+[\{\n]?| ?[^\s\p{L}\p{N}]+|\s+"
"""BPE merges stay inside one piece: a digit, a word (a LaTeX command with its brace, for instance ' \\boxed{'), marks, spaces."""


def build(model: ScratchModel, instruction: str, data: Path, folder: Path) -> dict[str, Any]:
    """Write a warmed-up model to ``folder``; returns the warm-up's measurements and the ids of the rows it left out.

    Args:
        instruction: the user turn; {problem} stands for the problem.
        data: folder with train.parquet (problems with solutions) and validation.parquet.

    Raises:
        ConfigError: the data cannot be used, the settings do not fit together, or the warm-up misses its pass rate.
    """
    train, validation = data / "train.parquet", data / "validation.parquet"
    rows = load_problems(train)
    roles = ("user\n", "assistant\n")
    tokenizer = train_tokenizer(
        (text for row in rows for text in (*roles, row.problem, row.solution or "")), model.vocabulary_size
    )
    examples, too_long = read_examples(train, rows, tokenizer, instruction, model)
    prompts, _ = load_prompts(validation, tokenizer, instruction, model.max_prompt_tokens)
    log.info("%d examples to warm up on; %d left out, over the token limits", len(examples), len(too_long))
    policy = new_policy(model, tokenizer)
    history = warm_up(policy, tokenizer, examples, prompts[: model.warm_up.check_prompts], model)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"warm_up": history, "rows_over_token_limits": too_long}


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text can be encoded and comes back as it was; every digit is a token of its own.

    Args:
        texts: what the merges are learned on. Equal texts in equal order give an equal tokenizer.
        vocabulary_size: upper bound; the 256 bytes and the three special tokens are always there.

    Raises:
        ConfigError: ``vocabulary_size`` has no room for the bytes and the special tokens.
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
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_policy(model: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The architecture with random float32 weights (a function of ``model.seed``); input and output embeddings are one.

    Raises:
        ConfigError: ``hidden_size`` cannot be shared out among the attention heads.
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
