"""Evaluation with the rollout engine compared with lm-eval's ``hf`` model, on one benchmark of the tiny suite.

Both run the same lm-eval task, with four samples per question and the same sampling, token limit and grader.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Result, paired_ratio, result, spread
from benchmarks.sides import Candidate, Options, Turns, take_turns
from benchmarks.workload import TASK, THREADS, TINY, Work

if TYPE_CHECKING:
    from lm_eval.api.model import LM

QUESTIONS = 50
HF_BATCH_SIZES = (64, QUESTIONS * 4)


def engine(turns: Turns, work: Work) -> None:
    """A turn: one evaluation through vLLM."""
    from eval.engine_lm import EngineLM
    from sfpo.rollouts import make_engine

    suite = work.of_suite
    model = EngineLM(make_engine(work.checkpoint, work.limits, suite.sampler, suite.execution.engine), seed=0)
    _evaluate(turns, work, model, templated=True)


def hf(turns: Turns, work: Work, batch_size: int) -> None:
    """A turn: one evaluation through transformers."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(work.checkpoint, dtype=work.of_suite.sampler.dtype, batch_size=batch_size, device=work.device)
    _evaluate(turns, work, model, templated=False)


def _evaluate(turns: Turns, work: Work, model: LM, templated: bool) -> None:
    """``templated``: the model applies the chat template itself."""
    from lm_eval import simple_evaluate

    from eval.evaluate_checkpoints import make_tasks

    with tempfile.TemporaryDirectory() as folder:
        manager, [task] = make_tasks(work.evaluation_settings(TASK, Path(folder)))
        # EngineLM uses the engine's token limit, which is the same.
        task.set_config("generation_kwargs", {"max_gen_toks": work.limits.max_completion_tokens}, update=True)
        while turns.wait():
            started = time.perf_counter()
            outcome = simple_evaluate(
                model=model,
                tasks=[task],
                task_manager=manager,
                limit=QUESTIONS,
                apply_chat_template=not templated,
                bootstrap_iters=0,
                log_samples=False,
            )
            seconds = time.perf_counter() - started
            turns.report({"seconds": seconds, "avg_at_k": outcome["results"][TASK]["avg_at_k,all"]})


def run(options: Options) -> Result:
    work = Work(*TINY, options.models)
    peers = [Candidate(hf, threads, {"work": work, "batch_size": size}) for threads in THREADS for size in HF_BATCH_SIZES]
    measured = take_turns({"ours": [Candidate(engine, threads, {"work": work}) for threads in THREADS], "hf": peers}, options)
    figures = {"evaluation_speedup_vs_hf": paired_ratio(measured["hf"].values(), measured["ours"].values())}
    for side, one in measured.items():
        figures[f"questions_per_second_{side}"] = spread([QUESTIONS / seconds for seconds in one.values()])
        figures[f"accuracy_{side}"] = spread(one.values("avg_at_k"))
    return result(figures, measured)
