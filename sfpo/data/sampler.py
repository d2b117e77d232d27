"""The order of training prompts: a pure function of (seed, step), so that no sampler state has to be saved."""

from __future__ import annotations

from sfpo.seeding import rng


def prompt_order(num_prompts: int, prompts_per_step: int, step: int, seed: int) -> list[int]:
    """Indices of the prompts of one step (counted from 0).

    Steps take consecutive slices of a stream of epochs; each epoch is a seeded permutation of all prompts. No prompt occurs
    twice in a step, even if the step spans two epochs, unless there are fewer prompts than prompts_per_step.

    Returns:
        ``prompts_per_step`` indices in [0, num_prompts).

    Raises:
        ValueError: num_prompts or prompts_per_step is below 1, or step is negative.
    """
    if num_prompts < 1 or prompts_per_step < 1 or step < 0:
        raise ValueError(
            f"num_prompts = {num_prompts}, prompts_per_step = {prompts_per_step}, step = {step}: must be at least 1, 1 and 0"
        )
    start, stop = step * prompts_per_step, (step + 1) * prompts_per_step
    chosen: list[int] = []
    tail: list[int] = []
    for epoch in range(-(-stop // num_prompts)):
        order = rng(seed, "prompt order", epoch).sample(range(num_prompts), num_prompts)
        if num_prompts >= prompts_per_step:
            order = _apart(order, tail, prompts_per_step - len(tail))
            taken_by_last_step = (epoch + 1) * num_prompts % prompts_per_step
            tail = order[num_prompts - taken_by_last_step :]
        first = epoch * num_prompts
        chosen += order[max(start - first, 0) : max(stop - first, 0)]
    return chosen


def _apart(order: list[int], tail: list[int], head: int) -> list[int]:
    """The epoch reordered so that its first ``head`` prompts are not in ``tail``, the previous epoch's prompts of the same
    step."""
    before = set(tail)
    front = [index for index in order if index not in before][:head]
    in_front = set(front)
    return front + [index for index in order if index not in in_front]
