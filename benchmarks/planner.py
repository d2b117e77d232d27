"""Ratio of planned to measured memory of an update in float32 on a CPU: three sizes of Qwen2, and five other families.

Each measurement runs in a new process, with updates on two completely full micro-batches. It is the kernel's high-water mark of
the resident set, minus what was resident before the policy was created (after an update of a small policy, so that libraries
are loaded), with every tensor on its own pages (see benchmarks.memory). The engine is left out. One turn each, since
allocations are deterministic.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Result, Spread, result, spread
from benchmarks.memory import PAGES
from benchmarks.sides import Candidate, Options, Turns, single_turn
from benchmarks.workload import given_batch
from sfpo.config import Execution, Lora, ModelLimits, Sampler, Train, load_params

if TYPE_CHECKING:
    from sfpo.algorithms.update_rules import UpdateRule
    from sfpo.trainer.policy import Policy

log = logging.getLogger(__name__)

PROMPT_TOKENS = 32


@dataclass(frozen=True)
class Size:
    """A model with random weights, and its micro-batch: one prompt with ``group`` completions of equal length."""

    config: dict[str, Any]
    group: int
    completion_tokens: int

    @property
    def train(self) -> Train:
        counts = {"prompts_per_step": 2, "mini_batch_prompts": 2, "completions_per_prompt": self.group}
        return load_params().suites["tiny"].train.model_copy(update=counts)

    def execution(self, checkpointing: bool) -> Execution:
        tokens = PROMPT_TOKENS + self.group * self.completion_tokens
        changes = {"micro_batch_tokens": tokens, "gradient_checkpointing": checkpointing}
        return load_params().suites["tiny"].execution.model_copy(update=changes)

    @property
    def limits(self) -> ModelLimits:
        return ModelLimits(max_prompt_tokens=PROMPT_TOKENS, max_completion_tokens=self.completion_tokens)


def _size(
    width: int, inner: int, layers: int, heads: tuple[int, int], vocabulary: int, tied: bool, batch: tuple[int, int]
) -> Size:
    config = {
        "model_type": "qwen2",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return Size(config, *batch)


SIZES = {
    "1M": _size(192, 512, 2, (6, 6), 512, True, (16, 254)),
    "19M": _size(384, 1024, 8, (6, 2), 16_000, True, (8, 124)),
    "100M": _size(768, 2048, 12, (12, 4), 16_000, False, (4, 120)),
}
MEDIUM = {key: value for key, value in SIZES["19M"].config.items() if key != "model_type"}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 64, "sliding_window": 154, "query_pre_attn_scalar": 64},
    "granite": {"logits_scaling": 8.0, "residual_multiplier": 0.22, "attention_multiplier": 0.0156},
    "olmo2": {},
    "phi3": {"sliding_window": 154, "pad_token_id": 0},
    "qwen2_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    | {"shared_expert_intermediate_size": 512},
}
"""model_type -> settings of its configuration beside those of the 19M Qwen2. Windows are shorter than a sequence of 156 tokens,
and too long for the canary to cross."""
SIZES |= {
    family: Size({**MEDIUM, **special, "model_type": family}, SIZES["19M"].group, SIZES["19M"].completion_tokens)
    for family, special in FAMILIES.items()
}
WARM_UP = _size(32, 64, 1, (2, 2), 64, True, (2, 8))
SFPO_ONCE = {"num_fast_steps": 1}
ARMS: dict[str, tuple[str, dict[str, Any], Lora | None]] = {
    "grpo": ("grpo", {}, None),
    "sfpo": ("sfpo", SFPO_ONCE, None),
    "sfpo_lora": ("sfpo", SFPO_ONCE, Lora(rank=16, alpha=32.0)),
}
"""Name -> rule, its settings, adapters."""


def peak(turns: Turns, size: str, arm: str, checkpointing: bool) -> None:
    """A turn: measured peak of two updates in MiB (the first allocates the optimizer's moments), and the planned one."""
    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.plan.memory import Job, total, training
    from sfpo.plan.shapes import shape_of
    from sfpo.trainer.metrics import peak_memory_mb

    turns.wait()
    rule, settings, lora = ARMS[arm]
    made = make_update_rule(rule, **settings)
    step(policy_of(WARM_UP, False, lora), WARM_UP, made)
    gc.collect()
    before = resident_mib()
    one = SIZES[size]
    policy = policy_of(one, checkpointing, lora)
    for _ in range(1 if rule == "sfpo" else 2):
        step(policy, one, made)
    copies = made.weight_copies(on_gpu=False)
    execution = one.execution(checkpointing)
    shape = shape_of(policy.model.config.to_dict(), size)
    job = Job(shape, policy.train, execution, Sampler(), one.limits, copies, "cpu")
    planned = max(total(parts) for parts in training(job).values()) / 2**20
    turns.report({"seconds": 0.0, "measured_mib": peak_memory_mb() - before, "planned_mib": planned})


def policy_of(size: Size, checkpointing: bool, lora: Lora | None) -> Policy:
    from transformers import AutoConfig, AutoModelForCausalLM

    from sfpo.trainer.policy import Policy

    train = size.train.model_copy(update={"lora": lora})
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**size.config))
        # As transformers holds it: of experts that are stored apart, the file's pages would stay beside the tensors made of
        # them (until the kernel needs the memory).
        model.save_pretrained(Path(folder), save_original_format=False)
        objective, execution = load_params().objectives["grpo"], size.execution(checkpointing)
        return Policy(folder, objective, train, execution, size.completion_tokens)


def step(policy: Policy, size: Size, rule: UpdateRule) -> None:
    batch = given_batch(size.config["vocab_size"], PROMPT_TOKENS, size.group, [size.completion_tokens] * 2 * size.group)
    rule.step(policy, batch)


def resident_mib() -> float:
    """Current resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(options: Options) -> Result:
    figures: dict[str, Spread] = {}
    ratios: dict[str, float] = {}
    for size, arm, checkpointing in product(list(SIZES)[:1] if options.quick else SIZES, ARMS, (False, True)):
        settings = {"size": size, "arm": arm, "checkpointing": checkpointing}
        name = f"{size}_{arm}{'_checkpointing' * checkpointing}"
        turn = single_turn(Candidate(peak, 1, settings, PAGES))
        ratios[name] = turn["planned_mib"] / turn["measured_mib"]
        figures |= {f"{key}_{name}": spread([turn[key]]) for key in ("planned_mib", "measured_mib")}
        figures[f"planned_over_measured_{name}"] = spread([ratios[name]])
        log.info("%s: planned / measured = %.3f", name, ratios[name])
    return result({"planner_error": spread([max(abs(ratio - 1) for ratio in ratios.values())]), **figures}, {})
