"""Collects rollouts with rewards: samples with the engine, grades, and with dynamic sampling replaces uninformative groups."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from sfpo.config import OverlongPenalty, Sampling
from sfpo.data.sampler import prompt_order
from sfpo.ranks import SINGLE_PROCESS, Ranks
from sfpo.rewards.math_answer import Grade, reward_of
from sfpo.rollouts.engine import Request, RolloutEngine
from sfpo.seeding import rng, seed_of
from sfpo.settings import Recipe
from sfpo.trainer.batching import gather_graded
from sfpo.trainer.metrics import PhaseClock
from sfpo.trainer.packing import balanced_partition
from sfpo.types import Completion, Prompt, RolloutGroup

Seed = tuple[int | str, ...]


@dataclass(frozen=True)
class Rollouts:
    """The groups that a step trains on, and all groups that were sampled for it."""

    groups: list[RolloutGroup]
    drawn: list[RolloutGroup]
    """All groups sampled in the step; with dynamic sampling these can be more than ``groups``."""


class Judge(Protocol):
    """Interface of a grader (sfpo.rewards.graders has the implementations)."""

    def grade_all(self, responses: Sequence[str], golds: Sequence[tuple[str, ...]]) -> list[Grade]:
        """One grade per response, in order."""


class Grading:
    """Grades completions in a thread while others are still being sampled, in batches of those that are waiting.

    Args:
        golds: the gold answers of all completions that will be added, by index.
    """

    def __init__(self, grader: Judge, golds: Sequence[tuple[str, ...]]) -> None:
        self._grader, self._golds = grader, golds
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[int, str]] = deque()
        self._calls: list[Future[None]] = []
        self._grades: dict[int, Grade] = {}

    def add(self, place: int, completion: Completion) -> None:
        """Submit the completion with index ``place``."""
        self._waiting.append((place, completion.text))
        self._calls.append(self._thread.submit(self._grade_waiting))

    def grades(self) -> list[Grade]:
        """Wait for all grades, and return them in the order of the golds. Raises the grader's errors."""
        for call in self._calls:
            call.result()
        self._thread.shutdown()
        return [self._grades[place] for place in range(len(self._golds))]

    def _grade_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if batch:  # empty if an earlier call took them
            places, texts = zip(*batch, strict=True)
            self._grades |= zip(places, self._grader.grade_all(texts, [self._golds[place] for place in places]), strict=True)


class Collector:
    """Samples and grades completions of prompts. All ranks receive all groups, regardless of which engine sampled them.

    Args:
        tensor_parallel: number of ranks that share one engine.
        clock: records the phases "generate" and "grade" (only the part of grading that does not overlap with generation).
        ranks: the processes that share the work; all of them must make the same calls.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        grader: Judge,
        recipe: Recipe,
        tensor_parallel: int,
        clock: PhaseClock,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.engine, self.grader, self.recipe, self.clock, self.ranks = engine, grader, recipe, clock, ranks
        self.tensor_parallel = tensor_parallel
        self.timed_out = 0
        """Number of answers so far that exceeded a limit of the grader, and count as wrong."""

    def training_groups(self, prompts: list[Prompt], step: int) -> Rollouts:
        """Sample the ``prompts_per_step`` groups of outer step ``step`` (1-based).

        With ``dynamic_sampling`` (DAPO), groups without reward variance are replaced by groups of prompts not yet used in the
        step, at most ``max_refills`` times; every sampled completion counts as a rollout.
        """
        train, seed = self.recipe.train, self.recipe.seed
        order = prompt_order(len(prompts), train.prompts_per_step, step - 1, seed)
        groups = self._sample_step(prompts, order, step)
        drawn, met = list(groups), set(order)
        dynamic = self.recipe.objective.dynamic_sampling
        for _ in range(dynamic.max_refills if dynamic else 0):
            places = [place for place, group in enumerate(groups) if not group.has_variance]
            unmet = [index for index in rng(seed, "refill", step).sample(range(len(prompts)), len(prompts)) if index not in met]
            fresh = self._sample_step(prompts, unmet[: len(places)], step)
            met.update(unmet[: len(places)])
            drawn += fresh
            useful = iter([group for group in fresh if group.has_variance])
            for place in places:
                groups[place] = next(useful, groups[place])
            if not fresh or all(group.has_variance for group in groups):
                break
        return Rollouts(groups, drawn)

    def sample(
        self, prompts: list[Prompt], samples: int, sampling: Sampling, seed: tuple[int | str, ...]
    ) -> list[RolloutGroup]:
        """``samples`` graded completions of each prompt; every completion has its own seed, derived from ``seed``."""
        return self._graded(prompts, *self._complete(prompts, samples, sampling, seed))

    def _sample_step(self, prompts: list[Prompt], order: list[int], step: int) -> list[RolloutGroup]:
        train, seed = self.recipe.train, self.recipe.seed
        chosen = [prompts[index] for index in order]
        with self.clock("generate"):
            sampled = self._complete(chosen, train.completions_per_prompt, train.sampling, (seed, "rollout", step))
        with self.clock("grade"):
            return self._graded(chosen, *sampled)

    def _complete(
        self, prompts: list[Prompt], samples: int, sampling: Sampling, seed: Seed
    ) -> tuple[list[int], list[Completion], Grading]:
        """(indices of the prompts that this rank's engine samples, their completions, their grading in progress).

        All completions of a prompt come from one engine; the work is balanced over engines by the maximum number of tokens.
        """
        of_an_engine = self.tensor_parallel
        most = [len(prompt.token_ids) + samples * self.recipe.limits.max_completion_tokens for prompt in prompts]
        before = _earlier_places(prompts)
        own = balanced_partition(most, self.ranks.size // of_an_engine)[self.ranks.rank // of_an_engine]
        asked = [(prompts[place], sample) for place in own for sample in range(samples)]
        numbers = [before[place] * samples + sample for place in own for sample in range(samples)]
        seeds = [seed_of(*seed, prompt.id, number) for (prompt, _), number in zip(asked, numbers, strict=True)]
        requests = [Request(prompt.token_ids, one) for (prompt, _), one in zip(asked, seeds, strict=True)]
        grading = Grading(self.grader, [prompt.answer for prompt, _ in asked])
        grades_here = self.ranks.rank % of_an_engine == 0  # one rank per engine grades
        finished = grading.add if grades_here else None
        completions = self.engine.generate(requests, sampling, finished=finished) if requests else []
        return own if grades_here else [], completions, grading

    def _graded(
        self, prompts: list[Prompt], places: list[int], completions: list[Completion], grading: Grading
    ) -> list[RolloutGroup]:
        """Gather the groups of all ranks, in the order of the prompts."""
        graded = list(zip(completions, grading.grades(), strict=True)) if places else []
        size = len(graded) // max(1, len(places))
        own = {place: graded[start * size : (start + 1) * size] for start, place in enumerate(places)}
        everyones = gather_graded(self.ranks, own)
        self.timed_out += sum(grade.timed_out for group in everyones.values() for _, grade in group)
        return [self._group(prompt, everyones[place]) for place, prompt in enumerate(prompts)]

    def _group(self, prompt: Prompt, graded: list[tuple[Completion, Grade]]) -> RolloutGroup:
        completions, grades = zip(*graded, strict=True)
        rewards = [self._reward(grade, completion) for completion, grade in graded]
        return RolloutGroup(prompt, list(completions), rewards, [grade.correct for grade in grades])

    def _reward(self, grade: Grade, completion: Completion) -> float:
        settings = self.recipe.train.reward
        reward = reward_of(grade, settings.correct, settings.boxed_but_wrong)
        overlong = self.recipe.objective.overlong_penalty
        if overlong is None:
            return reward
        return reward - overlong_penalty(overlong, len(completion.token_ids), self.recipe.limits.max_completion_tokens)


def _earlier_places(prompts: list[Prompt]) -> list[int]:
    """How often each prompt already occurs earlier in the list. If a step needs more prompts than the data set has, a prompt's
    second group continues its sample numbers instead of repeating the first group's seeds."""
    met: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        found.append(met[prompt.id])
        met[prompt.id] += 1
    return found


def overlong_penalty(settings: OverlongPenalty, length: int, max_completion_tokens: int) -> float:
    """DAPO's soft overlong penalty, subtracted from the reward (arXiv 2503.14476, equation 13): 0 until ``buffer_tokens``
    before the limit, then increasing linearly to ``penalty`` at the limit.

    Args:
        length: completion length in tokens.
    """
    over = length - (max_completion_tokens - settings.buffer_tokens)
    return settings.penalty * min(max(over / settings.buffer_tokens, 0.0), 1.0)
