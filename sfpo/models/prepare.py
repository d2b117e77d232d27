"""Prepare a starting policy: ``python -m sfpo.models.prepare SETTINGS.json``.

Writes ``checkpoint/`` to the folder of the settings file, in Hugging Face format (safetensors, tokenizer with a chat template),
as transformers and vLLM load it, for every source of models. It is built under a temporary name and renamed at the end, so a
folder with a manifest is complete.
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

    The manifest records settings_hash, source, inputs (path -> sha256), parameters, and facts specific to the source (the
    commit of a hub model, the measurements of a warm-up).

    Raises:
        ConfigError: the source is not available, or the model cannot be trained (no chat template, no end-of-turn token).
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
    """The prepared data files for the warm-up. (Files of local models and mirrors are in the identity.)"""
    folder = settings.warm_up_data
    return [Path(folder, f"{part}.parquet") for part in ("train", "validation")] if folder else []


def build(settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """Fill ``folder`` from the model's source, and return facts for the manifest."""
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
        raise ConfigError(f"warm_up_data = None: model '{settings.name}' is trained from scratch and needs a data set")
    return warm_up.build(model, settings.instruction, Path(settings.warm_up_data), folder, settings.grader)


def complete(folder: Path, where: str, options: dict[str, Any]) -> dict[str, Any]:
    """Finish a model folder from any source: fix the chat template's options, the stop tokens, and a padding token different
    from them (where the vocabulary has one).

    Args:
        where: how error messages name the model.
        options: chat_template_options of the model.

    Returns:
        Facts for the manifest: parameters (their number), chat_template_reads (variables that can be set as options).

    Raises:
        ConfigError: the model is quantized, its chat template is missing or cannot be used, or no token ends a turn.
    """
    require_chat_template(folder, where)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if (method := _read(folder / "config.json").get("quantization_config")) is not None:
        raise ConfigError(
            f"{where}: quantized weights ({method.get('quant_method')}) cannot be trained; use the model in bfloat16 or float32"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if options:
        fix_options(folder, tokenizer, options, where)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    generation = _read(folder / "generation_config.json")
    rows = config.get_text_config().vocab_size  # rows of the embedding; a tokenizer class may add tokens beyond them
    known = generation.get("eos_token_id", getattr(config, "eos_token_id", None))
    stops = stop_ids(tokenizer, rows, known, closing_of(tokenizer, where))
    if not stops:
        raise ConfigError(
            f"{where}: no token ends a turn: the tokenizer has no eos token and the chat template closes an answer without a "
            "special token; set eos_token in tokenizer_config.json, or correct the chat template"
        )
    pad = padding_token(tokenizer, rows, stops)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():  # change one key only: saving the tokenizer again could change others
            write_json(folder / name, {**_read(folder / name), "pad_token": pad})
    ids = {"eos_token_id": stops if len(stops) > 1 else stops[0], "pad_token_id": tokenizer.convert_tokens_to_ids(pad)}
    generation.pop("_from_model_config", None)  # else transformers would take the model's ids instead of these
    write_json(folder / "generation_config.json", {**generation, **ids})
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    return {"parameters": parameters, "chat_template_reads": sorted(reads(tokenizer))}


def stop_ids(tokenizer: PreTrainedTokenizerBase, rows: int, known: int | list[int] | None, closing: str | None) -> list[int]:
    """Stop tokens: those ``known``, the tokenizer's eos, and the end-of-turn token of the chat template, which is the first
    special token of ``closing`` (base models often do not list it, and would generate up to the limit)."""
    stops = list(known) if isinstance(known, list) else [known]
    special = _special_tokens(tokenizer, rows)
    closing_ids = [token for token in tokenizer.encode(closing or "", add_special_tokens=False) if token in special]
    candidates = [*stops, tokenizer.eos_token_id, *closing_ids[:1]]
    return list(dict.fromkeys(token for token in candidates if token is not None and token < rows))


def padding_token(tokenizer: PreTrainedTokenizerBase, rows: int, stops: list[int]) -> str:
    """The tokenizer's padding token if it is no stop token; else a special token with "pad" in its name, or the unknown token;
    else a stop token."""
    special = _special_tokens(tokenizer, rows)
    named = [text for text in special.values() if "pad" in text.lower()]
    spare = [text for number, text in special.items() if number not in stops]
    candidates = [text for text in (tokenizer.pad_token, *named, tokenizer.unk_token) if text in spare]
    return candidates[0] if candidates else tokenizer.convert_ids_to_tokens(stops)[0]


def _special_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[int, str]:
    """Id -> text of the special tokens within the model's embedding."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: token.content for number, token in sorted(added) if token.special and number < rows}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sfpo.models.prepare", description="Prepare one starting policy.")
    parser.add_argument("settings", type=Path, help="settings.json of the model; checkpoint/ is written to its folder")
    parser.add_argument("--identity", help="fail unless the settings have this hash (the workflow passes it)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(load_settings(ModelSettings, arguments.settings, arguments.identity), arguments.settings.parent / "checkpoint")


if __name__ == "__main__":
    main()
