"""A single update on given completions (forward, backward, clipping, one AdamW step), compared with TRL's GRPOTrainer.

TRL pads every prompt and completion to the longest of the batch; ours packs them, with a prompt stored once per group. For
both, the clock starts when the batch is ready, so generation, grading and old log-probs are not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import Result, paired_ratio, result, spread
from benchmarks.sides import Candidate, Options, Turns, take_turns
from benchmarks.workload import ALL_CORES, Work, given_batch, ragged_lengths, work_of

if TYPE_CHECKING:
    from sfpo.types import TrainBatch

COMPLETIONS, GROUP, PROMPT_TOKENS = 16, 8, 64
RAGGED = (16, 192)
"""Shortest and longest completion."""
PEERS = [{"rows_at_once": rows, "float32_weights": False} for rows in (COMPLETIONS, GROUP)]
"""Candidate configurations of TRL: completions per pass, float32 master weights or the checkpoint's bfloat16."""


def batch_of(work: Work, ragged: bool) -> TrainBatch:
    from transformers import AutoConfig

    lengths = ragged_lengths(COMPLETIONS, *RAGGED) if ragged else [sum(RAGGED) // 2] * COMPLETIONS
    return given_batch(AutoConfig.from_pretrained(work.checkpoint).vocab_size, PROMPT_TOKENS, GROUP, lengths)


def ours(turns: Turns, work: Work, ragged: bool) -> None:
    """A turn: one update."""
    from time import perf_counter

    batch, policy = batch_of(work, ragged), work.policy(COMPLETIONS // GROUP)
    while turns.wait():
        started = perf_counter()
        policy.descend(batch)
        turns.report({"seconds": perf_counter() - started})


def trl(turns: Turns, work: Work, ragged: bool, rows_at_once: int, float32_weights: bool) -> None:
    """A turn: one update by TRL's trainer."""
    from benchmarks.trl_peer import train

    batch = batch_of(work, ragged)
    given = {
        "prompt_ids": batch.prompt_ids,
        "completion_ids": batch.completion_ids,
        "logprobs": None,
        "score": batch.advantages.tolist(),
    }
    train(
        turns,
        work.checkpoint,
        rows=[{"prompt": str(prompt)} for prompt in range(COMPLETIONS // GROUP)],
        rewards=lambda score, **_: score,
        completions=COMPLETIONS,
        rows_at_once=rows_at_once,
        group=GROUP,
        tokens=max(RAGGED),
        bf16=True,
        float32_weights=float32_weights,
        rollouts=lambda prompts, trainer: given,
    )


def run(options: Options) -> Result:
    work = work_of(options)
    figures, sides = {}, {}
    for name, ragged in (("ragged", True), ("equal", False)):
        peers = [Candidate(trl, ALL_CORES, {"work": work, "ragged": ragged, **settings}) for settings in PEERS]
        own = [Candidate(ours, ALL_CORES, {"work": work, "ragged": ragged})]
        measured = take_turns({"ours": own, "trl": peers}, options)
        tokens = sum(batch_of(work, ragged).lengths)
        figures[f"update_speedup_vs_trl_{name}"] = paired_ratio(measured["trl"].values(), measured["ours"].values())
        for side, one in measured.items():
            figures[f"update_tokens_per_second_{name}_{side}"] = spread([tokens / seconds for seconds in one.values()])
            sides[f"{name}/{side}"] = one
    return result(figures, sides)
