"""A whole GRPO step compared with TRL's GRPOTrainer, and an SFPO step compared with its ideal cost.

Ours is a step of the training loop: generation with vLLM, grading, one update, weight sync. TRL's: generation with
transformers, the same grading, one update. Both have the same model and 8 prompts, with 8 completions of 64 tokens each, and
one optimizer step, so that both take the old log-probs from the update's forward pass. Every completion has a gradient on both
sides.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.figures import Result, Spread, paired_ratio, result, spread
from benchmarks.sides import Candidate, Figures, Measured, Options, Turns, take_turns
from benchmarks.workload import ALL_CORES, GROUP, PROMPTS, TASK, TOKENS, EveryOtherRight, Work, prepare_data, work_of

FAST_STEPS, ALPHA = 3, 0.8
PHASES = ("generate", "grade", "old_logprobs", "update", "sync")
PEERS = [{"rows_at_once": PROMPTS * GROUP, "bf16": True, "float32_weights": False}]
"""Candidate configurations of TRL: completions per pass, autocast, float32 master weights or the checkpoint's bfloat16."""


def ours(turns: Turns, work: Work, fast_steps: tuple[int, ...]) -> None:
    """A turn: one GRPO step and an SFPO step for each K, all in one job; then the operations that SFPO adds, measured
    separately."""
    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.ranks import SINGLE_PROCESS
    from sfpo.rollouts import vllm_engine
    from sfpo.trainer.background import Background
    from sfpo.trainer.loop import TrainingJob
    from sfpo.trainer.run_store import RunStore

    to_the_limit = mock.patch.object(vllm_engine, "SamplingParams", partial(_to_the_limit, vllm_engine.SamplingParams))
    rules = {"grpo": make_update_rule("grpo")}
    rules |= {f"sfpo_{k}": make_update_rule("sfpo", num_fast_steps=k, alpha=ALPHA) for k in fast_steps}
    with tempfile.TemporaryDirectory() as folder, to_the_limit:
        settings = work.run_settings(prepare_data(Path(folder) / "data"))
        store, grader = RunStore(settings, Path(folder) / "run", SINGLE_PROCESS, Background(threaded=False)), EveryOtherRight()
        job = TrainingJob(settings, store, grader)
        step = 0
        while turns.wait():
            figures: dict[str, float] = {}
            for name, rule in rules.items():
                step += 1
                job.rule = rule
                figures |= {f"{name}/{phase}": seconds for phase, seconds in _timed_step(job, step).items()}
            figures["seconds"] = figures["grpo/seconds"]
            figures |= _parts(job)
            turns.report(figures)
        grader.close()


def _to_the_limit(sampling_params: Any, **settings: Any) -> Any:
    """vLLM's sampling parameters without anything that could end a completion before the token limit."""
    return sampling_params(**{**settings, "stop_token_ids": [], "ignore_eos": True})


def _timed_step(job: Any, step: int) -> dict[str, float]:
    clock = job.progress.clock
    before, started = dict(clock.seconds), time.perf_counter()
    record, _ = job._step(step)
    seconds = {"seconds": time.perf_counter() - started}
    if record["response_length"] != TOKENS or record["zero_variance_groups"]:
        raise RuntimeError(f"mean length {record['response_length']} instead of {TOKENS}, or groups without reward variance")
    return seconds | {phase: clock.seconds[phase] - before[phase] for phase in before}


def _parts(job: Any) -> dict[str, float]:
    """Seconds of SFPO's additional operations, of a weight sync, and of a plain copy into the engine's data type."""
    import torch

    from sfpo.algorithms.weights import reposition_, snapshot

    clock = time.perf_counter
    started = clock()
    start = snapshot(job.policy.parameters())
    taken = clock()
    reposition_(job.policy.parameters(), start, ALPHA)
    repositioned = clock()
    del start
    dtype = getattr(torch, job.recipe.sampler.dtype)
    copies = {name: torch.empty_like(weight, dtype=dtype) for name, weight in job.policy.model.named_parameters()}
    for copy in copies.values():
        copy.zero_()  # allocate the memory before the clock starts
    before_copy = clock()
    with torch.no_grad():
        for name, weight in job.policy.model.named_parameters():
            copies[name].copy_(weight)
    copied = clock()
    job.engine.load_weights(job.policy.weights())
    synced = clock()
    return {
        "snapshot": taken - started,
        "reposition": repositioned - taken,
        "copy": copied - before_copy,
        "sync": synced - copied,
    }


def trl(turns: Turns, work: Work, rows_at_once: int, bf16: bool, float32_weights: bool) -> None:
    """A turn: one step of TRL's GRPOTrainer."""
    from benchmarks.trl_peer import train
    from sfpo.data.arithmetic import generate
    from sfpo.data.prompts import user_turn

    grader = EveryOtherRight()

    def rewards(completions: list[list[dict[str, str]]], answer: list[str], **_: Any) -> list[float | None]:
        texts = [messages[-1]["content"] for messages in completions]
        return [float(grade.correct) for grade in grader.grade_all(texts, answer)]

    instruction = work.of_suite.instruction
    rows = [
        {"prompt": [{"role": "user", "content": user_turn(instruction, row.problem)}], "answer": row.answer}
        for row in generate(TASK, "train", PROMPTS)
    ]
    train(turns, work.checkpoint, rows, rewards, PROMPTS * GROUP, rows_at_once, GROUP, TOKENS, bf16, float32_weights)
    grader.close()


def measure(
    work: Work, fast_steps: tuple[int, ...], peers: list[dict[str, Any]], threads: tuple[int, ...], options: Options
) -> dict[str, Measured]:
    """Measure both sides, each with its fastest number of ``threads``; for TRL also with the fastest of ``peers``."""
    own = [Candidate(ours, count, {"work": work, "fast_steps": fast_steps}) for count in threads]
    others = [Candidate(trl, count, {"work": work, **settings}) for count in threads for settings in peers]
    return take_turns({"ours": own, "trl": others}, options)


def over_ideal(turn: Figures, fast_steps: int) -> float:
    """SFPO's step time divided by its ideal: GRPO's step with K + 1 updates instead of one."""
    update = turn["grpo/update"]
    rest = turn["grpo/seconds"] - update
    ideal = (rest + (fast_steps + 1) * update) / (rest + update)
    return turn[f"sfpo_{fast_steps}/seconds"] / turn["grpo/seconds"] / ideal


def figures(measured: dict[str, Measured], fast_steps: int) -> dict[str, Spread]:
    turns = measured["ours"].turns
    phases = {f"seconds_{phase}": spread([turn[f"grpo/{phase}"] for turn in turns]) for phase in PHASES}
    return {
        "grpo_step_speedup_vs_trl": paired_ratio(measured["trl"].values(), measured["ours"].values()),
        "grpo_step_seconds": spread(measured["ours"].values()),
        "grpo_step_seconds_trl": spread(measured["trl"].values()),
        "sfpo_step_over_ideal": spread([over_ideal(turn, fast_steps) for turn in turns]),
        "reposition_share_of_step": spread(
            [(turn["snapshot"] + turn["reposition"]) / turn[f"sfpo_{fast_steps}/seconds"] for turn in turns]
        ),
        "weight_sync_over_copy": spread([turn["sync"] / turn["copy"] for turn in turns]),
        **phases,
    }


def run(options: Options) -> Result:
    """SmolLM2 in bfloat16, on all cores."""
    measured = measure(work_of(options), (FAST_STEPS,), PEERS, (ALL_CORES,), options)
    return result(figures(measured, FAST_STEPS), measured)
