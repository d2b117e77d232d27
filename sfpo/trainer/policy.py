"""The policy in torch: float32 master weights or adapters, AdamW, and the one update that every rule is made of.

Started with others by torchrun, a process holds its shard of every weight, gradient and moment (FSDP2) and computes its share
of every mini-batch. Loss weights, norms and decisions are the whole mini-batch's, and gradients are sums over the ranks, so
that their number changes rounding alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from sfpo.algorithms.logprobs import token_logprobs
from sfpo.algorithms.objectives import policy_loss, token_weights
from sfpo.algorithms.weights import clip_gradients_
from sfpo.config import Execution, Objective, Train
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.trainer.lora import add_adapters, merged
from sfpo.trainer.packing import ATTENTION, MicroBatch, micro_batches
from sfpo.trainer.published_names import published, stored_once
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
        self.logprobs, self.entropy = (torch.zeros(sum(mini.lengths), device=device) for _ in range(2))

    def take(self, micro: MicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Keep the numbers of one micro-batch."""
        self.logprobs[micro.tokens] = logprobs.detach().to(self.logprobs.dtype)
        self.entropy[micro.tokens] = entropy.detach().to(self.entropy.dtype)


class Scorer(nn.Module):
    """The model with its output layer inside one forward pass, so that a sharded output layer is whole where it is used.

    Args:
        compute: data type of the model's forward pass.
        temperature: of the distribution that completions are drawn from.
    """

    def __init__(self, model: PreTrainedModel, compute: torch.dtype, temperature: float) -> None:
        super().__init__()
        self.model, self.compute, self.temperature = model, compute, temperature

    def forward(self, micro: MicroBatch, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """(log-probs [n], entropy [n]): the output layer runs on the positions that predict completion tokens alone."""
        cast = self.compute == torch.bfloat16
        with torch.autocast(micro.input_ids.device.type, torch.bfloat16) if cast else contextlib.nullcontext():
            hidden = self.model.base_model(
                input_ids=micro.input_ids, position_ids=micro.position_ids, families=micro.families, use_cache=False
            ).last_hidden_state[0, micro.positions]
        hidden = hidden.to(torch.bfloat16) if cast else hidden
        head = self.model.get_output_embeddings().weight
        return token_logprobs(hidden, head, micro.targets, self.temperature, with_entropy)

    def shard(self, ranks: Ranks, offload: bool) -> None:
        """Keep this rank's part of each weight; a layer is whole while it computes.

        Layers are gathered in the data type that they compute in. The embeddings stay float32, and with them the residual
        stream, as under autocast alone.
        """
        placed = CPUOffloadPolicy() if offload else OffloadPolicy()
        in_layers = MixedPrecisionPolicy(self.compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                fully_shard(module, mesh=ranks.mesh, mp_policy=in_layers, offload_policy=placed)
        fully_shard(self, mesh=ranks.mesh, offload_policy=placed)
        for module in self.modules():
            if isinstance(module, FSDPModule):  # token weights hold the whole denominator: gradients add up
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)


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
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            attention_dropout=0.0,
            attn_implementation=ATTENTION,
        )
        self.model.train()
        compute = getattr(torch, train.policy_dtype)
        if train.lora:
            add_adapters(self.model, train.lora, compute, seed)
        if execution.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.scorer = Scorer(self.model, compute, train.sampling.temperature)
        if ranks.mesh is None:
            self.model.to(self.device)
        else:  # layer by layer onto the device
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
        return tensor.to(self.device).full_tensor() if isinstance(tensor, DTensor) else tensor

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
        budget, ranks = self.execution.micro_batch_tokens, self.ranks
        return micro_batches(prompt_ids, completion_ids, budget, self.device, rows, ranks.rank, ranks.size)

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
        rows = self._rows_that_teach(mini)
        first = FirstPass(mini, rows, self.device) if mini.old_logprobs is None else None
        for micro in self._micro_batches(mini.prompt_ids, mini.completion_ids, rows):
            logprobs, entropy = self.scorer(micro, with_entropy=bool(first) or self.objective.entropy_coefficient > 0.0)
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
            for scores in self._scores(mini.prompt_ids, mini.completion_ids, first.other_rows):
                first.take(*scores)
            mini.settle(self.ranks.sum_(first.logprobs), self.ranks.sum_(first.entropy).mean().item())
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
        return {**metrics, "grad_norm": grad_norm, "skipped": int(not finite)}

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
