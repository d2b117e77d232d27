"""SFPO (arXiv 2510.04072, Algorithm 1) for a training loop in plain torch:

    slow_fast = SlowFast(optimizer, num_fast_steps=3, alpha=0.8)
    for batch in batches:
        for _ in slow_fast.passes():            # K fast passes, reposition, one slow correction
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()

The body of the inner loop is one update on the batch: with mini-batches, a whole pass over it; with gradient accumulation, all
its micro-batches. Old log-probs are those of the policy that generated the batch, computed once before the loop. Step a
learning-rate scheduler once per batch, after the loop. The results equal those of sfpo/algorithms/update_rules/sfpo.py.

Frozen weights (``requires_grad`` false) of any data type are neither copied nor moved. DDP, FSDP and FSDP2 work without
changes: each rank copies and moves its own shard.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules.base import check_alpha, check_fast_steps
from sfpo.algorithms.weights import local, reposition_, snapshot

MASTER_WEIGHTS = "it overwrites the weights from its own master copy, which a reposition does not change; use a torch optimizer"
REFUSED_OPTIMIZERS = {
    "deepspeed.runtime": MASTER_WEIGHTS + " with FSDP2 (fully_shard) or DDP instead of DeepSpeed",
    "megatron": MASTER_WEIGHTS + " with FSDP2 (fully_shard) or DDP instead of Megatron",
    "colossalai": MASTER_WEIGHTS + " with FSDP2 (fully_shard) or DDP instead of ColossalAI",
    "torchao.optim.cpu_offload": MASTER_WEIGHTS,
    "torchao.prototype.low_bit_optim.cpu_offload": MASTER_WEIGHTS,
    "schedulefree": "its weights are an average kept in its state, which a reposition does not change; use a torch optimizer",
}
"""Module of an optimizer class -> why SFPO cannot work with it."""
LOW_BIT = "its moments are kept in 8 bits or fewer, and SFPO on such moments is untested; use torch.optim.AdamW"

_inside_a_step: weakref.WeakSet[SlowFast] = weakref.WeakSet()


class SlowFast:
    """SFPO for your own training loop: takes the snapshot, repositions the weights, and sets the number of passes over each
    batch.

    If a step is left early (``break``, an exception), the weights are inside the fast trajectory or lack the slow correction.
    Nothing is undone automatically: the next ``passes()`` and ``state_dict()`` raise until ``cancel()`` restores the weights.

    The reposition is computed in the data type of the weights. bfloat16 has 8 bits: a weight that the K fast updates moved by
    one or two units in the last place is not repositioned at all at alpha 0.8. Keep the weights in float32 (with autocast for
    speed); 16-bit weights cause a warning.

    Args:
        optimizer_or_params: an optimizer (the trainable parameters of its groups when a step starts), or parameters.
        num_fast_steps: K, passes of the fast trajectory; at least 1.
        alpha: reposition factor in [0, 1]. 0: one pass over each batch (GRPO).
        entropy_trigger: an ``EntropyTrigger`` or its settings; once it has fired, there is one pass over each batch
            (GRPO). None: no entropy control.

    Raises:
        ValueError: a setting is impossible, there are no trainable parameters, or the optimizer is one that SFPO cannot work
            with: it keeps its own master weights (DeepSpeed, Megatron), or moments of 8 bits or fewer.
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
        check_optimizer(optimizer_or_params)
        self._source = optimizer_or_params if isinstance(optimizer_or_params, Optimizer) else list(optimizer_or_params)
        given = self._given()
        if not given or not all(isinstance(parameter, Tensor) for parameter in given):
            raise ValueError(
                f"optimizer_or_params = {type(optimizer_or_params).__name__} of {len(given)}: "
                "must be a torch optimizer, or at least one parameter (model.parameters())"
            )
        parameters = trainable(given)
        if not parameters:
            raise ValueError(f"optimizer_or_params = {len(given)} parameters, all frozen: at least one must require a gradient")
        _check_parameters(parameters)
        self._weights: list[Tensor] = []
        self._start: list[Tensor] | None = None

    @property
    def trigger_fired_at(self) -> int | None:
        """First step (1-based) without the slow-fast stages; None: not yet, or there is no trigger."""
        return self.entropy_trigger.fired_at if self.entropy_trigger else None

    def passes(self) -> Iterator[None]:
        """One step: a pass over the batch for each turn of the loop, K + 1 of them, or one where stages I and II are skipped.

        Raises:
            RuntimeError: the previous step was left early; another ``SlowFast`` is inside a step on the same weights; the set
                of trainable parameters changed inside the step.
        """
        self._check_between_steps("passes()")
        fired = self.entropy_trigger is not None and self.entropy_trigger.fired
        if self.alpha == 0.0 or fired:
            yield
            return
        start = self._begin()  # theta^{s,0}
        for _ in range(self.num_fast_steps):  # stage I: fast trajectory
            yield
            if self._start is not start:
                return  # cancelled inside the loop
        self._check_unchanged()
        reposition_(self._weights, start, self.alpha)  # stage II
        yield  # stage III: slow correction
        if self._start is start:
            self._end()

    def observe(self, entropy: float) -> None:
        """Pass the entropy of the finished step to the trigger, which may end the slow-fast phase from the next step on. Does
        nothing without a trigger.

        Args:
            entropy: mean over the batch's tokens (nats) under the policy that generated them.

        Raises:
            ValueError: it is not a finite number.
        """
        if self.entropy_trigger is None:
            return
        if not math.isfinite(entropy):
            raise ValueError(f"entropy = {entropy}: must be a finite number; the trigger would never fire after it")
        self.entropy_trigger.observe(float(entropy))

    def cancel(self) -> None:
        """Restore the weights at the start of a step that was left early. The optimizer's state does not change.

        Inside the loop it ends the step: the loop stops at its next iteration. Between steps it does nothing.
        """
        if self._start is not None:
            reposition_(self._weights, self._start, 0.0)
            self._end()

    def state_dict(self) -> dict[str, Any]:
        """State that outlives a step, as plain JSON values.

        Raises:
            RuntimeError: inside a step, whose snapshot is not part of the state.
        """
        self._check_between_steps("state_dict()")
        return {"trigger": self.entropy_trigger.state_dict()} if self.entropy_trigger else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``.

        Raises:
            ValueError: it was saved with a trigger, and there is none here, or the other way round.
        """
        if ("trigger" in state) != (self.entropy_trigger is not None):
            here, there = ("no", "one") if "trigger" in state else ("one", "no")
            raise ValueError(
                f"state has {there} entropy trigger, SlowFast has {here}: give entropy_trigger as in the run before"
            )
        if self.entropy_trigger:
            self.entropy_trigger.load_state_dict(state["trigger"])

    def _given(self) -> list[Tensor]:
        if isinstance(self._source, Optimizer):
            return [parameter for group in self._source.param_groups for parameter in group["params"]]
        return self._source

    def _begin(self) -> list[Tensor]:
        self._weights = trainable(self._given())
        mine = {id(weight) for weight in self._weights}
        for other in _inside_a_step:
            if any(id(weight) in mine for weight in other._weights):
                raise RuntimeError(
                    "another SlowFast is inside a step on these weights, which would be repositioned twice: use one SlowFast "
                    "(one SlowFastCallback) per model; cancel() ends a step that was left early"
                )
        self._start = snapshot(self._weights)
        _inside_a_step.add(self)
        return self._start

    def _end(self) -> None:
        self._weights, self._start = [], None
        _inside_a_step.discard(self)

    def _check_between_steps(self, call: str) -> None:
        if self._start is not None:
            raise RuntimeError(
                f"{call} inside a step, or after one that was left early: the weights are between the stages of SFPO. "
                "Run passes() to its end, or call cancel() to restore the weights at the start of the step"
            )

    def _check_unchanged(self) -> None:
        now = trainable(self._given())
        if list(map(id, now)) != list(map(id, self._weights)):
            raise RuntimeError(
                f"trainable parameters: {len(self._weights)} at the start of the step, {len(now)} now, and not the same ones; "
                "freeze, unfreeze or replace them between steps. cancel() restores the weights at the start of the step"
            )


def trainable(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that require a gradient, each memory block once: tied weights (also transposed) and repeated ones count as
    one."""
    weights: dict[object, Tensor] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            weights.setdefault(_memory(parameter), parameter)
    return list(weights.values())


def _memory(parameter: Tensor) -> object:
    shard = local(parameter.detach())
    if type(shard) is not Tensor or shard.data_ptr() == 0:  # a tensor subclass without its own storage, or an empty shard
        return id(parameter)
    extent = 1 + sum((size - 1) * stride for size, stride in zip(shard.shape, shard.stride(), strict=True))
    layout = (
        (shard.shape, shard.stride()) if extent != shard.numel() else shard.numel()
    )  # contiguous in memory: a transposed view is the same weight
    return shard.device, shard.data_ptr(), shard.dtype, layout


def check_optimizer(optimizer: object) -> None:
    """Raises ValueError for an optimizer, or one that it wraps (``.optimizer``, as accelerate does), that SFPO cannot work
    with."""
    while optimizer is not None:
        for cls in type(optimizer).__mro__:
            for module, reason in REFUSED_OPTIMIZERS.items():
                if f"{cls.__module__}.".startswith(f"{module}."):
                    raise ValueError(f"optimizer = {cls.__module__}.{cls.__qualname__}: {reason}")
        name = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        if getattr(optimizer, "master_weights", False):  # apex's and Transformer Engine's FusedAdam
            raise ValueError(f"optimizer = {name} with master_weights: {MASTER_WEIGHTS}")
        if _low_bit(optimizer, name):
            raise ValueError(f"optimizer = {name}: {LOW_BIT}")
        optimizer = getattr(optimizer, "optimizer", None)


def _low_bit(optimizer: object, name: str) -> bool:
    bits = getattr(getattr(optimizer, "args", None), "optim_bits", 32)  # bitsandbytes
    return bits <= 8 or (name.startswith("torchao.") and name.endswith(("8bit", "4bit", "Fp8")))


def _check_parameters(parameters: list[Tensor]) -> None:
    if any(hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping") for parameter in parameters):
        raise ValueError(f"optimizer_or_params = parameters of DeepSpeed: {REFUSED_OPTIMIZERS['deepspeed.runtime']}")
    for parameter in parameters:
        if not parameter.is_leaf:
            raise ValueError(
                f"optimizer_or_params = the result of an operation, of shape {tuple(parameter.shape)}: must be the weights "
                "themselves (model.parameters())"
            )
    narrow = {parameter.dtype for parameter in parameters if torch.finfo(parameter.dtype).bits < 32}
    if narrow:
        warnings.warn(
            f"weights of {', '.join(sorted(map(str, narrow)))}: a reposition of one or two units in a weight's last place is "
            "lost to rounding; keep the weights in float32, with autocast for speed",
            stacklevel=3,
        )
