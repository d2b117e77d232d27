"""``benchmarks.grpo_step`` on the tiny model in float32, and how the time of SFPO's step grows with K."""

from __future__ import annotations

from benchmarks.figures import Result, result, spread
from benchmarks.grpo_step import FAST_STEPS, figures, measure
from benchmarks.scaling import slope
from benchmarks.sides import Options
from benchmarks.workload import GROUP, PROMPTS, THREADS, TINY, Work

ALL_FAST_STEPS = (1, FAST_STEPS, 7)
PEERS = [{"rows_at_once": PROMPTS * GROUP, "bf16": bf16, "float32_weights": not bf16} for bf16 in (False, True)]


def run(options: Options) -> Result:
    measured = measure(Work(*TINY, options.models), ALL_FAST_STEPS, PEERS, THREADS, options)
    found = {f"{key}_tiny": value for key, value in figures(measured, FAST_STEPS).items()}
    steps = [{f"updates/{k + 1}": turn[f"sfpo_{k}/seconds"] for k in ALL_FAST_STEPS} for turn in measured["ours"].turns]
    found["sfpo_step_cost_slope_updates"] = spread([slope(step, "updates") for step in steps])
    return result(found, measured)
