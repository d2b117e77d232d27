"""Scaling of the time of one update with tokens, group size and model size, as slopes of log time over log size.

A slope of 1 means proportional growth; below 1, part of the cost is constant (for tokens: the optimizer).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Result, result, spread
from benchmarks.sides import Candidate, Options, Turns, take_turns
from benchmarks.workload import ALL_CORES, TOKENS, Work, given_batch, work_of

if TYPE_CHECKING:
    from sfpo.trainer.policy import Policy
    from sfpo.types import TrainBatch

PROMPT_TOKENS = 32
COMPLETION_TOKENS = (64, 128, 256, 512)
COMPLETIONS = 4
GROUP_SIZES = (4, 8, 16)
HEADS = (3, 6, 9)
"""Numbers of attention heads of the models; width and depth scale with them, and 9 is the original model."""


def sizes(turns: Turns, work: Work) -> None:
    """A turn: one update for each size."""
    from transformers import AutoConfig

    policy = work.policy(1)
    vocabulary = AutoConfig.from_pretrained(work.checkpoint).vocab_size
    batches = {
        f"tokens/{COMPLETIONS * tokens}": given_batch(vocabulary, PROMPT_TOKENS, COMPLETIONS, [tokens] * COMPLETIONS)
        for tokens in COMPLETION_TOKENS
    }
    batches |= {f"group_size/{size}": given_batch(vocabulary, PROMPT_TOKENS, size, [TOKENS] * size) for size in GROUP_SIZES}
    with tempfile.TemporaryDirectory() as folder:
        scaled = [_scaled(work, heads, Path(folder) / str(heads)) for heads in HEADS]
    one = given_batch(vocabulary, PROMPT_TOKENS, COMPLETIONS, [TOKENS] * COMPLETIONS)
    models = {f"model_size/{sum(p.numel() for p in other.parameters())}": other for other in scaled}
    while turns.wait():
        figures = {name: _seconds(policy, batch) for name, batch in batches.items()}
        figures |= {name: _seconds(other, one) for name, other in models.items()}
        turns.report({"seconds": sum(figures.values()), **figures})


def _seconds(policy: Policy, batch: TrainBatch) -> float:
    started = time.perf_counter()
    policy.descend(batch)
    return time.perf_counter() - started


def _scaled(work: Work, heads: int, folder: Path) -> Policy:
    """The suite's model with random weights, and with width and depth scaled by ``heads`` / its own number of heads."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(work.checkpoint)
    settings = config.to_dict()
    settings.pop("layer_types", None)  # made again from the number of layers
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "num_attention_heads"):
        settings[key] = settings[key] * heads // config.num_attention_heads
    config = type(config).from_dict(settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return work.policy(1, folder)


def slope(turn: dict[str, float], group: str) -> float:
    """Slope of log seconds over log size, for the keys <group>/<size> of a turn."""
    import numpy as np
    from scipy.stats import linregress

    points = [(float(key.split("/")[1]), seconds) for key, seconds in turn.items() if key.startswith(f"{group}/")]
    return float(linregress(*np.log(np.array(points)).T).slope)


def run(options: Options) -> Result:
    work = work_of(options)
    measured = take_turns({"ours": [Candidate(sizes, ALL_CORES, {"work": work})]}, options)
    groups = ("tokens", "group_size", "model_size")
    figures = {
        f"update_cost_slope_{group}": spread([slope(turn, group) for turn in measured["ours"].turns]) for group in groups
    }
    return result(figures, measured)
