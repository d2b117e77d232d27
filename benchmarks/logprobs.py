"""Log-probs and entropies with a vocabulary of 152,000: our implementation compared with the naive one, forward and backward.

Naive: the output layer's float32 logits of all positions, log_softmax, gather, and the entropy without a gradient.
"""

from __future__ import annotations

import time

from benchmarks.figures import Result, paired_ratio, result, spread
from benchmarks.memory import PAGES
from benchmarks.sides import Candidate, Options, Turns, single_turn, take_turns
from benchmarks.workload import THREADS

VOCABULARY, WIDTH, POSITIONS, QUICK_POSITIONS = 152_000, 896, 2048, 64
"""Sizes of Qwen2.5-0.5B, whose vocabulary is that of the paper's models."""


def forms(turns: Turns, sliced: bool, positions: int) -> None:
    """A turn: forward and backward of one implementation, in bfloat16 with float32 weights as in the trainer. Reports seconds,
    and the peak in MiB above the memory before."""
    import torch

    from sfpo.algorithms.logprobs import token_logprobs
    from sfpo.trainer.metrics import peak_memory_mb

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).mul_(WIDTH**-0.5).requires_grad_()
    hidden = torch.randn(positions, WIDTH, generator=generator).to(torch.bfloat16).requires_grad_()
    tokens = torch.randint(VOCABULARY, (positions,), generator=generator)
    upstream = torch.randn(positions, generator=generator)

    def naive() -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.nn.functional.linear(hidden, weight.to(torch.bfloat16)).float()
        log_p = logits.log_softmax(-1)
        with torch.no_grad():
            entropy = -(log_p.exp() * log_p).sum(-1)
        return log_p.gather(-1, tokens[:, None]).squeeze(-1), entropy

    before = peak_memory_mb()
    while turns.wait():
        weight.grad = hidden.grad = None
        started = time.perf_counter()
        logprobs, _ = token_logprobs(hidden, weight, tokens, 1.0) if sliced else naive()
        logprobs.backward(upstream)
        seconds = time.perf_counter() - started
        turns.report({"seconds": seconds, "peak_mib": peak_memory_mb() - before})


def run(options: Options) -> Result:
    positions = QUICK_POSITIONS if options.quick else POSITIONS
    settings = {name: {"sliced": name == "sliced", "positions": positions} for name in ("naive", "sliced")}
    timed = take_turns(
        {name: [Candidate(forms, threads, one) for threads in THREADS] for name, one in settings.items()}, options
    )
    peaks: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(options.repetitions):
        for name, one in settings.items():
            peaks[name].append(single_turn(Candidate(forms, 1, one, PAGES))["peak_mib"])
    figures = {
        "logprob_peak_over_naive": paired_ratio(peaks["sliced"], peaks["naive"]),
        "logprob_speed_over_naive": paired_ratio(timed["naive"].values(), timed["sliced"].values()),
        **{f"logprob_peak_mib_{name}": spread(values) for name, values in peaks.items()},
    }
    return result(figures, timed)
