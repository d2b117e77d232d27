"""The order in which training meets its prompts: a pure function of (seed, step), so a resumed run needs no saved state."""

from __future__ import annotations

from sfpo.seeding import rng


def prompt_order(num_prompts: int, prompts_per_step: int, step: int, seed: int) -> list[int]:
    """Indices of the prompts of one step (counted from 0).

    Steps cut consecutive pieces out of a stream of epochs; each epoch is a seeded permutation of all prompts. No prompt comes
    twice within a step, also where a step spans two epochs, unless there are fewer prompts than a step takes.

    Returns:
        ``prompts_per_step`` indices in [0, num_prompts).

    Raises:
        ValueError: there is no prompt, or a number is negative.
    """
    if num_prompts < 1 or prompts_per_step < 1 or step < 0:
        raise ValueError(
            f"no order for {num_prompts} prompts, {prompts_per_step} a step, step {step}: all three must be positive"
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
    """The epoch reordered so that its first ``head`` prompts are not among the last epoch's ``tail``: one step takes both."""
    before = set(tail)
    front = [index for index in order if index not in before][:head]
    in_front = set(front)
    return front + [index for index in order if index not in in_front]
