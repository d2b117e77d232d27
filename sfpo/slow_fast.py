"""SFPO (arXiv 2510.04072, Algorithm 1) for a training loop in plain torch:

    slow_fast = SlowFast(optimizer, num_fast_steps=3, alpha=0.8)
    for batch in batches:
        for _ in slow_fast.passes():            # K fast passes, reposition, one slow correction
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()

The body of the inner loop is one update on the batch; with mini-batches, a whole pass over it. Old log-probs are those of the
policy that made the batch, computed once before the loop. The same numbers as the rule in sfpo/algorithms/update_rules/sfpo.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import check_alpha, check_fast_steps
from sfpo.algorithms.weights import reposition_, snapshot


class SlowFast:
    """What SFPO adds to a loop: a snapshot of the weights, a reposition toward it, and the number of passes over each batch.

    A step that is left early (``break``, an exception) leaves the weights inside the fast trajectory, or without the slow
    correction. Nothing is undone by itself: the next ``passes()`` and ``state_dict()`` raise until ``cancel()`` puts the
    weights back.

    Args:
        optimizer_or_params: an optimizer (all parameters of its groups, as they are when a step starts), or parameters.
        num_fast_steps: K, passes of the fast trajectory; at least 1.
        alpha: reposition factor in [0, 1]. 0 leaves one plain pass on each batch (GRPO).
        entropy_trigger: an ``EntropyTrigger`` or its settings; once it has fired, each batch gets one plain pass. None: no
            entropy control.

    Raises:
        ValueError: a setting is impossible, or there are no parameters.
    """

    def __init__(
        self,
        optimizer_or_params: Optimizer | Iterable[Tensor],
        num_fast_steps: int = 3,
        alpha: float = 0.8,
        entropy_trigger: EntropyTrigger | Mapping[str, Any] | None = None,
    ) -> None:
        check_fast_steps(num_fast_steps)
        check_alpha(alpha)
        self.num_fast_steps, self.alpha = num_fast_steps, alpha
        self.entropy_trigger = (
            entropy_trigger if isinstance(entropy_trigger, EntropyTrigger) else EntropyTrigger.from_settings(entropy_trigger)
        )
        self._source = optimizer_or_params if isinstance(optimizer_or_params, Optimizer) else list(optimizer_or_params)
        parameters = self._parameters()
        if not parameters or not all(isinstance(parameter, Tensor) for parameter in parameters):
            raise ValueError(
                f"optimizer_or_params = {type(optimizer_or_params).__name__} of {len(parameters)}: "
                "must be a torch optimizer, or at least one parameter (model.parameters())"
            )
        self._start: list[Tensor] | None = None

    @property
    def trigger_fired_at(self) -> int | None:
        """First step (1-based) without the slow-fast stages; None: not yet, or there is no trigger."""
        return self.entropy_trigger.fired_at if self.entropy_trigger else None

    def passes(self) -> Iterator[None]:
        """One step: a pass over the batch for each turn of the loop, K + 1 of them, or one where stages I and II are skipped.

        Raises:
            RuntimeError: the step before was left early.
        """
        self._check_between_steps("passes()")
        fired = self.entropy_trigger is not None and self.entropy_trigger.fired
        if self.alpha == 0.0 or fired:
            yield
            return
        start = self._start = snapshot(self._parameters())  # theta^{s,0}
        for _ in range(self.num_fast_steps):  # stage I: fast trajectory
            yield
            if self._start is not start:
                return  # cancelled inside the loop
        reposition_(self._parameters(), start, self.alpha)  # stage II
        yield  # stage III: slow correction
        self._start = None

    def observe(self, entropy: float) -> None:
        """Take the entropy of the step that ends; may end the slow-fast phase from the next step on. Nothing without a trigger.

        Args:
            entropy: mean over the batch's tokens (nats) of the policy that made them.
        """
        if self.entropy_trigger is not None:
            self.entropy_trigger.observe(entropy)

    def cancel(self) -> None:
        """Put the weights back to the start of a step that was left early. The optimizer's state stays as it is.

        Inside the loop it ends the step: the loop stops at its next turn. Between steps it does nothing.
        """
        if self._start is not None:
            reposition_(self._parameters(), self._start, 0.0)
            self._start = None

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step, as plain JSON values.

        Raises:
            RuntimeError: inside a step, whose snapshot is not part of the state.
        """
        self._check_between_steps("state_dict()")
        return {"trigger": self.entropy_trigger.state_dict()} if self.entropy_trigger else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        if self.entropy_trigger:
            self.entropy_trigger.load_state_dict(state["trigger"])

    def _parameters(self) -> list[Tensor]:
        if isinstance(self._source, Optimizer):
            return [parameter for group in self._source.param_groups for parameter in group["params"]]
        return self._source

    def _check_between_steps(self, call: str) -> None:
        if self._start is not None:
            raise RuntimeError(
                f"{call} inside a step, or after one that was left early: the weights are between the stages of SFPO. "
                "Run passes() to its end, or call cancel() to go back to the weights at its start"
            )
