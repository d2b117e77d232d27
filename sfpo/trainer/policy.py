"""The policy in torch: float32 master weights or adapters, AdamW, and the single update from which every rule is composed.

Under torchrun, each process holds a shard of every weight, gradient and moment (FSDP2), and computes its share of every
mini-batch. Loss weights, norms and decisions are those of the whole mini-batch, and gradients are summed over ranks, so the
number of ranks changes only rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from sfpo.algorithms.objectives import policy_loss
from sfpo.algorithms.update_rules.base import Update, UpdateMetrics
from sfpo.algorithms.weights import clip_gradients_
from sfpo.config import Execution, Objective, Optimizer, Train
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.trainer.canary import Sequences, UnsupportedModel, choose, loss_weights, prove
from sfpo.trainer.loading import from_first, load_model
from sfpo.trainer.lora import add_adapters, merged
from sfpo.trainer.mini_batch import FirstPass, MiniBatch, on_device
from sfpo.trainer.packing import MicroBatch, micro_batches
from sfpo.trainer.published_names import published, stored_once
from sfpo.trainer.scorer import Scorer
from sfpo.types import OldPolicy, TrainBatch


class NonFiniteUpdates(RuntimeError):
    """Too many mini-batches in a row had a non-finite loss or gradient."""


class Policy:
    """A causal language model that can score completions and take one update on a batch.

    Args:
        checkpoint: folder in Hugging Face format.
        objective: the loss.
        train: mini-batches, optimizer, compute data type.
        execution: micro-batches, checkpointing, offloading.
        max_completion_tokens: denominator of the "constant" aggregation.
        learning_rate_scale: factor on the optimizer's learning rate.
        ranks: the processes that share the policy; all of them must make the same calls with the same batches.
        seed: the run's seed, for the initialization of adapters.

    Raises:
        ValueError: ``offload_to_host`` is set, but the process was not started by torchrun.
        ConfigError: ``train.lora.matrices`` has a name that the model does not have.
        UnsupportedModel: the policy's log-probs or gradients differ from the model's (sfpo/trainer/canary.py).
    """

    def __init__(
        self,
        checkpoint: str | Path,
        objective: Objective,
        train: Train,
        execution: Execution,
        max_completion_tokens: int,
        learning_rate_scale: float = 1.0,
        ranks: Ranks = SINGLE_PROCESS,
        seed: int = 0,
    ) -> None:
        if execution.offload_to_host and ranks.mesh is None:
            raise ValueError("execution.offload_to_host = true needs sharded weights: start the job with torchrun")
        self.device = torch.device("cuda" if self.on_gpu() else "cpu")
        # It plans anew for each shape, and no two micro-batches have the same; torch prefers it on a Hopper GPU and newer ones.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.ranks = ranks
        try:
            self.model = load_model(checkpoint, ranks)
        except (AttributeError, ImportError, KeyError, TypeError, ValueError) as fault:
            raise UnsupportedModel(f"{checkpoint}: transformers cannot load it as a causal language model: {fault}") from fault
        if ranks.mesh is None:
            nn.Module.to(self.model, self.device)  # PreTrainedModel.to is untyped
        started = time.perf_counter()
        compute = getattr(torch, train.policy_dtype)
        choice = ranks.of_first(lambda: choose(self.model, train.packing, seed, compute))
        chosen = time.perf_counter()
        self.layout = choice.layout
        if choice.attention:
            self.model.set_attn_implementation(choice.attention)
        if train.lora:
            add_adapters(self.model, train.lora, compute, seed, ranks)
        self.scorer = Scorer(self.model, compute, train.sampling.temperature, ranks)
        if execution.gradient_checkpointing:
            self.scorer.checkpoint_layers()
        if ranks.mesh is not None:  # moves the model to the device layer by layer
            offload = execution.offload_to_host and self.device.type == "cuda"
            self.scorer.shard(ranks, offload, from_first(ranks, self.device))
        self.objective = objective
        self.train, self.execution = train, execution
        self.max_completion_tokens = max_completion_tokens
        self.skipped_in_a_row = 0
        self._prepared: tuple[tuple[Any, ...], list[MiniBatch]] | None = None
        """(identity of the last batch's data, its mini-batches on the device)."""
        self.learning_rate = train.optimizer.learning_rate * learning_rate_scale
        self.optimizer = _adamw(self.parameters(), train.optimizer, self.learning_rate)
        proven = time.perf_counter()
        changed = compute != torch.float32 or train.lora or execution.gradient_checkpointing or ranks.mesh is not None
        gap = prove(choice.found, *self._scores_and_gradients(choice.found), self.model) if changed else choice.gap
        seconds = time.perf_counter() - proven + chosen - started
        self.canary = {**choice.report(), "as_trained": asdict(gap), "seconds": round(seconds, 3)}
        """For summary.json: the layout in use, and the difference of its log-probs from the plain model's."""

    @staticmethod
    def on_gpu() -> bool:
        """Whether policies on this machine use a GPU."""
        return torch.cuda.is_available()

    def parameters(self) -> list[Tensor]:
        """The trainable weights (local shards), always in the same order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All parameters and persistent buffers, tied ones once, under the names and in the layout of the published checkpoint
        (see RolloutEngine.load_weights), adapters merged.

        Tensors are created one at a time; sharded ones are gathered, so all ranks must iterate together.
        """
        tensors = stored_once(self.model, self.model.state_dict(keep_vars=True))
        return published(self.model, merged(self.model, tensors, self._whole))

    def _whole(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if not isinstance(tensor, DTensor):
            return tensor
        moved = tensor.to(self.device)  # offloaded weights are on the host
        return moved.full_tensor() if isinstance(moved, DTensor) else moved

    def state(self) -> dict[str, Tensor]:
        """Name -> this rank's shards of the trained weights and AdamW's moments. Tensors are not copied: writing to them
        restores a saved state."""
        tensors = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                tensors[f"weight.{name}"] = parameter.detach()
                tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state[parameter].items()}
        return tensors

    def set_learning_rate(self, step: int) -> float:
        """Set and return the learning rate of outer step ``step`` (1-based): linear warm-up, then constant."""
        rate = self.learning_rate * min(1.0, step / max(1, self.train.optimizer.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def score(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(log-probs [N], entropy [N]) of all completion tokens, concatenated, under the current weights, without gradient."""
        total = sum(len(ids) for ids in completion_ids)
        logprobs, entropy = (torch.zeros(total, dtype=self.model.dtype, device=self.device) for _ in range(2))
        for micro, of_tokens, their_entropy in self._scores(prompt_ids, completion_ids, None):
            logprobs[micro.tokens], entropy[micro.tokens] = of_tokens, their_entropy
        return self.ranks.sum_(logprobs), self.ranks.sum_(entropy)

    @torch.no_grad()
    def _scores(
        self, prompt_ids: list[list[int]], completion_ids: list[list[int]], rows: list[int] | None
    ) -> Iterator[tuple[MicroBatch, Tensor, Tensor]]:
        for micro in self._micro_batches(prompt_ids, completion_ids, rows):
            yield micro, *self.scorer(micro, with_entropy=True)
        if isinstance(self.scorer, FSDPModule):
            self.scorer.reshard()  # otherwise done by the backward pass

    def _micro_batches(
        self, prompt_ids: list[list[int]], completion_ids: list[list[int]], rows: list[int] | None
    ) -> Iterator[MicroBatch]:
        budget, ranks, alone = self.execution.micro_batch_tokens, self.ranks, self.scorer.alone_from
        layout = self.layout
        return micro_batches(prompt_ids, completion_ids, budget, self.device, rows, ranks.rank, ranks.size, layout, alone)

    def _scores_and_gradients(self, sequences: Sequences) -> tuple[Tensor, dict[str, Tensor]]:
        """Log-probs [N] at temperature 1, and the gradients of their weighted sum, as the plain model's were computed."""
        temperature, self.scorer.temperature = self.scorer.temperature, 1.0
        logprobs = torch.zeros(sum(map(len, sequences.completions)), device=self.device)
        weights = loss_weights(len(logprobs)).to(logprobs)
        for micro in self._micro_batches(sequences.prompts, sequences.completions, None):
            of_tokens, _ = self.scorer(micro, with_entropy=False)
            logprobs[micro.tokens] = of_tokens.detach().to(logprobs.dtype)
            (weights[micro.tokens] * of_tokens).sum().backward()
        logprobs = self.ranks.sum_(logprobs)
        self.scorer.temperature = temperature
        gradients = {
            name: self._whole(parameter.grad)
            for name, parameter in self.model.named_parameters()
            if name in sequences.gradients and parameter.grad is not None
        }
        for parameter in self.parameters():
            parameter.grad = None
        return logprobs, gradients

    def mini_batches(self, batch: TrainBatch) -> Iterable[TrainBatch]:
        """The mini-batches of a batch; ``descend`` takes one optimizer step on each."""
        return batch.mini_batches(self.train.mini_batch_prompts)

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> Update:
        """One update: a pass over the batch in mini-batches, with one optimizer step each.

        Args:
            observe: called before each optimizer step, when ``grad`` of every weight is set but not yet clipped.

        Returns:
            Metrics, averaged over mini-batches: loss, grad_norm (before clipping); ratio_mean and clip_fraction (over tokens
            with a gradient); ratio_max (maximum); skipped (number of mini-batches whose loss or gradient was not finite, for
            which no optimizer step is taken).

        Raises:
            NonFiniteUpdates: ``max_skipped_updates`` mini-batches in a row were skipped.
        """
        old = None if batch.old is None else OldPolicy(batch.old.logprobs.to(self.device), batch.old.entropy)
        updates = []
        for mini in self._on_device(batch):
            of_mini = None if old is None else OldPolicy(old.logprobs[mini.place], old.entropy)
            updates.append(self._descend_mini_batch(mini, of_mini, observe))
        passes = [update.metrics for update in updates]
        means = {key: sum(metrics[key] for metrics in passes) / len(passes) for key in passes[0]}
        totals = {"skipped": sum(metrics["skipped"] for metrics in passes)}
        largest = {"ratio_max": max(metrics["ratio_max"] for metrics in passes)}
        return Update({**means, **totals, **largest}, batch.old or updates[0].old)  # without old, one mini-batch

    def _on_device(self, batch: TrainBatch) -> list[MiniBatch]:
        """The batch's mini-batches on the device, prepared once for all passes, which can differ only in the old log-probs."""
        made_of = (batch.prompt_ids, batch.completion_ids, batch.advantages, batch.sampler_logprobs)
        if self._prepared is None or any(one is not other for one, other in zip(self._prepared[0], made_of, strict=True)):
            self._prepared = None  # free the previous batch first
            parts, most = self.mini_batches(batch), self.max_completion_tokens
            made = on_device(parts, self.objective, most, self._micro_batches, self.device, self.model.dtype)
            self._prepared = made_of, made
        return self._prepared[1]

    def _descend_mini_batch(self, mini: MiniBatch, old: OldPolicy | None, observe: Callable[[], None] | None) -> Update:
        """One optimizer step. The host waits for the device once, to check that loss and gradient are finite."""
        first, with_entropy = FirstPass(mini, self.device), old is None or self.objective.entropy_coefficient > 0.0
        loss_sum, ratios, clipped = torch.zeros((), dtype=torch.float64, device=self.device), [], []
        for part in mini.parts:
            logprobs, entropy = self.scorer(part.micro, with_entropy)
            if old is None:
                first.take(part.micro, logprobs, entropy)
            loss, statistics = policy_loss(
                self.objective,
                logprobs,
                logprobs.detach() if old is None else old.logprobs[part.micro.tokens],
                entropy,
                part.advantages,
                part.lengths,
                part.weights,
                part.sampler_logprobs,
            )
            loss.backward()
            loss_sum += loss.detach()
            ratios.append(statistics["ratio"])
            clipped.append(statistics["clipped"])
        mean_entropy = torch.zeros_like(loss_sum)
        if old is None:
            for scores in self._scores(mini.batch.prompt_ids, mini.batch.completion_ids, first.other_rows):
                first.take(*scores)
            mean_entropy = first.share(self.ranks)
        if not mini.rows:  # the gradient is exactly 0, but AdamW's moments still decay
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        if observe:
            observe()
        norm = clip_gradients_(self.parameters(), self.train.optimizer.max_grad_norm)
        found = torch.cat([self._of_all_ranks(loss_sum, ratios, clipped), norm.double()[None], mean_entropy.double()[None]])
        *of_ranks, grad_norm, entropy_mean = found.tolist()
        metrics = _metrics(of_ranks, mini.tokens)
        finite = math.isfinite(metrics["loss"]) and math.isfinite(grad_norm)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(not finite)
        return Update(
            {**metrics, "grad_norm": grad_norm, "skipped": int(not finite)}, old or OldPolicy(first.logprobs, entropy_mean)
        )

    def _of_all_ranks(self, loss_sum: Tensor, ratios: list[Tensor], clipped: list[Tensor]) -> Tensor:
        """[4 x ranks] float64, per rank: loss, sum of ratios, number of clipped tokens, largest ratio."""
        ratio, binds = (torch.cat(values) if values else loss_sum.new_zeros(0) for values in (ratios, clipped))
        largest = torch.cat([ratio, ratio.new_full((1,), -math.inf)]).max()
        table = loss_sum.new_zeros(self.ranks.size, 4)
        table[self.ranks.rank] = torch.stack([one.double() for one in (loss_sum, ratio.sum(), binds.sum(), largest)])
        return self.ranks.sum_(table).flatten()

    def _count_skipped(self, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= self.execution.max_skipped_updates:
            raise NonFiniteUpdates(
                f"{self.skipped_in_a_row} mini-batches in a row had a non-finite loss or gradient "
                f"(max_skipped_updates = {self.execution.max_skipped_updates})"
            )


def _adamw(parameters: list[Tensor], settings: Optimizer, learning_rate: float) -> torch.optim.AdamW:
    """AdamW with its moments allocated as in its first step, so that a lack of memory shows before the job starts."""
    optimizer = torch.optim.AdamW(
        parameters,
        lr=learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    for parameter in parameters:
        moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    return optimizer


def _metrics(of_ranks: list[float], tokens: int) -> UpdateMetrics:
    """Metrics of a whole mini-batch; ratios are 1 if no completion has a gradient.

    Args:
        of_ranks: result of ``_of_all_ranks``.
        tokens: number of tokens of the completions with a gradient, over all ranks.
    """
    loss, ratio, bound = (sum(of_ranks[place::4]) for place in range(3))
    return {
        "loss": loss,
        "ratio_mean": ratio / tokens if tokens else 1.0,
        "ratio_max": max(of_ranks[3::4]) if tokens else 1.0,
        "clip_fraction": bound / tokens if tokens else 0.0,
    }
