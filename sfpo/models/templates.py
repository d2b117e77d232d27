"""The chat template of a starting policy: its variables, and whether it reproduces the messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sfpo.data.prompts import chat_text
from sfpo.manifest import write_json
from sfpo.schema import ConfigError
from sfpo.transformers_internals import template_variables

GIVEN = {"messages", "add_generation_prompt", "continue_final_message", "strftime_now", "raise_exception"}
"""Variables that are always passed to templates."""
QUESTION, ANSWER = "A Question: {0} <1 & \\boxed{x}?", "An Answer"
"""Messages with letters, signs and braces, to detect templates that change them."""


def reads(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The variables that the chat template reads, other than the conversation and the tokenizer's special tokens."""
    tokens = {*tokenizer.special_tokens_map, *tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return set(template_variables(tokenizer.get_chat_template())) - GIVEN - tokens


def fix_options(folder: Path, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], where: str) -> None:
    """Write ``options`` to the start of the folder's chat template, so that training, evaluation and users of an exported model
    get the same prompts.

    Raises:
        ConfigError: the template does not read one of them, or is not valid Jinja.
    """
    try:
        known = reads(tokenizer)
    except TemplateError as fault:
        raise ConfigError(f"{where}: its chat template is not a valid Jinja template ({fault}); correct it") from fault
    for name, value in options.items():
        if name not in known:
            raise ConfigError(
                f"{where}: chat_template_options.{name} = {json.dumps(value)}: the chat template does not read it; it reads "
                f"{', '.join(sorted(known)) or 'only the conversation'}"
            )
    heads = (f"{{%- set {name} = {_literal(value)} -%}}" for name, value in options.items())
    (folder / "chat_template.jinja").write_text("".join(heads) + tokenizer.get_chat_template())
    config = folder / "tokenizer_config.json"
    if config.is_file():  # a second copy of the template could take precedence
        write_json(config, {key: value for key, value in json.loads(config.read_text()).items() if key != "chat_template"})


def _literal(value: Any) -> str:
    """A JSON value as a Jinja literal."""
    return "none" if value is None else json.dumps(value)


def closing_of(tokenizer: PreTrainedTokenizerBase, where: str) -> str | None:
    """The text that the chat template puts after an answer; None: not known, since the template omits answers.

    Raises:
        ConfigError: the template raises an error, or changes the user's message.
    """
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        asked = chat_text(tokenizer, turns[:1])
        answered = chat_text(tokenizer, turns, add_generation_prompt=False)
    except (
        TemplateError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as fault:  # untrusted code
        raise ConfigError(f"{where}: its chat template fails on a question and an answer ({fault}); correct it") from fault
    if QUESTION not in asked:
        raise ConfigError(
            f"{where}: its chat template changes the user's message: {QUESTION!r} is rendered as {asked!r}; correct it"
        )
    return answered.rpartition(ANSWER)[2] if ANSWER in answered else None
