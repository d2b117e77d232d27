"""Seeds derived from names: a seed depends on its purpose only, never on earlier draws.

``seed_of(run_seed, "rollout", step, prompt_id, sample)`` returns the same number in every process, in any order of calls,
before and after a crash. The project never uses global random state.
"""

from __future__ import annotations

import hashlib
import json
import random


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Args:
        parts: purpose of the seed, for instance (run seed, "rollout", step, prompt id, sample index).
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1


def rng(*parts: int | str) -> random.Random:
    """A random generator seeded with ``seed_of(*parts)``."""
    return random.Random(seed_of(*parts))
