"""Supervised fine-tuning on worked solutions until the model solves some of the problems, as a starting point for RL.

The loss is next-token cross-entropy on the solutions. Weight matrices are optimized by Muon
(https://kellerjordan.github.io/posts/muon/), other parameters by AdamW. In one trial on the tiny model this reached the target
range after 200 batches at learning rate 3e-3; AdamW for all parameters at 1e-3 reached a pass rate of 23% after 450.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sfpo.config import GraderName, ModelLimits, PretrainedModel, ScratchModel, WarmUp
from sfpo.data.prompts import load_problems, load_prompts, render
from sfpo.data.rows import Row
from sfpo.models.muon import Muon
from sfpo.models.scratch import new_policy, train_tokenizer
from sfpo.rewards.graders import make_grader
from sfpo.schema import ConfigError
from sfpo.seeding import rng, seed_of
from sfpo.types import Prompt

RAMP_BATCHES = 20
"""Batches of linear learning-rate warm-up, since the optimizer's first moment estimates are noisy; constant afterwards."""
MICRO_BATCH = 8
"""Examples per forward and backward pass. Batches are sorted by length, to reduce padding."""
MAX_GRAD_NORM = 1.0
IGNORED = -100
"""Label of a token without a loss (the convention of transformers)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One solved problem as token ids."""

    prompt_ids: list[int]
    completion_ids: list[int]
    """The solution and the end-of-turn token."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def build(model: ScratchModel, instruction: str, data: Path, folder: Path, grader: GraderName = "math") -> dict[str, Any]:
    """Create a model, warm it up, and write it to ``folder``.

    Args:
        instruction: the user turn; {problem} is replaced by the problem.
        data: folder with train.parquet (problems with solutions) and validation.parquet.
        folder: gets weights, configuration, generation settings and tokenizer.
        grader: grader of the data set.

    Returns:
        Facts for the manifest: the measurements, and the ids of the excluded rows.

    Raises:
        ConfigError: the data are invalid, the settings are incompatible, or the warm-up does not reach its pass rate.
    """
    train = data / "train.parquet"
    rows = load_problems(train)
    turns = ("user\n", "assistant\n")
    texts = [text for row in rows for text in (*turns, row.problem, solution_of(row, train))]
    made = train_tokenizer(texts, model.vocabulary_size)
    policy = new_policy(model, made)
    made.save_pretrained(folder)
    policy.save_pretrained(folder)
    # Reload it, since transformers changes some tokenizers on loading (see scratch.PIECES).
    tokenizer = AutoTokenizer.from_pretrained(folder)
    facts = _learn(policy, tokenizer, model, instruction, data, grader)
    policy.save_pretrained(folder)
    return facts


def continue_pretrained(
    model: PretrainedModel, instruction: str, data: Path, folder: Path, grader: GraderName = "math"
) -> dict[str, Any]:
    """Warm up the model in ``folder``, whose padding and stop tokens are already set; it keeps its data type.

    Args, Returns, Raises: as ``build``.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False, use_safetensors=True)
    dtype = policy.dtype
    policy.config.pad_token_id = tokenizer.pad_token_id
    facts = _learn(policy.float(), tokenizer, model, instruction, data, grader)
    nn.Module.to(policy, dtype)  # PreTrainedModel.to has lost its types
    policy.save_pretrained(folder)
    return facts


def _learn(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    model: ScratchModel | PretrainedModel,
    instruction: str,
    data: Path,
    grader: GraderName,
) -> dict[str, Any]:
    """Warm up ``policy`` in place; returns the facts of ``build``."""
    train = data / "train.parquet"
    examples, too_long = read_examples(train, load_problems(train), tokenizer, instruction, model)
    prompts, _ = load_prompts(data / "validation.parquet", tokenizer, instruction, model.max_prompt_tokens)
    log.info("%d examples for the warm-up; %d excluded, longer than the token limits", len(examples), len(too_long))
    history = warm_up(policy, tokenizer, examples, prompts[: settings_of(model).check_prompts], model, grader)
    return {"warm_up": history, "examples_over_token_limits": too_long}


def settings_of(model: ScratchModel | PretrainedModel) -> WarmUp:
    """Raises ConfigError if the model has no warm-up."""
    if model.warm_up is None:
        raise ConfigError("warm_up = null: the model has no warm-up")
    return model.warm_up


def solution_of(row: Row, path: Path) -> str:
    """The row's solution; raises ConfigError if it has none. ``path`` is its file."""
    if row.solution is None:
        raise ConfigError(f"{path}: row '{row.id}' has no solution; use generated problems for the warm-up")
    return row.solution


def read_examples(
    path: Path, rows: list[Row], tokenizer: PreTrainedTokenizerBase, instruction: str, limits: ModelLimits
) -> tuple[list[Example], list[str]]:
    """The solved problems ``rows`` (of the file ``path``), and the ids of those excluded because they exceed ``limits``.

    Raises:
        ConfigError: a row has no solution, or all are excluded.
    """
    examples, too_long = [], []
    for row in rows:
        prompt_ids = render(tokenizer, instruction, row.problem)
        completion_ids = [*tokenizer.encode(solution_of(row, path), add_special_tokens=False), tokenizer.eos_token_id]
        if len(prompt_ids) > limits.max_prompt_tokens or len(completion_ids) > limits.max_completion_tokens:
            too_long.append(row.id)
        else:
            examples.append(Example(prompt_ids, completion_ids))
    if not examples:
        raise ConfigError(f"{path}: no row is within max_prompt_tokens and max_completion_tokens; raise them")
    return examples, too_long


def warm_up(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    prompts: list[Prompt],
    model: ScratchModel | PretrainedModel,
    grader: GraderName = "math",
) -> list[dict[str, float]]:
    """Train ``policy`` in place on ``examples``, until its pass rate on ``prompts`` lies in the range
    ``model.warm_up.pass_rate``.

    If a measurement is above the range, training is rolled back to the last one below it and continues with half as many
    batches between measurements. Batches depend on their number only, so the same ones are repeated.

    Returns:
        One entry per measurement: batches so far, mean loss since the last one (nats per token), pass rate.

    Raises:
        ConfigError: no measurement is in the range; the message lists them.
    """
    settings = settings_of(model)
    low, high = settings.pass_rate
    learner = Learner(policy, examples, model)
    history: list[dict[str, float]] = []
    done, stride, below = 0, settings.check_every, learner.state()
    with tqdm(total=settings.max_batches, desc="warm-up", unit="batch", mininterval=1.0) as bar:
        while done < settings.max_batches and stride > 0:
            stop, total = min(done + stride, settings.max_batches), 0.0
            for number in range(done, stop):
                total += learner.learn(number)
                bar.update()
            rate = pass_rate(policy, tokenizer, prompts, model, grader, stop)
            history.append({"batches": stop, "loss": total / (stop - done), "pass_rate": rate})
            bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", pass_rate=f"{rate:.3f}")
            if low <= rate <= high:
                return history
            if rate < low:
                done, below = stop, learner.state()
            else:
                learner.restore(below)
                bar.update(done - stop)
                stride //= 2
    measured = ", ".join(f"{entry['pass_rate']:.3f} after {entry['batches']}" for entry in history)
    raise ConfigError(
        f"warm_up: no pass rate within {[low, high]} in {settings.max_batches} batches (measured: {measured}); "
        "widen pass_rate, raise max_batches, or change learning_rate"
    )


class Learner:
    """A policy with its examples and optimizers."""

    def __init__(self, policy: PreTrainedModel, examples: list[Example], model: ScratchModel | PretrainedModel) -> None:
        self._policy, self._examples, self._settings, self._seed = policy, examples, settings_of(model), model.seed
        embedding = policy.get_input_embeddings().weight
        matrices = [weight for weight in policy.parameters() if weight.dim() == 2 and weight is not embedding]
        others = [weight for weight in policy.parameters() if weight.dim() != 2 or weight is embedding]
        rate = self._settings.learning_rate
        # Muon's step is scaled to the size of AdamW's, so that one learning rate serves both.
        self._optimizers: list[Optimizer] = [Muon(matrices, lr=rate), AdamW(others, lr=rate)]

    def learn(self, number: int) -> float:
        """One optimizer step on batch ``number``; returns its mean loss (nats per solution token)."""
        size = min(self._settings.batch_size, len(self._examples))
        batch = sorted(rng(self._seed, "warm-up batch", number).sample(self._examples, size), key=len)
        num_tokens = sum(len(example.completion_ids) for example in batch)
        self._policy.train()
        total = 0.0
        for start in range(0, size, MICRO_BATCH):
            ids, labels = collate(batch[start : start + MICRO_BATCH], self._policy.config.pad_token_id)
            loss = self._policy(input_ids=ids, labels=labels, use_cache=False, num_items_in_batch=num_tokens).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), MAX_GRAD_NORM)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * min(1.0, (number + 1) / RAMP_BATCHES)
            optimizer.step()
            optimizer.zero_grad()
        return total

    def state(self) -> list[dict[str, Any]]:
        """A copy of the weights and optimizer states."""
        of_optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return copy.deepcopy([self._policy.state_dict(), *of_optimizers])

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Restore ``state``. It is copied, since optimizers would update the loaded tensors in place."""
        weights, *of_optimizers = copy.deepcopy(state)
        self._policy.load_state_dict(weights)
        for optimizer, moments in zip(self._optimizers, of_optimizers, strict=True):
            optimizer.load_state_dict(moments)


def collate(examples: list[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both [B, T] int64, padded on the right (a causal model needs no mask for that).

    Labels are ``IGNORED`` on prompts and padding: only solutions have a loss.
    """
    ids = torch.full((len(examples), max(map(len, examples))), pad)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt_ids + example.completion_ids)
        labels[row, len(example.prompt_ids) : len(example)] = torch.tensor(example.completion_ids)
    return ids, labels


def pass_rate(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Prompt],
    model: ScratchModel | PretrainedModel,
    grader: GraderName,
    batches: int,
) -> float:
    """Fraction of ``prompts`` solved by one completion each, sampled at temperature 1.

    Args:
        batches: number of training batches so far; part of the sampling seed.
    """
    width = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
        mask[row, width - len(prompt.token_ids) :] = 1
    sampling = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=model.max_completion_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    policy.eval()
    with torch.random.fork_rng(devices=[]):  # generate() draws from torch's global state
        torch.manual_seed(seed_of(model.seed, "warm-up check", batches))
        generate: Any = policy.generate  # of GenerationMixin, which the type PreTrainedModel does not declare
        sampled = generate(ids, attention_mask=mask, generation_config=sampling)
    texts = tokenizer.batch_decode(sampled[:, width:], skip_special_tokens=True)
    with make_grader(grader, workers=1) as judge:
        grades = judge.grade_all(texts, [prompt.answer for prompt in prompts])
    return sum(grade.correct for grade in grades) / len(grades)
