"""The policy in torch: float32 master weights, AdamW, and the one update that every rule is made of."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sfpo.algorithms.logprobs import token_logprobs
from sfpo.algorithms.objectives import policy_loss, token_weights
from sfpo.config import Objective, Train
from sfpo.trainer.packing import ATTENTION, MicroBatch, micro_batches
from sfpo.types import TrainBatch


class NonFiniteUpdates(RuntimeError):
    """Too many mini-batches in a row had a loss or gradient that is not finite."""


class FirstPass:
    """Old log-probs and entropies as a mini-batch's own forward pass finds them, before anything has moved.

    Args:
        rows: the completions that the pass takes anyway; ``other_rows`` are left for a pass without gradient.
    """

    def __init__(self, mini: TrainBatch, rows: list[int], device: torch.device) -> None:
        taken = set(rows)
        self.other_rows = [row for row in range(len(mini)) if row not in taken]
        self.logprobs, self.entropy = (torch.empty(sum(mini.lengths), device=device) for _ in range(2))

    def take(self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Keep the numbers of one micro-batch."""
        self.logprobs[micro.tokens] = logprobs.detach().to(self.logprobs.dtype)
        self.entropy[micro.tokens] = entropy.detach().to(self.entropy.dtype)


class Policy:
    """A causal language model that can score completions and take one update on a batch.

    Args:
        checkpoint: folder in Hugging Face format.
        objective: the loss.
        train: mini-batches, optimizer, compute type.
        max_completion_tokens: denominator of the "constant" aggregation.
        learning_rate_scale: factor on the optimizer's learning rate.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        objective: Objective,
        train: Train,
        max_completion_tokens: int,
        learning_rate_scale: float = 1.0,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            attention_dropout=0.0,
            attn_implementation=ATTENTION,
        ).to(self.device)
        self.model.train()
        if train.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.objective = objective
        self.train = train
        self.max_completion_tokens = max_completion_tokens
        self.skipped_in_a_row = 0
        settings = train.optimizer
        self.learning_rate = settings.learning_rate * learning_rate_scale
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def parameters(self) -> list[Tensor]:
        """The trainable weights, always in the same order."""
        return list(self.model.parameters())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every entry of the state dict, tied weights under both names (see RolloutEngine.load_weights)."""
        return iter(self.model.state_dict().items())

    def set_learning_rate(self, step: int) -> float:
        """Learning rate of outer step ``step`` (1-based): linear warm-up, then constant. The same for all its updates."""
        rate = self.learning_rate * min(1.0, step / max(1, self.train.optimizer.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def score(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(log-probs [N], entropy [N]) of all completion tokens end to end, under the present weights, without gradient."""
        total = sum(len(ids) for ids in completion_ids)
        logprobs, entropy = (torch.empty(total, dtype=self.model.dtype, device=self.device) for _ in range(2))
        for micro in micro_batches(prompt_ids, completion_ids, self.train.micro_batch_tokens, self.device):
            logprobs[micro.tokens], entropy[micro.tokens] = self._forward(micro)
        return logprobs, entropy

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """The parts on which ``descend`` takes one optimizer step each."""
        return batch.mini_batches(self.train.mini_batch_prompts)

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> dict[str, float]:
        """One update: a pass over the batch in mini-batches, with an optimizer step on each.

        Args:
            observe: called before each optimizer step, when every weight's ``grad`` is the mini-batch loss's, not clipped.

        Returns:
            Means over the mini-batches: loss, grad_norm (before clipping), and over the tokens that have a gradient ratio_mean,
            clip_fraction; ratio_max is the largest of all. skipped counts the mini-batches whose loss or gradient was not
            finite: they take no optimizer step.

        Raises:
            NonFiniteUpdates: ``max_skipped_updates`` mini-batches in a row were skipped.
        """
        passes = [self._descend_mini_batch(mini, observe) for mini in self.mini_batches(batch)]
        means = {key: sum(metrics[key] for metrics in passes) / len(passes) for key in passes[0]}
        totals = {"skipped": sum(metrics["skipped"] for metrics in passes)}
        return {**means, **totals, "ratio_max": max(metrics["ratio_max"] for metrics in passes)}

    def _descend_mini_batch(self, mini: TrainBatch, observe: Callable[[], None] | None) -> dict[str, float]:
        lengths = torch.tensor(mini.lengths, device=self.device)
        weights = token_weights(self.objective.aggregation, lengths, self.max_completion_tokens).to(self.model.dtype)
        advantages = mini.advantages.to(self.device)
        loss_sum, ratios, clipped = 0.0, [], []
        budget, rows = self.train.micro_batch_tokens, self._rows_that_teach(mini)
        first = FirstPass(mini, rows, self.device) if mini.old_logprobs is None else None
        for micro in micro_batches(mini.prompt_ids, mini.completion_ids, budget, self.device, rows):
            logprobs, entropy = self._forward(micro, with_entropy=bool(first) or self.objective.entropy_coefficient > 0.0)
            if first:
                first.take(micro, logprobs, entropy)
            loss, statistics = policy_loss(
                self.objective,
                logprobs,
                logprobs.detach() if first else mini.old_logprobs[micro.tokens],
                entropy,
                advantages[micro.rows],
                lengths[micro.rows],
                weights[micro.tokens],
                None if mini.sampler_logprobs is None else mini.sampler_logprobs[micro.tokens.cpu()].to(self.device),
            )
            loss.backward()
            loss_sum += loss.item()
            ratios.append(statistics["ratio"])
            clipped.append(statistics["clipped"])
        if first:
            with torch.no_grad():
                for micro in micro_batches(mini.prompt_ids, mini.completion_ids, budget, self.device, first.other_rows):
                    first.take(micro, *self._forward(micro))
            mini.settle(first.logprobs, first.entropy.mean().item())
        if not rows:  # a gradient of exactly 0: AdamW's moments decay, as they would after a forward and backward pass
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        if observe:
            observe()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.optimizer.max_grad_norm)
        finite = math.isfinite(loss_sum) and bool(grad_norm.isfinite())
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(not finite)
        ratio = torch.cat(ratios) if rows else torch.ones(1)
        return {
            "loss": loss_sum,
            "ratio_mean": ratio.mean().item(),
            "ratio_max": ratio.max().item(),
            "clip_fraction": torch.cat(clipped).float().mean().item() if rows else 0.0,
            "grad_norm": grad_norm.item(),
            "skipped": int(not finite),
        }

    def _count_skipped(self, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= self.train.max_skipped_updates:
            raise NonFiniteUpdates(
                f"{self.skipped_in_a_row} mini-batches in a row had a loss or gradient that is not finite "
                f"(max_skipped_updates = {self.train.max_skipped_updates})"
            )

    def _rows_that_teach(self, mini: TrainBatch) -> list[int]:
        """The completions with a gradient. Where the advantage is 0 the clipped loss has none, and it takes a KL or entropy
        term to give one. Leaving them out changes no gradient: the denominators stay the mini-batch's."""
        if self.objective.kl_coefficient or self.objective.entropy_coefficient:
            return list(range(len(mini)))
        return mini.advantages.nonzero().flatten().tolist()

    def _forward(self, micro: MicroBatch, with_entropy: bool = True) -> tuple[Tensor, Tensor]:
        """(log-probs [n], entropy [n]): the output layer runs on the positions that predict completion tokens alone."""
        cast = self.train.policy_dtype == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if cast else contextlib.nullcontext():
            hidden = self.model.base_model(
                input_ids=micro.input_ids, position_ids=micro.position_ids, families=micro.families, use_cache=False
            ).last_hidden_state[0, micro.positions]
        hidden = hidden.to(torch.bfloat16) if cast else hidden
        head = self.model.get_output_embeddings().weight
        return token_logprobs(hidden, head, micro.targets, self.train.sampling.temperature, with_entropy)
