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
"""What a chat template takes for today. Some (Llama 3, SmolLM3, gpt-oss) put the date into every prompt: without this, a run
that is resumed, or evaluated, on another day would see other prompts."""
_REMEDY = "`python -m sfpo.data.prepare` writes it anew"


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
        raise ConfigError(f"{path}: not a sound parquet file ({error}); {_REMEDY}") from None
    if not table.schema.equals(SCHEMA):
        raise ConfigError(f"{path}: its columns are {', '.join(table.column_names)}, not {', '.join(SCHEMA.names)}; {_REMEDY}")
    return [Row(**{**record, "answer": tuple(record["answer"])}) for record in table.to_pylist()]


def load_prompts(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, instruction: str, max_prompt_tokens: int
) -> tuple[list[Prompt], list[str]]:
    """The prompts of a prepared file, and the ids of the problems left out because their prompt is over ``max_prompt_tokens``.

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
    """Token ids of one user turn, up to where the model's answer begins. Problems hold braces, so no str.format."""
    text = chat_text(tokenizer, [{"role": "user", "content": instruction.replace("{problem}", problem)}])
    return list(tokenizer.encode(text, add_special_tokens=False))  # the template has put them in


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """The turns in the tokenizer's chat template, on the day ``TODAY``."""
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=TODAY.strftime
    )
    if not isinstance(text, str):
        raise TypeError(f"the chat template of {type(tokenizer).__name__} gives a {type(text).__name__}, not a text")
    return text


def prompts_sha256(prompts: Iterable[tuple[str, list[int]]]) -> str:
    """Hex sha256 of prompts, each an id and token ids: all that decides a prompt (rows, instruction, chat template, tokenizer,
    libraries) decides it."""
    digest = hashlib.sha256()
    for prompt_id, token_ids in prompts:
        digest.update(json.dumps([prompt_id, token_ids]).encode() + b"\n")
    return digest.hexdigest()


def require_chat_template(folder: str | Path, where: str | None = None) -> None:
    """Check that a model folder's tokenizer has a chat template, without loading it.

    Args:
        where: what a fault names; None: the folder.

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
            "use an instruction-tuned model, or put the template of its family there as chat_template.jinja"
        )
