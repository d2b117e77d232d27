"""Does this machine's GPU train as it should: ``python -m benchmarks.gpu_check`` (or ``make gpu-check``).

Ten minutes at most on one CUDA GPU, no network: a random model, generated problems. Three fresh processes: the update alone
(tokens/s, and its share of what a large matrix product reaches here), and a training job of GRPO and one of SFPO in bfloat16
(sleep and wake of the engine, the gap between its log-probs and the policy's, memory, seconds a step). What needs vLLM is left
out, and said, where vLLM is not installed: transformers samples then. Writes gpu_check.json and gpu_check.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import Arm, Turns, alone
from benchmarks.workload import ALL_CORES, TASK, given_batch, prepare_data
from sfpo.manifest import write_json, write_text

FAST_STEPS, ALPHA = 3, 0.8
GROUP = 8
PRODUCTS = 20
"""Matrix products, and updates, that are timed together."""


@dataclass(frozen=True)
class Size:
    """Of the model (Qwen2 shapes) and of the work."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocabulary: int
    completion_tokens: int
    completions: int
    product: int
    """Rows and columns of the matrices whose product tells what the device can do."""
    steps: int


FULL = Size(896, 4864, 24, 14, 151_936, 512, 64, 8192, 6)
"""Qwen2.5-0.5B's shapes; half a gigabyte of bfloat16 weights, 2 GB of float32 masters."""
QUICK = Size(64, 128, 2, 2, 512, 16, 16, 256, 3)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="a tiny model: does it run?")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    found = check(QUICK if arguments.quick else FULL)
    write_json(arguments.out / "gpu_check.json", found)
    write_text(arguments.out / "gpu_check.md", page(found))
    print(page(found))


def check(size: Size) -> dict[str, Any]:
    """Everything that can be measured here.

    Returns:
        machine, versions, library (vllm or transformers), left_out (in words), minutes; figures of update, grpo and sfpo.
    """
    from sfpo.provenance import hardware, versions

    started = time.perf_counter()
    vllm = importlib.util.find_spec("vllm") is not None
    found: dict[str, Any] = {
        "machine": hardware(),
        "versions": versions(),
        "library": "vllm" if vllm else "transformers",
        "left_out": [] if vllm else ["vLLM is not installed: its sleep and wake, its memory and its speed are not checked"],
    }
    if not found["machine"]["gpus"]:
        found["left_out"].append("there is no CUDA GPU: these are figures of a CPU, where the engine does not sleep")
    with tempfile.TemporaryDirectory() as folder:
        _write_checkpoint(size, Path(folder) / "checkpoint")
        prepare_data(Path(folder) / "data")
        found["update"] = alone(Arm(update, ALL_CORES, {"size": size, "folder": folder}))
        for rule in ("grpo", "sfpo"):
            logging.info("%s", rule)
            settings = {"size": size, "folder": folder, "rule": rule, "library": found["library"]}
            found[rule] = alone(Arm(training, ALL_CORES, settings))
    return {**found, "minutes": round((time.perf_counter() - started) / 60, 1)}


def _write_checkpoint(size: Size, folder: Path) -> None:
    """A random policy, with a tokenizer of its own below a vocabulary as large as a real one's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from sfpo.data.arithmetic import generate
    from sfpo.models.scratch import train_tokenizer

    tokenizer = train_tokenizer([row.problem for row in generate(TASK, "train", 200)], 512)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=max(size.vocabulary, len(tokenizer)),
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **special,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _train_settings(size: Size) -> Any:
    from sfpo.config import Train

    return Train.model_validate(
        {
            "steps": size.steps,
            "prompts_per_step": size.completions // GROUP,
            "completions_per_prompt": GROUP,
            "mini_batch_prompts": size.completions // GROUP,
            "optimizer": {"learning_rate": 1e-6},
            "validation": {"every": size.steps, "prompts": 1, "samples": 1},
            "policy_dtype": "bfloat16",
        }
    )


def _execution(size: Size) -> Any:
    from sfpo.config import Engine, Execution

    engine = Engine(max_sequences=size.completions)
    return Execution(micro_batch_tokens=8192, save_every=size.steps, tensorboard=False, engine=engine)


def update(turns: Turns, size: Size, folder: str) -> None:
    """A turn: updates of GRPO on random tokens, and matrix products of the same data type."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sfpo.config import load_params
    from sfpo.trainer.metrics import peak_memory_mb
    from sfpo.trainer.policy import Policy

    turns.wait()
    objective, train, execution = load_params().objectives["grpo"], _train_settings(size), _execution(size)
    policy = Policy(f"{folder}/checkpoint", objective, train, execution, size.completion_tokens)
    batch = given_batch(size.vocabulary, 64, GROUP, [size.completion_tokens] * size.completions)
    tokens = 64 * size.completions // GROUP + size.completion_tokens * size.completions
    policy.descend(batch)
    with FlopCounterMode(display=False) as counter:
        policy.descend(batch)
    seconds = _seconds(lambda: policy.descend(batch), 3)
    square = torch.randn(size.product, size.product, device=policy.device, dtype=torch.bfloat16)
    product_seconds = _seconds(lambda: square @ square, PRODUCTS)
    reached, possible = counter.get_total_flops() / seconds, 2 * size.product**3 / product_seconds
    turns.report(
        {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "teraflops": reached / 1e12,
            "teraflops_of_a_product": possible / 1e12,
            "share_of_a_product": reached / possible,
            "peak_mib": peak_memory_mb(),
        }
    )


def _seconds(work: Any, times: int) -> float:
    """Mean over several, after one that does not count."""
    import torch

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    work()
    synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    synchronize()
    return (time.perf_counter() - started) / times


def training(turns: Turns, size: Size, folder: str, rule: str, library: str) -> None:
    """A turn: a training job of a few steps; its first step is sampled before the engine has slept, the others after."""
    from sfpo.algorithms.update_rules import complete_settings
    from sfpo.config import ModelLimits, Sampler, load_params
    from sfpo.settings import Recipe, RuleSettings, RunId, RunSettings
    from sfpo.trainer.loop import train

    turns.wait()
    sfpo = {"num_fast_steps": FAST_STEPS, "alpha": ALPHA, "entropy_trigger": None} if rule == "sfpo" else {}
    recipe = Recipe(
        model="random",
        data=TASK,
        grader="math",
        limits=ModelLimits(max_prompt_tokens=256, max_completion_tokens=size.completion_tokens),
        instruction="{problem}",
        seed=0,
        rule=RuleSettings(name=rule, settings=complete_settings(rule, sfpo)),
        learning_rate_scale=1.0,
        # A random policy is never right, so all advantages are 0: the entropy bonus gives every completion a gradient.
        objective=load_params().objectives["grpo"].model_copy(update={"entropy_coefficient": 0.01}),
        train=_train_settings(size),
        sampler=Sampler(library=library, dtype="bfloat16"),
    )
    settings = RunSettings(
        run=RunId(suite="gpu-check", model="random", dataset=TASK, arm=rule, seed=0),
        model_path=f"{folder}/checkpoint",
        data_path=f"{folder}/data",
        recipe=recipe,
        execution=_execution(size),
    )
    out = Path(folder) / rule
    out.mkdir()
    train(settings, out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    later = records[1:]
    spent = {name: later[-1]["seconds"][name] - records[0]["seconds"][name] for name in ("generate", "update", "sync", "total")}
    turns.report(
        {
            "seconds_a_step": spent["total"] / len(later),
            **{f"seconds_{name}": seconds / len(later) for name, seconds in spent.items() if name != "total"},
            "gap_before_sleep": records[0]["sampler_gap_mean"],
            "gap_after_wake": max(record["sampler_gap_mean"] for record in later),
            "gap_after_wake_max": max(record["sampler_gap_max"] for record in later),
            "peak_mib": records[-1]["peak_memory_mb"],
            "skipped": sum(one["skipped"] for record in records for one in record["updates"]),
        }
    )


def page(found: dict[str, Any]) -> str:
    """One page for a person."""
    grpo, sfpo, alone_ = found["grpo"], found["sfpo"], found["update"]
    device = ", ".join(found["machine"]["gpus"]) or found["machine"]["cpu"]
    rows = [
        ("seconds a step", "seconds_a_step", "{:.2f}"),
        ("of it: generation", "seconds_generate", "{:.2f}"),
        ("of it: update", "seconds_update", "{:.2f}"),
        ("of it: weight sync", "seconds_sync", "{:.2f}"),
        ("peak memory of torch, MiB", "peak_mib", "{:.0f}"),
        ("log-prob gap before the first sleep, nats (mean)", "gap_before_sleep", "{:.1e}"),
        ("log-prob gap after wake-ups, nats (largest mean)", "gap_after_wake", "{:.1e}"),
        ("log-prob gap after wake-ups, nats (one token)", "gap_after_wake_max", "{:.1e}"),
        ("updates skipped as not finite", "skipped", "{:.0f}"),
    ]
    lines = [
        f"# GPU check: {device}",
        "",
        f"{found['minutes']} minutes; sampled by {found['library']}; "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        *(f"\n**Left out:** {text}." for text in found["left_out"]),
        "",
        "| training in bfloat16 | GRPO | SFPO (K = 3) | SFPO / GRPO |",
        "|:--|--:|--:|--:|",
    ]
    for title, key, form in rows:
        one, other = grpo[key], sfpo[key]
        ratio = f"{other / one:.2f}" if one and not key.startswith(("gap", "skipped")) else ""
        lines.append(f"| {title} | {form.format(one)} | {form.format(other)} | {ratio} |")
    lines += [
        "",
        f"An update alone: {alone_['tokens_per_second']:,.0f} tokens/s, {alone_['teraflops']:.3g} TFLOP/s, "
        f"{100 * alone_['share_of_a_product']:.0f}% of the {alone_['teraflops_of_a_product']:.3g} TFLOP/s that a product of "
        f"two large bfloat16 matrices reaches here; peak memory {alone_['peak_mib']:.0f} MiB.",
        "",
        "An SFPO step is K fast updates and a slow one on one batch of rollouts: its update takes about 4 times GRPO's, and "
        "its memory is one copy of the float32 weights more.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
