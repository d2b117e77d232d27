"""Group-relative advantages (GRPO, arXiv 2402.03300; paper, Section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

STD_EPS = 1e-4
"""Added to the standard deviation, as TRL's GRPOTrainer does."""


def group_advantages(rewards: Tensor, scale_by_std: bool) -> Tensor:
    """A_i = (r_i - mean) / (std + 1e-4) within each group; without the division when ``scale_by_std`` is off (Dr.GRPO).

    The standard deviation is the sample's (divisor n - 1), as in verl and TRL. A group whose rewards are all equal gets zeros.

    Args:
        rewards: [groups, completions per group].

    Returns:
        Advantages of the same shape, float32.
    """
    rewards = rewards.float()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    # Rounding of the mean must not give a group without variance a direction.
    centred = torch.where(zero_variance(rewards).unsqueeze(1), torch.zeros_like(centred), centred)
    if not scale_by_std:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + STD_EPS)


def zero_variance(rewards: Tensor) -> Tensor:
    """[groups] bool: all completions of the group got the same reward, so that the group teaches nothing."""
    return (rewards == rewards[:, :1]).all(dim=1)
