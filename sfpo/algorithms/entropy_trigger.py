"""The entropy trigger that ends the slow-fast phase (paper, Algorithm 1, step 4).

Z_s = (H_s - mean) / (std + eps) over the last ``window`` entropies, H_s among them, population standard deviation. The
first time Z passes the threshold, every later step is a GRPO step (one-way latch).

Forms: ``paper`` tests |Z_s| >= threshold (two-sided). ``released`` tests Z_s >= threshold (one-sided), as the authors'
code does. The paper tests after step s for the next step; the code tests before step s + 1 on the entropies up to step s:
the same moment.

Departure from the paper: no test before the window is full (the code's rule; the paper is silent, and with two entropies
|Z| is always 1).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

EPS = 1e-9
"""Added to the standard deviation, as in the authors' code."""


@dataclass
class EntropyTrigger:
    """One-way latch on the z-score of the policy's entropy.

    Args:
        form: "paper" (two-sided) or "released" (one-sided).
        window: omega, entropies in the rolling buffer.
        threshold: tau.
        warm_up: number of initial steps during which the trigger cannot fire; the steps that fill the window count among them.

    Raises:
        ValueError: a setting is impossible.
    """

    form: str = "released"
    window: int = 30
    threshold: float = 1.0
    warm_up: int = 0
    fired_at: int | None = field(default=None, init=False)
    """First step (1-based) after the trigger fired; None while it has not."""
    zscore: float | None = field(default=None, init=False)
    """Of the last entropy; None until the window is full."""

    def __post_init__(self) -> None:
        if self.form not in ("paper", "released"):
            raise ValueError(f"entropy_trigger.form = {self.form!r}: allowed are paper, released")
        if not isinstance(self.window, int) or self.window < 2:
            raise ValueError(f"entropy_trigger.window = {self.window!r}: must be a whole number of at least 2 entropies")
        if not self.threshold > 0:
            raise ValueError(f"entropy_trigger.threshold = {self.threshold!r}: must be over 0")
        if not isinstance(self.warm_up, int) or self.warm_up < 0:
            raise ValueError(f"entropy_trigger.warm_up = {self.warm_up!r}: must be a whole number of steps, at least 0")
        self._steps = 0
        self._entropies: deque[float] = deque(maxlen=self.window)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> EntropyTrigger | None:
        """The trigger with these settings; None: no trigger.

        Raises:
            ValueError: a key is unknown or a value impossible.
        """
        if settings is None:
            return None
        known = [setting.name for setting in fields(cls) if setting.init]
        if not isinstance(settings, Mapping) or not set(settings) <= set(known):
            raise ValueError(f"entropy_trigger = {settings!r}: allowed keys are {', '.join(known)}")
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """All settings, defaults included; ``from_settings`` makes the same trigger of them."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self) if setting.init}

    @property
    def fired(self) -> bool:
        return self.fired_at is not None

    def observe(self, entropy: float) -> None:
        """Record the entropy (nats per token) of the step that has just ended; the trigger may fire from the next step on."""
        self._steps += 1
        self._entropies.append(entropy)
        if len(self._entropies) < self.window:
            return
        mean = math.fsum(self._entropies) / self.window
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in self._entropies) / self.window)
        self.zscore = (entropy - mean) / (std + EPS)
        distance = abs(self.zscore) if self.form == "paper" else self.zscore
        if distance >= self.threshold and self._steps > self.warm_up and not self.fired:
            self.fired_at = self._steps + 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "entropies": list(self._entropies), "fired_at": self.fired_at, "zscore": self.zscore}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self.fired_at, self.zscore = state["steps"], state["fired_at"], state["zscore"]
        self._entropies = deque(state["entropies"], maxlen=self.window)
