"""Score one checkpoint on all benchmarks of its suite with lm-eval.

``python -m eval.evaluate_checkpoint evaluations/.../settings.json`` writes beside the settings file: scores.parquet
(one row for each
completion: benchmark, problem_id, sample, correct), samples.jsonl (the texts), and results.json (avg@k and pass@k), last.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

    from sfpo.settings import EvaluationSettings

TASKS = Path(__file__).parent / "tasks"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="settings.json of the evaluation")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads (default: all)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # vLLM fixes the threads of this process when it is imported, so the variable comes before the imports.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from sfpo.settings import EvaluationSettings, load_settings

    evaluate(load_settings(EvaluationSettings, arguments.settings), arguments.settings.parent)


def evaluate(settings: EvaluationSettings, folder: Path) -> None:
    """Run the benchmarks on ``settings.checkpoint`` and write the three files to ``folder``.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is unfinished or damaged.
    """
    from lm_eval import simple_evaluate

    from eval.engine_lm import EngineLM
    from sfpo.manifest import read_manifest
    from sfpo.rollouts.engine import RolloutEngine

    manifest = read_manifest(Path(settings.checkpoint))
    started = time.perf_counter()
    engine = RolloutEngine(settings.checkpoint, settings.limits, settings.engine)
    ready = time.perf_counter()
    model = EngineLM(engine, settings.evaluate.seed)
    manager, tasks = make_tasks(settings)
    outcome = simple_evaluate(
        model=model,
        tasks=tasks,
        task_manager=manager,  # without it, lm-eval reads the files of all its own tasks: seconds
        limit=settings.evaluate.limit,
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    seconds = {"start": ready - started, "evaluate": time.perf_counter() - ready}
    _write(settings, folder, outcome, manifest, seconds, model.prompts_too_long)


def make_tasks(settings: EvaluationSettings) -> tuple[TaskManager, list[Task]]:
    """The benchmarks' tasks, with the suite's number of samples and sampling in place of the files'."""
    from lm_eval.tasks import TaskManager

    metadata = {"problems": settings.benchmarks, "graders": settings.graders, "instruction": settings.instruction}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    tasks = manager.load(list(settings.benchmarks))["tasks"]
    for task in tasks.values():
        task.set_config("repeats", settings.evaluate.samples)
        task.set_config("generation_kwargs", settings.evaluate.sampling.model_dump(), update=True)
    return manager, list(tasks.values())


def _write(
    settings: EvaluationSettings,
    folder: Path,
    outcome: dict[str, Any],
    manifest: dict[str, Any],
    seconds: dict[str, float],
    prompts_too_long: dict[str, list[str]],
) -> None:
    import pandas as pd

    from sfpo.manifest import write_json, write_text
    from sfpo.provenance import hardware, versions
    from sfpo.settings import settings_hash

    rows, texts, benchmarks = [], [], {}
    for name in settings.benchmarks:
        samples = sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"])
        for sample in samples:
            problem = sample["doc"]["id"]
            rows += [(name, problem, index, verdict) for index, verdict in enumerate(sample["correct"])]
            texts.append({"benchmark": name, **sample["doc"], "responses": sample["resps"][0], "correct": sample["correct"]})
        mean = {
            metric: sum(sample[metric] for sample in samples) / len(samples)
            for metric in ("avg_at_k", "pass_at_k", "timed_out")
        }
        benchmarks[name] = {**mean, "problems": len(samples), "samples": settings.evaluate.samples}
    folder.mkdir(parents=True, exist_ok=True)
    scores = pd.DataFrame(rows, columns=["benchmark", "problem_id", "sample", "correct"])
    scores.to_parquet(folder / "scores.parquet", index=False)
    write_text(folder / "samples.jsonl", "".join(json.dumps(text) + "\n" for text in texts))
    results = {
        "settings_hash": settings_hash(settings),
        "checkpoint": settings.checkpoint,
        "checkpoint_step": manifest.get("step"),
        "benchmarks": benchmarks,
        "average": sum(benchmark["avg_at_k"] for benchmark in benchmarks.values()) / len(benchmarks),
        "prompts_too_long": prompts_too_long,
        "seconds": seconds,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(folder / "results.json", results)


if __name__ == "__main__":
    main()
