"""Methods: an update rule with an objective."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sfpo.config.names import Count, Name
from sfpo.schema import Schema


class DynamicSampling(Schema):
    """Replacement of groups without reward variance (DAPO, arXiv 2503.14476, Section 3.2)."""

    max_refills: Count
    """Largest number of additional rounds of sampling per step. Groups that are not replaced by then stay, so that all batches
    have the same size."""


class OverlongPenalty(Schema):
    """Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13)."""

    buffer_tokens: Count
    """The penalty starts this many tokens before max_completion_tokens and increases linearly."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Largest penalty, subtracted from the reward of a completion that reaches max_completion_tokens."""


class Objective(Schema):
    """The policy loss (sfpo.algorithms.objectives). GRPO, DAPO, Dr.GRPO and GSPO are combinations of these settings."""

    ratio: Literal["token", "sequence"] = "token"
    """Importance ratio per token (GRPO), or one length-normalized ratio per completion (GSPO)."""
    clip: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.2, 0.2)
    """Lower and upper clip range: the ratio is clipped to [1 - lower, 1 + upper]."""
    aggregation: Literal["sequence_mean", "token_mean", "constant"] = "sequence_mean"
    """sequence_mean: mean over a completion's tokens, then over completions (paper). token_mean: over all tokens.
    constant: sum over tokens divided by max_completion_tokens, then mean over completions (Dr.GRPO)."""
    scale_by_std: bool = True
    """Divide the mean-centred reward by the standard deviation of its group."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL penalty toward the policy that sampled the rollouts (k3 estimator)."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus."""
    sampler_correction_cap: Annotated[float, Field(gt=0)] | None = None
    """Truncated importance sampling (TIS) for the mismatch between sampler and policy: each token's loss is multiplied by
    min(pi_old / pi_sampler, cap). None: no correction."""
    dynamic_sampling: DynamicSampling | None = None
    """Replace groups without reward variance by groups of other prompts (DAPO). None: keep them."""
    overlong_penalty: OverlongPenalty | None = None
    """Reward penalty for completions near the length limit (DAPO). None: no penalty."""


class Arm(BaseModel):
    """An update rule with an objective. All other keys are settings of the rule, validated by its class."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    title: str | None = None
    """Name in tables and figures (no result depends on it). None: the arm's key in capitals."""
    rule: str
    """A module of sfpo.algorithms.update_rules."""
    objective: Name
    """A key of ``objectives``."""
    learning_rate_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the suite's learning rate."""

    def at(self, scale: float) -> Arm:
        """The same arm with its learning rate multiplied by ``scale``."""
        return self.model_copy(update={"learning_rate_scale": self.learning_rate_scale * scale})

    @property
    def rule_settings(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


def at_rate(arm: str, scale: float) -> str:
    """Name of an arm's runs at ``scale`` times the suite's learning rate; at 1 the arm's name, so that these runs are shared
    with other tables and figures."""
    return arm if scale == 1 else f"{arm}-x{scale:g}"
