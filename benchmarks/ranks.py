"""Speedup of one update on two ranks, with one core each, over one process on one core.

The weights are sharded over the ranks (FSDP2) and gathered layer by layer in the forward and again in the backward pass;
gradients are summed. So the communication of an update depends on the weights and the number of micro-batches, its computation
on the tokens; both small and large micro-batches are measured.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from typing import TYPE_CHECKING

from benchmarks.figures import Result, Spread, paired_ratio, result, spread
from benchmarks.sides import Candidate, Measured, Options, Turns, take_turns
from benchmarks.workload import Work, given_batch, ragged_lengths, work_of

if TYPE_CHECKING:
    from sfpo.types import TrainBatch

COMPLETIONS, GROUP, PROMPT_TOKENS = 64, 8, 64
RAGGED = (16, 192)
"""Shortest and longest completion."""
RANKS = 2
MICRO_BATCH_TOKENS = (1024, 4096)


def batch_of(work: Work) -> TrainBatch:
    from transformers import AutoConfig

    lengths = ragged_lengths(COMPLETIONS, *RAGGED)
    return given_batch(AutoConfig.from_pretrained(work.checkpoint).vocab_size, PROMPT_TOKENS, GROUP, lengths)


def ours(turns: Turns, work: Work, ranks: int, micro_batch_tokens: int) -> None:
    """A turn: one update by ``ranks`` processes, each on its own core."""
    cores = sorted(os.sched_getaffinity(0))
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)} if ranks > 1 else {}
    others = []
    for rank in reversed(range(ranks)):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        if rank:
            others.append(
                multiprocessing.get_context("spawn").Process(target=_update, args=(None, work, cores[rank], micro_batch_tokens))
            )
            others[-1].start()
    _update(turns, work, cores[0], micro_batch_tokens)
    for other in others:
        other.join()


def _update(turns: Turns | None, work: Work, core: int, micro_batch_tokens: int) -> None:
    from time import perf_counter

    os.sched_setaffinity(0, {core})
    from sfpo.ranks import init_distributed

    ranks = init_distributed()
    batch, policy = batch_of(work), work.policy(COMPLETIONS // GROUP, ranks=ranks, micro_batch_tokens=micro_batch_tokens)
    while ranks.gather(turns.wait() if turns else None)[0]:
        started = perf_counter()
        policy.descend(batch)
        if turns:
            turns.report({"seconds": perf_counter() - started})


def run(options: Options) -> Result:
    work = work_of(options)
    tokens = sum(batch_of(work).lengths)
    figures: dict[str, Spread] = {}
    sides: dict[str, Measured] = {}
    for size in MICRO_BATCH_TOKENS:
        candidates = {
            f"{ranks}_ranks_at_{size}_tokens": [Candidate(ours, 1, {"work": work, "ranks": ranks, "micro_batch_tokens": size})]
            for ranks in (1, RANKS)
        }
        measured = take_turns(candidates, options)
        one, two = (side.values() for side in measured.values())
        figures[f"two_ranks_over_one_at_{size}_tokens"] = paired_ratio(one, two)
        figures |= {
            f"update_tokens_per_second_{name}": spread([tokens / seconds for seconds in side.values()])
            for name, side in measured.items()
        }
        sides |= measured
    return result(figures, sides)
