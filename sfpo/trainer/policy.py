"""The policy in torch: float32 master weights or adapters, AdamW, and the one update that every rule is made of.

Started with others by torchrun, a process holds its shard of every weight, gradient and moment (FSDP2) and computes its share
of every mini-batch. Loss weights, norms and decisions are the whole mini-batch's, and gradients are sums over the ranks, so
that their number changes rounding alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from sfpo.algorithms.objectives import policy_loss, token_weights
from sfpo.algorithms.update_rules import Update
from sfpo.algorithms.weights import clip_gradients_
from sfpo.config import Execution, Objective, Train
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.trainer.canary import Sequences, UnsupportedModel, choose, loss_weights, prove
from sfpo.trainer.lora import add_adapters, merged
from sfpo.trainer.packing import MicroBatch, micro_batches
from sfpo.trainer.published_names import published, stored_once
from sfpo.trainer.scorer import Scorer
from sfpo.types import OldPolicy, TrainBatch


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
        self.logprobs, self.entropy = (torch.zeros(sum(mini.lengths), device=device) for _ in range(2))

    def take(self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Keep the numbers of one micro-batch."""
        self.logprobs[micro.tokens] = logprobs.detach().to(self.logprobs.dtype)
        self.entropy[micro.tokens] = entropy.detach().to(self.entropy.dtype)

    def found(self, ranks: Ranks) -> OldPolicy:
        """All numbers of all ranks, once every completion has been taken."""
        return OldPolicy(ranks.sum_(self.logprobs), ranks.sum_(self.entropy).mean().item())


class Policy:
    """A causal language model that can score completions and take one update on a batch.

    Args:
        checkpoint: folder in Hugging Face format.
        objective: the loss.
        train: mini-batches, optimizer, compute type.
        execution: micro-batches, checkpointing, offloading.
        max_completion_tokens: denominator of the "constant" aggregation.
        learning_rate_scale: factor on the optimizer's learning rate.
        ranks: the processes that hold the policy together; all of them make the same calls with the same batches.
        seed: of the run; adapters start from it.

    Raises:
        ValueError: ``offload_to_host`` is set for a process that torchrun did not start.
        ConfigError: adapters are asked for matrices that the model does not have.
        UnsupportedModel: the policy's log-probs or gradients would not be the model's (sfpo/trainer/canary.py).
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
            raise ValueError("execution.offload_to_host = true: shards alone can be offloaded; start the job with torchrun")
        self.device = torch.device("cuda" if self.on_gpu() else "cpu")
        self.ranks = ranks
        try:
            self.model = AutoModelForCausalLM.from_pretrained(
                checkpoint, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
        except (AttributeError, ImportError, KeyError, TypeError, ValueError) as fault:
            raise UnsupportedModel(f"{checkpoint}: transformers does not load a causal language model: {fault}") from fault
        if ranks.mesh is None:
            nn.Module.to(self.model, self.device)  # PreTrainedModel.to has lost its types
        started = time.perf_counter()
        compute = getattr(torch, train.policy_dtype)
        choice = choose(self.model, train.packing, seed, compute)
        chosen = time.perf_counter()
        self.layout = choice.layout
        if train.lora:
            add_adapters(self.model, train.lora, compute, seed)
        self.scorer = Scorer(self.model, compute, train.sampling.temperature)
        if execution.gradient_checkpointing:
            self.scorer.checkpoint_layers()
        if ranks.mesh is not None:  # layer by layer onto the device
            self.scorer.shard(ranks, execution.offload_to_host and self.device.type == "cuda")
        self.objective = objective
        self.train, self.execution = train, execution
        self.max_completion_tokens = max_completion_tokens
        self.skipped_in_a_row = 0
        settings = train.optimizer
        self.learning_rate = settings.learning_rate * learning_rate_scale
        self.optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        proven = time.perf_counter()
        changed = compute != torch.float32 or train.lora or execution.gradient_checkpointing or ranks.mesh is not None
        gap = prove(choice.found, *self._scores_and_gradients(choice.found), self.model) if changed else choice.gap
        seconds = time.perf_counter() - proven + chosen - started
        self.canary = {**choice.report(), "as_trained": asdict(gap), "seconds": round(seconds, 3)}
        """For summary.json: how log-probs are computed, and how far they were from the plain model's."""

    @staticmethod
    def on_gpu() -> bool:
        """Whether policies are on a GPU here."""
        return torch.cuda.is_available()

    def parameters(self) -> list[Tensor]:
        """The trainable weights, always in the same order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All parameters and persistent buffers, tied ones once, under the names and in the layout of the published checkpoint
        (see RolloutEngine.load_weights), adapters merged.

        One is made at a time; sharded ones are put together as all ranks ask for them.
        """
        tensors = stored_once(self.model, self.model.state_dict(keep_vars=True))
        return published(self.model, merged(self.model, tensors, self._whole))

    def _whole(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if not isinstance(tensor, DTensor):
            return tensor
        moved = tensor.to(self.device)  # from the host, if it is offloaded
        return moved.full_tensor() if isinstance(moved, DTensor) else moved

    def state(self) -> dict[str, Tensor]:
        """This rank's shards of what is trained and of AdamW's moments, by name: what is written there goes on from there."""
        tensors = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            moments = self.optimizer.state[parameter]
            if not moments:  # as AdamW's first step makes them
                moments["step"] = torch.zeros((), device=parameter.device)
                moments |= {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            tensors[f"weight.{name}"] = parameter.detach()
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        return tensors

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
            self.scorer.reshard()  # after a backward pass it does so by itself

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
        """The parts on which ``descend`` takes one optimizer step each."""
        return batch.mini_batches(self.train.mini_batch_prompts)

    def descend(self, batch: TrainBatch, observe: Callable[[], None] | None = None) -> Update:
        """One update: a pass over the batch in mini-batches, with an optimizer step on each.

        Args:
            observe: called before each optimizer step, when every weight's ``grad`` is the mini-batch loss's, not clipped.

        Returns:
            Metrics are means over the mini-batches: loss, grad_norm (before clipping), and over the tokens that have a gradient
            ratio_mean, clip_fraction; ratio_max is the largest of all. skipped counts the mini-batches whose loss or gradient
            was not finite: they take no optimizer step.

        Raises:
            NonFiniteUpdates: ``max_skipped_updates`` mini-batches in a row were skipped.
        """
        updates = [self._descend_mini_batch(mini, observe) for mini in self.mini_batches(batch)]
        passes = [update.metrics for update in updates]
        means = {key: sum(metrics[key] for metrics in passes) / len(passes) for key in passes[0]}
        totals = {"skipped": sum(metrics["skipped"] for metrics in passes)}
        largest = {"ratio_max": max(metrics["ratio_max"] for metrics in passes)}
        return Update({**means, **totals, **largest}, batch.old or updates[0].old)  # a batch without is one mini-batch

    def _descend_mini_batch(self, mini: TrainBatch, observe: Callable[[], None] | None) -> Update:
        lengths = torch.tensor(mini.lengths, device=self.device)
        weights = token_weights(self.objective.aggregation, lengths, self.max_completion_tokens).to(self.model.dtype)
        advantages = mini.advantages.to(self.device)
        loss_sum, ratios, clipped = 0.0, [], []
        rows = self._rows_that_teach(mini)
        first, old = FirstPass(mini, rows, self.device), mini.old
        for micro in self._micro_batches(mini.prompt_ids, mini.completion_ids, rows):
            logprobs, entropy = self.scorer(micro, with_entropy=old is None or self.objective.entropy_coefficient > 0.0)
            if old is None:
                first.take(micro, logprobs, entropy)
            loss, statistics = policy_loss(
                self.objective,
                logprobs,
                logprobs.detach() if old is None else old.logprobs[micro.tokens],
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
        if old is None:
            for scores in self._scores(mini.prompt_ids, mini.completion_ids, first.other_rows):
                first.take(*scores)
            old = first.found(self.ranks)
        if not rows:  # a gradient of exactly 0: AdamW's moments decay, as they would after a forward and backward pass
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        if observe:
            observe()
        grad_norm = clip_gradients_(self.parameters(), self.train.optimizer.max_grad_norm)
        metrics = self._over_all_ranks(loss_sum, ratios, clipped)
        finite = math.isfinite(metrics["loss"]) and math.isfinite(grad_norm)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(not finite)
        return Update({**metrics, "grad_norm": grad_norm, "skipped": int(not finite)}, old)

    def _over_all_ranks(self, loss_sum: float, ratios: list[Tensor], clipped: list[Tensor]) -> dict[str, float]:
        """Loss and ratios of the whole mini-batch; ratios are 1 where no completion has a gradient."""
        ratio, binds = (torch.cat(values) if values else torch.empty(0) for values in (ratios, clipped))
        largest = ratio.max().item() if len(ratio) else -math.inf
        every = self.ranks.gather((loss_sum, len(ratio), ratio.sum().item(), binds.sum().item(), largest))
        losses, tokens, sums, bound, tops = zip(*every, strict=True)
        found = sum(tokens) > 0
        return {
            "loss": sum(losses),
            "ratio_mean": sum(sums) / sum(tokens) if found else 1.0,
            "ratio_max": max(tops) if found else 1.0,
            "clip_fraction": sum(bound) / sum(tokens) if found else 0.0,
        }

    def _count_skipped(self, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= self.execution.max_skipped_updates:
            raise NonFiniteUpdates(
                f"{self.skipped_in_a_row} mini-batches in a row had a loss or gradient that is not finite "
                f"(max_skipped_updates = {self.execution.max_skipped_updates})"
            )

    def _rows_that_teach(self, mini: TrainBatch) -> list[int]:
        """The completions with a gradient. Where the advantage is 0 the clipped loss has none, and it takes a KL or entropy
        term to give one. Leaving them out changes no gradient: the denominators stay the mini-batch's."""
        if self.objective.kl_coefficient or self.objective.entropy_coefficient:
            return list(range(len(mini)))
        return mini.advantages.nonzero().flatten().tolist()
