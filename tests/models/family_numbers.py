"""The policy's numbers for a tiny model of each family: ``python -m tests.models.family_numbers`` writes the table of
docs/models.md and benchmarks/results/families.json, or with names of families their lines."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from benchmarks.families import FAR
from sfpo.config import load_params
from sfpo.seeding import rng
from sfpo.trainer.canary import UnsupportedModel
from sfpo.trainer.policy import Policy
from tests.models.tiny_families import FAMILIES, SPECIAL, VOCABULARY, tiny_config, tiny_model

PROJECT = Path(__file__).parents[2]
RESULTS = PROJECT / "benchmarks" / "results" / "families.json"
PAGE = PROJECT / "docs" / "models.md"
ROUGH = 0.01
"""Nats: an engine that is off by more, for the token where it is most, computes something else."""
OF_ENGINES = {"engine", "start_gap", "moved_by", "engine_gap", "export_gap"}
"""Found by benchmarks/families.py."""
BEGIN, END = "<!-- families: made by `make families` -->\n", "<!-- end of families -->\n"

SEES_LATER_TOKENS = "ValueError: a token's log-prob depends on the tokens after it"
DRAFT = "a draft model for speculative decoding, which uses the keys and values of its target model"
SPEECH = "has a text encoder and several audio token streams; transformers builds no causal language model of its config.json"
NOT_TRAINED = {
    "cpmant": ("attends to the prompt in both directions", SEES_LATER_TOKENS),
    "gemma3n": (
        "needs the package timm, which is not installed (gemma3n_text is supported)",
        "TimmWrapperModel requires the timm library but it was not found",
    ),
    "gemma4_assistant": (DRAFT, "ValueError: inputs_embeds and shared_kv_states cannot be None"),
    "gemma4_unified_assistant": (DRAFT, "ValueError: inputs_embeds and shared_kv_states cannot be None"),
    "musicgen": (SPEECH, "'MusicgenConfig' object has no attribute 'dropout'"),
    "musicgen_melody": (SPEECH, "'MusicgenMelodyConfig' object has no attribute 'dropout'"),
    "prophetnet": (
        "predicts several tokens at a time, from more than the last hidden state",
        "IndexError: tuple index out of range",
    ),
    "reformer": (
        "supports gradients only in training mode, with dropout in its attention",
        "AssertionError: If you want to train `ReformerModel` and its variations, make sure to use `model.train()`",
    ),
    "xlnet": ("is not a left-to-right model", SEES_LATER_TOKENS),
}
"""Why a family is refused, and what the refusal says."""
NOT_BUILT = {"gemma3n", "musicgen", "musicgen_melody"}
"""Of these, what transformers does not build here: what is tried is a folder with the configuration."""


def measure(family: str, folder: Path, packing: str = "auto", **execution: Any) -> dict[str, Any]:
    """Policy.score and the gradient of a weighted sum of its log-probs, against the plain model one sequence at a time.

    Args:
        folder: the tiny model is written there.
        execution: settings in place of the tiny suite's.

    Returns:
        packing, attention: as the canary chose; logprob_error [nats] the largest; gradient_error, of a parameter, relative to
        its norm, the largest.
    """
    save_tiny(family, folder)
    tiny = load_params(PROJECT / "params.yaml").suites["tiny"]
    computing = tiny.execution.model_copy(update={"micro_batch_tokens": 48, **execution})
    train = tiny.train.model_copy(update={"packing": packing})
    policy = Policy(folder, load_params(PROJECT / "params.yaml").objectives["grpo"], train, computing, 32)
    prompts, completions = sequences(VOCABULARY)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if policy.canary["attention"]:
        plain.set_attn_implementation("eager")
    theirs = _logprobs(plain, prompts, completions, policy.scorer.without_cache)
    weights = torch.linspace(-1.0, 1.0, len(theirs))
    (weights * theirs).sum().backward()
    ours, _ = policy.score(prompts, completions)
    for micro in policy._micro_batches(prompts, completions, None):
        of_tokens, _ = policy.scorer(micro, with_entropy=False)
        (weights[micro.tokens] * of_tokens).sum().backward()
    return {
        "class": type(policy.model).__name__,
        "packing": policy.canary["packing"],
        "attention": policy.canary["attention"],
        "passed_over": policy.canary["passed_over"],
        "logprob_error": (ours - theirs).abs().max().item(),
        "gradient_error": _largest_difference(policy.model, plain),
    }


def save_tiny(family: str, folder: Path) -> None:
    """Write a tiny random model as its makers publish it: with the configuration of the whole family."""
    if family in NOT_BUILT:
        tiny_config(CONFIG_MAPPING[family], SPECIAL.get(family, {})).save_pretrained(folder)
        save_file({}, folder / "model.safetensors", {"format": "pt"})
        return
    model = tiny_model(family)
    model.save_pretrained(folder)
    model.published_config.save_pretrained(folder)


def sequences(vocabulary: int) -> tuple[list[list[int]], list[list[int]]]:
    """Groups of 3, 2 and 1 completions of prompts of 5, 9 and 2 tokens: up to 17 tokens, more than any window."""
    draw = rng("families")
    prompts, completions = [], []
    for prompt, lengths in ((5, (3, 8, 12)), (9, (4, 7)), (2, (11,))):
        tokens = [draw.randrange(3, vocabulary) for _ in range(prompt)]
        prompts += [tokens] * len(lengths)
        completions += [[draw.randrange(3, vocabulary) for _ in range(length)] for length in lengths]
    return prompts, completions


def _logprobs(
    model: PreTrainedModel, prompts: list[list[int]], completions: list[list[int]], without_cache: dict[str, Any]
) -> torch.Tensor:
    found = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = model(input_ids=torch.tensor([prompt + completion]), **without_cache)[0][0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(found)


def _largest_difference(ours: PreTrainedModel, plain: PreTrainedModel) -> float:
    theirs = {name: parameter.grad for name, parameter in plain.named_parameters() if parameter.grad is not None}
    least = 1e-3 * max(gradient.norm() for gradient in theirs.values())  # smaller ones are rounding beside the others
    differences = [
        (parameter.grad - theirs[name]).norm() / max(theirs[name].norm(), least)
        for name, parameter in ours.named_parameters()
        if name in theirs
    ]
    return torch.stack(differences).max().item()


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, a family a line."""
    lines = [
        "| family | packing | attention | largest error: log-probs (nats) | gradients | vLLM |",
        "|---|---|---|---|---|---|",
    ]
    for family, found in sorted(results.items()):
        if "refused" in found:
            lines.append(f"| {family} | refused: {found['refused']} ({found['message']}) | | | | |")
        else:
            errors = f"{found['logprob_error']:.0e} | {found['gradient_error']:.0e}"
            lines.append(f"| {family} | {found['packing']} | {found['attention'] or 'its own'} | {errors} | {in_vllm(found)} |")
    return "\n".join(lines) + "\n"


def in_vllm(found: dict[str, Any]) -> str:
    """What `python -m benchmarks.families` found, for a cell."""
    if "engine" not in found:
        return "not tried"
    if found["engine"] != "started":
        return f"does not start: {_cell(found['engine'])}"
    gaps = {"before": found.get("start_gap"), "after a sync": found["engine_gap"], "export": found["export_gap"]}
    for when, gap in gaps.items():
        if isinstance(gap, str):
            return f"refused: {_cell(gap)}" if gap.startswith("StaleWeights") else f"fails: {_cell(gap)}"
        if gap is not None and not gap < FAR:
            how = "wrong" if gap > ROUGH else "inexact"
            return f"{how}: {gap:.0e} {'before any sync' if when == 'before' else when}"
    return f"right: {max(gap for gap in gaps.values() if gap is not None):.0e}"


def _cell(message: str) -> str:
    message = re.sub(r"1 validation error for \w+ ?((Value error|Assertion failed), )?", "", message)
    return message.replace("|", "/")[:120].strip()


def main(families: list[str]) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    results = json.loads(RESULTS.read_text())
    failed = []
    for family in families or FAMILIES:
        engine = {key: value for key, value in results.get(family, {}).items() if key in OF_ENGINES}
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = measure(family, Path(folder))
            except Exception as fault:  # one family does not stop the others
                reason, message = NOT_TRAINED.get(family, ("", ""))
                if not isinstance(fault, UnsupportedModel) or message not in str(fault) or not reason:
                    failed.append(family)
                    print(family, f"{type(fault).__name__}: {fault}", flush=True)
                    continue
                found = {"refused": reason, "message": message}
        results[family] = {**found, **engine}
        print(family, json.dumps(found), flush=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    write_page(results)
    if failed:
        raise SystemExit(f"neither right nor refused: {', '.join(failed)}")


def write_page(results: dict[str, dict[str, Any]]) -> None:
    """The table of docs/models.md."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(results) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main(sys.argv[1:])
