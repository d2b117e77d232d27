"""The measurements of benchmarks.gpu_check, one part per process: ``python -m benchmarks.gpu_parts <part> <folder> [--quick]``.

A part prints each result as a JSON line as soon as it is measured, so that none is lost at a time limit. The folder contains
the checkpoint of a random model and generated problems (``prepare``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.workload import TASK, given_batch, prepare_data

FAST_STEPS, ALPHA = 3, 0.8
GROUP = 8
PROMPT = 64


@dataclass(frozen=True)
class Size:
    """Sizes of the model (Qwen2 architecture) and of the workload."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocabulary: int
    completion_tokens: int
    completions: int
    long_completion_tokens: int
    product: int
    """Rows and columns of the matrices whose product measures the device's peak speed."""
    steps: int
    head_positions: int
    """Number of positions for the benchmark of log-probs."""


FULL = Size(896, 4864, 24, 14, 151_936, 512, 64, 6144, 8192, 4, 12_288)
"""Qwen2.5-0.5B's shapes; half a gigabyte of bfloat16 weights, 2 GB of float32 masters."""
QUICK = Size(64, 128, 2, 2, 512, 16, 16, 48, 256, 3, 64)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _seconds(work: Callable[[], Any], times: int) -> float:
    """Mean seconds over ``times`` calls, after one warm-up call."""
    work()
    _synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    _synchronize()
    return (time.perf_counter() - started) / times


def prepare(size: Size, folder: Path) -> None:
    """Write a random model with a small tokenizer but an embedding as large as a real one's, and generated problems."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from sfpo.data.arithmetic import generate
    from sfpo.models.scratch import train_tokenizer

    rows = generate(TASK, "train", 200)
    tokenizer = train_tokenizer([text for row in rows for text in (row.problem, row.solution) if text], 512)
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
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    prepare_data(folder / "data")


def sharding(size: Size, folder: Path) -> None:
    """FSDP2 under torchrun on all GPUs, and on one, compared with the same updates without a process group."""
    import torch

    if size is not QUICK:  # only rounding matters, so a small model is enough
        prepare(QUICK, folder / "small")
    checkpoint = (folder if size is QUICK else folder / "small") / "checkpoint"
    ranks = sorted({1, min(4, torch.cuda.device_count())} - {0})
    launchers = {0: [], **{n: ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)] for n in ranks}}
    for number, launcher in launchers.items():
        out = folder / f"ranks{number}"
        out.mkdir()
        command = [sys.executable, *launcher, "-m", "tests.trainer.fixed_rollouts", str(checkpoint), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(ranks=number, error=done.stderr[-2000:])
    from safetensors.torch import load_file

    for number in ranks:
        for alone in sorted((folder / "ranks0").glob("*.safetensors")):
            other = folder / f"ranks{number}" / alone.name
            if other.is_file():
                one, same = load_file(alone), load_file(other)
                gap = max((one[name].float() - same[name].float()).abs().max().item() for name in one)
                say(ranks=number, case=alone.stem, gap=gap)


def attention(size: Size, folder: Path) -> None:
    """Attention kernels for a completion after its prompt: forward and backward in bfloat16, compared with a float32 mask."""
    import torch
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads, kv, width = (2, 1, 16) if size is QUICK else (12, 2, 128)

    def of_all_heads(k: Any, v: Any) -> tuple[Any, Any]:
        return k.repeat_interleave(heads // kv, 1), v.repeat_interleave(heads // kv, 1)

    def mask(q: Any, k: Any, v: Any) -> Any:
        visible = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=device).tril(k.shape[2] - q.shape[2])
        return sdpa(q, *of_all_heads(k, v), attn_mask=visible)

    def lower_right(q: Any, k: Any, v: Any) -> Any:
        bias = causal_lower_right(q.shape[2], k.shape[2])
        return sdpa(q, *of_all_heads(k, v), attn_mask=bias)

    def varlen(q: Any, k: Any, v: Any) -> Any:
        from torch.nn.attention.varlen import varlen_attn

        ends_q, ends_k = (torch.tensor([0, x.shape[2]], dtype=torch.int32, device=device) for x in (q, k))
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
        one: Any = varlen_attn(q, k, v, ends_q, ends_k, len(q), len(k), window_size=(-1, 0), enable_gqa=True)
        return one.transpose(0, 1)[None]

    for prompt, completion in ((16, 32),) if size is QUICK else ((180, 512), (180, 2048), (180, 6144)):
        shapes = ((heads, completion), (kv, prompt + completion), (kv, prompt + completion))
        given = [torch.randn(1, count, tokens, width, device=device, requires_grad=True) for count, tokens in shapes]
        low = [x.detach().bfloat16().requires_grad_() for x in given]
        upstream = torch.randn(1, heads, completion, width, device=device)
        expected = [mask(*given), *torch.autograd.grad(mask(*given), given, upstream)]
        for kernel in (mask, lower_right, varlen):

            def both(kernel: Callable[..., Any] = kernel, low: Any = low, upstream: Any = upstream) -> list[Any]:
                out = kernel(*low)
                return [out, *torch.autograd.grad(out, low, upstream.bfloat16())]

            facts = {"kernel": kernel.__name__, "completion": completion}
            try:
                gaps = [((a - b.float()).norm() / a.norm()).item() for a, b in zip(expected, both(), strict=True)]
                say(**facts, relative_gap=max(gaps), ms=1e3 * _seconds(both, 10))
            except Exception as fault:  # a kernel that this torch or device does not support
                say(**facts, error=f"{type(fault).__name__}: {str(fault)[:300]}")
        for window in (None, completion // 2):
            _row_of_groups((heads, kv, width), prompt, completion, window, device)


def _row_of_groups(shape: tuple[int, int, int], prompt: int, completion: int, window: int | None, device: str) -> None:
    """Attention of an update: a row of two groups in bfloat16, beside completion by completion in float32."""
    import torch
    from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

    from sfpo.trainer.attention import packed_attention
    from sfpo.trainer.masks import PromptGroup, group_mask, packed
    from sfpo.trainer.packing import varlen

    heads, kv, width = shape
    groups = [PromptGroup(prompt, [completion // 4, completion]), PromptGroup(prompt, [completion // 2])]
    tokens = sum(sum(group.segments()) for group in groups)
    sees = sliding_window_causal_mask_function(window) if window else causal_mask_function
    on_gpu = device == "cuda"
    with packed(groups, varlen(groups, torch.device(device)) if on_gpu else None):
        mask = group_mask(1, tokens, tokens, sees, device=device)
    given = [torch.randn(1, count, tokens, width, device=device, requires_grad=True) for count in (heads, kv, kv)]
    low = [x.detach().bfloat16().requires_grad_() for x in given]
    upstream = torch.randn(1, tokens, heads, width, device=device)

    def both(tensors: Any) -> list[Any]:
        query, key, value = tensors
        out, _ = packed_attention(torch.nn.Module(), query, key, value, mask)
        return [out, *torch.autograd.grad(out, tensors, upstream.to(out.dtype))]

    facts = {"kernel": f"row, window {window}" if window else "row", "completion": completion}
    try:
        gaps = [((a - b.float()).norm() / a.norm()).item() for a, b in zip(both(given), both(low), strict=True)]
        say(**facts, relative_gap=max(gaps), ms=1e3 * _seconds(partial(both, low), 10))
    except Exception as fault:  # a kernel that this torch or device does not have
        say(**facts, error=f"{type(fault).__name__}: {str(fault)[:300]}")


def logprobs(size: Size, folder: Path) -> None:
    """Log-probs in vocabulary slices of several sizes, compared with whole logits and with the unavoidable matrix products."""
    import torch

    from sfpo.algorithms.logprobs import LOGITS_AT_ONCE, token_logprobs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n, width, vocabulary = size.head_positions, 1536 if size is FULL else size.hidden_size, size.vocabulary
    hidden = torch.randn(n, width, device=device, dtype=torch.bfloat16, requires_grad=True)
    head = (0.02 * torch.randn(vocabulary, width, device=device)).requires_grad_()
    tokens, weights = torch.randint(vocabulary, (n,), device=device), torch.randn(n, device=device)

    def whole() -> Any:
        logits = torch.nn.functional.linear(hidden, head.bfloat16()).float()
        return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)

    def products() -> None:
        matrix, rows = head.detach().bfloat16(), hidden.detach()
        logits = rows @ matrix.T
        logits @ matrix, logits.T @ rows, rows @ matrix.T  # two gradients, and recomputed logits

    def in_slices(at_once: int) -> Any:
        return token_logprobs(hidden, head, tokens, 1.0, False, at_once)[0]

    def gradients(form: Callable[[], Any]) -> Any:
        return torch.autograd.grad((form() * weights).sum(), (hidden, head))

    own = LOGITS_AT_ONCE[device]
    forms: dict[str, Callable[[], Any]] = {
        f"slices of {at_once}": partial(in_slices, at_once)
        for at_once in (own, *((2**25, 2**27, 2**29) if size is FULL else (own // 2,)))
    }
    expected = None
    for name, form in {"whole logits": whole, **forms}.items():
        try:
            values = form().detach()
            expected = values if expected is None else expected
            seconds = _seconds(partial(gradients, form), 3)
            say(form=name, own=name == f"slices of {own}", ms=1e3 * seconds, gap=(values - expected).abs().max().item())
        except torch.OutOfMemoryError:
            say(form=name, error="out of memory")
    say(form="products alone", ms=1e3 * _seconds(products, 3))


def update(size: Size, folder: Path) -> None:
    """One update with short, varied and long completions: speed relative to a matrix product, and host synchronizations."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    from sfpo.config import load_params
    from sfpo.trainer.metrics import peak_memory_mb
    from sfpo.trainer.policy import Policy

    cases = {
        "short": [size.completion_tokens] * size.completions,
        "varied": [
            max(1, size.completion_tokens - 37 * row % (3 * size.completion_tokens // 4)) for row in range(size.completions)
        ],
        "long": [size.long_completion_tokens] * GROUP,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    square = torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16)
    of_a_product = 2 * size.product**3 / _seconds(lambda: square @ square, 20)
    for name, lengths in cases.items():
        execution = _execution(size).model_copy(update={"gradient_checkpointing": name == "long"})
        policy = Policy(
            f"{folder}/checkpoint",
            load_params().objectives["grpo"],
            _train_settings(size, len(lengths)),
            execution,
            max(lengths),
        )
        batch = given_batch(size.vocabulary, PROMPT, GROUP, lengths)
        tokens = PROMPT * len(lengths) // GROUP + sum(lengths)
        policy.descend(batch)
        with FlopCounterMode(display=False) as counter:
            policy.descend(batch)
        seconds = _seconds(partial(policy.descend, batch), 2)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            loss = policy.descend(batch).metrics["loss"]
        waits = sum(
            event.count
            for event in recorded.key_averages()
            if event.key in ("aten::_local_scalar_dense", "cudaStreamSynchronize")
        )
        say(
            lengths=name,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            teraflops=counter.get_total_flops() / seconds / 1e12,
            teraflops_of_a_product=of_a_product / 1e12,
            share_of_a_product=counter.get_total_flops() / seconds / of_a_product,
            waits_of_the_host=waits,
            peak_mib=peak_memory_mb(),
            finite=loss == loss and abs(loss) < float("inf"),
        )
        del policy
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def memory(size: Size, folder: Path) -> None:
    """The trainer's memory (held, reserved and in use on the device), with and without expandable segments."""
    for setting in ("", "expandable_segments:True"):
        command = [sys.executable, "-m", "benchmarks.gpu_parts", "memory_of_a_step", str(folder)]
        variables = {"PYTORCH_ALLOC_CONF": setting, "PYTORCH_CUDA_ALLOC_CONF": setting} if setting else {}
        subprocess.run([*command, *(["--quick"] if size is QUICK else [])], env={**os.environ, **variables}, check=False)


def memory_of_a_step(size: Size, folder: Path) -> None:
    """The measurement of ``memory``, in its own process."""
    import torch

    from sfpo.algorithms.weights import reposition_, snapshot
    from sfpo.config import load_params
    from sfpo.trainer.policy import Policy

    objective, train = load_params().objectives["grpo"], _train_settings(size, size.completions)
    policy = Policy(f"{folder}/checkpoint", objective, train, _execution(size), size.completion_tokens)
    batch = given_batch(size.vocabulary, PROMPT, GROUP, [size.completion_tokens] * size.completions)
    for _ in range(2):
        start = snapshot(policy.parameters())
        policy.descend(batch)
        _synchronize()
        started = time.perf_counter()
        reposition_(policy.parameters(), start, ALPHA)
        _synchronize()
        reposition_seconds = time.perf_counter() - started
        policy.descend(batch)
        del start
    facts = {"allocator": os.environ.get("PYTORCH_ALLOC_CONF", "default"), "reposition_ms": 1e3 * reposition_seconds}
    facts["held_mib"] = 12 * sum(parameter.numel() for parameter in policy.parameters()) / 2**20  # weights, two moments
    if torch.cuda.is_available():
        _synchronize()
        torch.cuda.empty_cache()
        free, whole = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        facts |= {"reserved_mib": reserved / 2**20, "outside_the_allocator_mib": (whole - free - reserved) / 2**20}
    say(**facts)


def grpo(size: Size, folder: Path) -> None:
    _training(size, folder, "grpo")


def sfpo(size: Size, folder: Path) -> None:
    _training(size, folder, "sfpo")


def _training(size: Size, folder: Path, rule: str) -> None:
    """A training job of a few steps: the first is sampled before the engine has slept, the others after."""
    from sfpo.algorithms.update_rules import complete_settings
    from sfpo.config import ModelLimits, Sampler, load_params
    from sfpo.settings import Recipe, RuleSettings, RunId, RunSettings
    from sfpo.trainer.loop import train

    of_rule = {"num_fast_steps": FAST_STEPS, "alpha": ALPHA, "entropy_trigger": None} if rule == "sfpo" else {}
    recipe = Recipe(
        model="random",
        data=TASK,
        grader="math",
        limits=ModelLimits(max_prompt_tokens=256, max_completion_tokens=size.completion_tokens),
        instruction="{problem}",
        seed=0,
        rule=RuleSettings(name=rule, settings=complete_settings(rule, of_rule)),
        learning_rate_scale=1.0,
        # A random policy is never right, so all advantages are 0: the entropy bonus gives every completion a gradient.
        objective=load_params().objectives["grpo"].model_copy(update={"entropy_coefficient": 0.01}),
        train=_train_settings(size, size.completions),
        sampler=Sampler(library=library(), dtype="bfloat16"),
    )
    settings = RunSettings(
        run=RunId(suite="gpu-check", model="random", dataset=TASK, arm=rule, seed=0),
        model_path=f"{folder}/checkpoint",
        data_path=f"{folder}/data",
        recipe=recipe,
        execution=_execution(size),
    )
    out = folder / rule
    out.mkdir()
    started = time.perf_counter()
    train(settings, out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    later = records[1:]
    spent = {name: later[-1]["seconds"][name] - records[0]["seconds"][name] for name in ("generate", "update", "sync", "total")}
    say(
        seconds_a_step=spent["total"] / len(later),
        **{f"seconds_{name}": seconds / len(later) for name, seconds in spent.items() if name != "total"},
        seconds_of_the_job=time.perf_counter() - started,
        gap_before_sleep=records[0]["sampler_gap_mean"],
        gap_after_wake=max(record["sampler_gap_mean"] for record in later),
        gap_after_wake_max=max(record["sampler_gap_max"] for record in later),
        peak_mib=records[-1]["peak_memory_mb"],
        skipped=sum(one["skipped"] for record in records for one in record["updates"]),
    )


def library() -> str:
    """The library that samples: vllm if it is installed, otherwise transformers."""
    import importlib.util

    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def _train_settings(size: Size, completions: int) -> Any:
    from sfpo.config import Train

    prompts = completions // GROUP
    return Train.model_validate(
        {
            "steps": size.steps,
            "prompts_per_step": prompts,
            "completions_per_prompt": GROUP,
            "mini_batch_prompts": prompts,
            "optimizer": {"learning_rate": 1e-6},
            "validation": {"every": size.steps, "prompts": 1, "samples": 1},
            "policy_dtype": "bfloat16",
        }
    )


def _execution(size: Size) -> Any:
    from sfpo.config import Engine, Execution

    engine = Engine(max_sequences=size.completions)
    return Execution(micro_batch_tokens=8192, save_every=size.steps, report_to=(), engine=engine)


PARTS = {part.__name__: part for part in (sharding, grpo, sfpo, attention, update, logprobs, memory, memory_of_a_step)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    PARTS[arguments.part](QUICK if arguments.quick else FULL, arguments.folder)


if __name__ == "__main__":
    main()
