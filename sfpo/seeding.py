"""Randomness by name: a seed is a function of what it is for, never of what ran before.

``seed_of(run_seed, "rollout", step, prompt_id, sample)`` gives the same number in any process, in any order of calls,
before and after a crash. Nothing in the project draws from global random state.
"""

from __future__ import annotations

import hashlib
import json
import random


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Args:
        parts: what the seed is for, for instance (run seed, "rollout", step, prompt id, sample index).
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1


def rng(*parts: int | str) -> random.Random:
    """A generator of its own for ``parts``."""
    return random.Random(seed_of(*parts))
