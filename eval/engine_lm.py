"""lm-eval's model interface on the rollout engine, so that evaluation samples with the same engine as training."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from sfpo.config import Sampling
from sfpo.data.prompts import encode_user_turn, prompts_sha256
from sfpo.rollouts.engine import Request, RolloutEngine
from sfpo.seeding import seed_of

log = logging.getLogger(__name__)


class EngineLM(LM):
    """Implements generate_until, the only request type of the benchmarks.

    The context of a request is the text of the user turn (``apply_chat_template=False`` in lm-eval,
    ``sfpo.data.prompts.user_turn`` in the task). The chat template is applied here, by the function that renders training
    prompts.

    The seed of a completion depends only on (seed, task, problem, repeat): repeats differ from each other, and the order and
    batching of requests make no difference.
    """

    def __init__(self, engine: RolloutEngine, seed: int) -> None:
        super().__init__()
        self._engine, self._seed = engine, seed
        self.prompts_too_long: dict[str, list[str]] = {}
        """Task -> ids of the problems whose prompt exceeds max_prompt_tokens. They are not sampled and count as wrong."""
        self.prompts_sha256: dict[str, str] = {}
        """Task -> ``sfpo.data.prompts.prompts_sha256`` of its prompts in the order of their ids."""

    @property
    def tokenizer_name(self) -> str:
        return self._engine.tokenizer.name_or_path.replace("/", "__")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Completion texts in the order of ``requests``; lm-eval lists the same request object k times for k completions.

        A prompt longer than max_prompt_tokens gets an empty text, and its problem is listed in ``prompts_too_long``.
        """
        repeats: Counter[tuple[str, int]] = Counter()
        by_sampling: dict[Sampling, list[tuple[int, Request]]] = defaultdict(list)
        prompts: dict[str, dict[str, list[int]]] = defaultdict(dict)
        for index, instance in enumerate(requests):
            user_turn, settings = instance.args
            problem = (instance.task_name, instance.doc["id"])
            seed = seed_of(self._seed, "evaluate", *problem, repeats[problem])
            repeats[problem] += 1
            prompt_ids = encode_user_turn(self._engine.tokenizer, user_turn)
            prompts[problem[0]][problem[1]] = prompt_ids
            if len(prompt_ids) > self._engine.max_prompt_tokens:
                too_long = self.prompts_too_long.setdefault(problem[0], [])
                too_long += [problem[1]] if problem[1] not in too_long else []
                continue
            sampling = Sampling(temperature=settings["temperature"], top_p=settings["top_p"])
            by_sampling[sampling].append((index, Request(prompt_ids, seed)))
        self.prompts_sha256 |= {task: prompts_sha256(sorted(asked.items())) for task, asked in prompts.items()}
        for task, ids in self.prompts_too_long.items():
            log.warning(
                "%s: %d prompts exceed %d tokens; they are not sampled and count as wrong: %s",
                task,
                len(ids),
                self._engine.max_prompt_tokens,
                ", ".join(ids),
            )
        texts = [""] * len(requests)
        for sampling, numbered in by_sampling.items():
            completions = self._engine.generate([request for _, request in numbered], sampling, progress=not disable_tqdm)
            for (index, _), completion in zip(numbered, completions, strict=True):
                texts[index] = completion.text
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise TypeError("EngineLM supports only generate_until tasks, not loglikelihood requests")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise TypeError("EngineLM supports only generate_until tasks, not loglikelihood requests")
