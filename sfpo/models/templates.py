"""The chat template of a starting policy: what it reads beside the conversation, and whether it says what it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _get_template_variables

from sfpo.data.prompts import chat_text
from sfpo.manifest import write_json
from sfpo.schema import ConfigError

GIVEN = {"messages", "add_generation_prompt", "continue_final_message", "strftime_now", "raise_exception"}
"""What every template is given here."""
QUESTION, ANSWER = "A Question: {0} <1 & \\boxed{x}?", "An Answer"
"""Text that a template which changes letters, signs or braces would not leave as it is."""


def reads(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The variables that the chat template reads and that are no part of the conversation, nor tokens of the tokenizer."""
    tokens = {*tokenizer.special_tokens_map, *tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return set(_get_template_variables(tokenizer.get_chat_template())) - GIVEN - tokens


def fix_options(folder: Path, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], where: str) -> None:
    """Write ``options`` into the head of the folder's chat template, so that every later reader has them: training, evaluation,
    and whoever opens an export.

    Raises:
        ConfigError: the template does not read one of them, or is no template.
    """
    try:
        known = reads(tokenizer)
    except TemplateError as fault:
        raise ConfigError(f"{where}: its chat template is no template of Jinja ({fault}); correct it") from fault
    for name, value in options.items():
        if name not in known:
            raise ConfigError(
                f"{where}: chat_template_options.{name} = {json.dumps(value)}: the chat template does not read it; it reads "
                f"{', '.join(sorted(known)) or 'nothing beside the conversation'}"
            )
    heads = (f"{{%- set {name} = {_literal(value)} -%}}" for name, value in options.items())
    (folder / "chat_template.jinja").write_text("".join(heads) + tokenizer.get_chat_template())
    config = folder / "tokenizer_config.json"
    if config.is_file():  # one template, in one place
        write_json(config, {key: value for key, value in json.loads(config.read_text()).items() if key != "chat_template"})


def _literal(value: Any) -> str:
    """A value of JSON as Jinja writes it."""
    return "none" if value is None else json.dumps(value)


def closing_of(tokenizer: PreTrainedTokenizerBase, where: str) -> str | None:
    """What the chat template puts after an answer; None: it leaves answers out, so that it does not tell.

    Raises:
        ConfigError: the template cannot be used: it raises, or changes what the user says.
    """
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        asked = chat_text(tokenizer, turns[:1])
        answered = chat_text(tokenizer, turns, add_generation_prompt=False)
    except (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError) as fault:  # code from outside
        raise ConfigError(f"{where}: its chat template fails on a question and an answer ({fault}); correct it") from fault
    if QUESTION not in asked:
        raise ConfigError(
            f"{where}: its chat template does not give the user's text as it is: of {QUESTION!r} it makes {asked!r}; correct it"
        )
    return answered.rpartition(ANSWER)[2] if ANSWER in answered else None
