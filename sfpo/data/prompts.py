"""Prepared problems, and their prompts in a model's own chat template."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sfpo.data.rows import SCHEMA, Row
from sfpo.schema import ConfigError
from sfpo.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase

TODAY = datetime(2026, 1, 1)
"""The date passed to chat templates. Some (Llama 3, SmolLM3, gpt-oss) put today's date into every prompt: with the real date, a
run that is resumed or evaluated on another day would see different prompts."""
_REMEDY = "`python -m sfpo.data.prepare` writes it again"


def load_problems(path: str | Path) -> list[Row]:
    """The rows of a prepared parquet file, in file order.

    Raises:
        ConfigError: the file is missing, damaged, or has other columns.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; {_REMEDY}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a valid parquet file ({error}); {_REMEDY}") from None
    if not table.schema.equals(SCHEMA):
        raise ConfigError(f"{path}: its columns are {', '.join(table.column_names)}, not {', '.join(SCHEMA.names)}; {_REMEDY}")
    return [Row(**{**record, "answer": tuple(record["answer"])}) for record in table.to_pylist()]


def load_prompts(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, instruction: str, max_prompt_tokens: int
) -> tuple[list[Prompt], list[str]]:
    """The prompts of a prepared file, and the ids of the problems excluded because their prompt exceeds ``max_prompt_tokens``.

    Raises:
        ConfigError: the file cannot be read, or no prompt is left.
    """
    prompts, too_long = [], []
    for row in load_problems(path):
        token_ids = render(tokenizer, instruction, row.problem)
        if len(token_ids) > max_prompt_tokens:
            too_long.append(row.id)
        else:
            prompts.append(Prompt(id=row.id, problem=row.problem, answer=row.answer, token_ids=token_ids))
    if not prompts:
        raise ConfigError(
            f"{path}: no prompt is within max_prompt_tokens = {max_prompt_tokens} ({len(too_long)} are longer); raise it"
        )
    return prompts, too_long


def render(tokenizer: PreTrainedTokenizerBase, instruction: str, problem: str) -> list[int]:
    """Token ids of a problem's prompt: its user turn in the chat template, up to where the model's answer begins."""
    return encode_user_turn(tokenizer, user_turn(instruction, problem))


def user_turn(instruction: str, problem: str) -> str:
    """The text of the user turn. Problems contain braces, so str.format cannot be used."""
    return instruction.replace("{problem}", problem)


def encode_user_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a conversation of one user turn with the generation prompt. Training, validation and evaluation all get
    their prompts here."""
    rendered = chat_text(tokenizer, [{"role": "user", "content": text}])
    return list(tokenizer.encode(rendered, add_special_tokens=False))  # the template has added the special tokens


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """The turns rendered by the tokenizer's chat template, with the date ``TODAY``."""
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=TODAY.strftime
    )
    if not isinstance(text, str):
        raise TypeError(f"the chat template of {type(tokenizer).__name__} returns a {type(text).__name__}, not a string")
    return text


def prompts_sha256(prompts: Iterable[tuple[str, list[int]]]) -> str:
    """Hex sha256 of prompts, each an id and token ids. It changes with anything that changes a prompt: rows, instruction, chat
    template, tokenizer, libraries."""
    digest = hashlib.sha256()
    for prompt_id, token_ids in prompts:
        digest.update(json.dumps([prompt_id, token_ids]).encode() + b"\n")
    return digest.hexdigest()


def require_chat_template(folder: str | Path, where: str | None = None) -> None:
    """Check that a model folder's tokenizer has a chat template, without loading it.

    Args:
        where: how error messages name the model; None: the folder.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(folder)
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not json.loads(config.read_text()).get("chat_template"):
        raise ConfigError(
            f"{where or folder}: the tokenizer has no chat template (neither chat_template.jinja nor a key in "
            "tokenizer_config.json); "
            "use an instruction-tuned model, or add its family's template as chat_template.jinja"
        )
