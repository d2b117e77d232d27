"""Additional memory of an SFPO step compared with a GRPO step, in copies of the weights.

Each rule runs in a new process; its peak is the kernel's high-water mark of the resident set. That is exact to the page here:
with ``MALLOC_MMAP_THRESHOLD_`` every tensor of 64 KiB or more has its own pages, which are returned when it is freed, so that
only live tensors are resident. The engine is left out, since it is the same for both.
"""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Result, result, spread
from benchmarks.sides import Candidate, Options, Turns, single_turn
from benchmarks.workload import TOKENS, Work, given_batch, work_of

COMPLETIONS, GROUP, PROMPT_TOKENS, FAST_STEPS = 8, 8, 32, 3
STEPS = 2
"""The first step allocates the optimizer's moments."""
PAGES = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}


def peak(turns: Turns, work: Work, rule: str) -> None:
    """A turn: the peak of the process over some steps of the rule, and the bytes of the weights."""
    from transformers import AutoConfig

    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.trainer.metrics import peak_memory_mb

    turns.wait()
    policy = work.policy(COMPLETIONS // GROUP)
    vocabulary = AutoConfig.from_pretrained(work.checkpoint).vocab_size
    batch = given_batch(vocabulary, PROMPT_TOKENS, GROUP, [TOKENS] * COMPLETIONS)
    settings: dict[str, Any] = {"num_fast_steps": FAST_STEPS} if rule == "sfpo" else {}
    step = make_update_rule(rule, **settings).step
    for _ in range(STEPS):
        step(policy, batch)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters())
    turns.report({"seconds": 0.0, "peak_mib": peak_memory_mb(), "weights_mib": weights / 2**20})


def run(options: Options) -> Result:
    work = work_of(options)
    candidates = {rule: Candidate(peak, 1, {"work": work, "rule": rule}, PAGES) for rule in ("grpo", "sfpo")}
    peaks: dict[str, list[float]] = {rule: [] for rule in candidates}
    for _ in range(options.repetitions):
        for rule, candidate in candidates.items():
            figures = single_turn(candidate)
            peaks[rule].append(figures["peak_mib"])
    copies = [(sfpo - grpo) / figures["weights_mib"] for sfpo, grpo in zip(peaks["sfpo"], peaks["grpo"], strict=True)]
    found = {"sfpo_extra_weight_copies": spread(copies)}
    found |= {f"peak_mib_{rule}": spread(values) for rule, values in peaks.items()}
    return result(found, {})
