"""Evaluate the checkpoints of one run on all benchmarks of its suite with lm-eval, sequentially in one engine.

``python -m eval.evaluate_checkpoints evaluations/.../settings.json`` writes three files next to the settings file:
scores.parquet (one row per completion: checkpoint, benchmark, problem_id, sample, correct), samples.jsonl (the texts), and,
when all else is done, results.json (avg@k and pass@k). The scores of each finished checkpoint are also kept in state/: an
interrupted evaluation resumes with the next checkpoint, and going back to earlier settings reuses their scores. If the engine
uses tensor parallelism, start the command with torchrun.
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

    from sfpo.rollouts.engine import RolloutEngine
    from sfpo.settings import EvaluationSettings

log = logging.getLogger(__name__)

TASKS = Path(__file__).parent / "tasks"
STATE = "state"
"""Folder with the scores of finished checkpoints, per settings. It is not a declared output of any rule, since Snakemake
deletes those of a failed job."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="settings.json of the evaluation")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads (default: all)")
    parser.add_argument("--identity", help="fail unless the settings have this hash (passed by the workflow)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # vLLM fixes this process's number of threads when it is imported, so the variable must be set before.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from sfpo.preflight import require_fit
    from sfpo.settings import EvaluationSettings, load_settings

    settings = load_settings(EvaluationSettings, arguments.settings, arguments.identity)
    require_fit(settings.sampler.library)
    evaluate(settings, arguments.settings.parent)


def evaluate(settings: EvaluationSettings, folder: Path) -> None:
    """Evaluate each of ``settings.checkpoints`` on all benchmarks and write the three files to ``folder``.

    Raises:
        FileNotFoundError, ValueError: a checkpoint is incomplete or corrupt.
    """
    from sfpo.manifest import file_sha256, read_manifest, write_json
    from sfpo.provenance import hardware, versions
    from sfpo.ranks import init_distributed
    from sfpo.rollouts import make_engine
    from sfpo.settings import settings_hash

    ranks = init_distributed()
    made_by = {"versions": versions(), "hardware": hardware()}  # read at the start: the checkout may change during the job
    manifests = {name: read_manifest(Path(path)) for name, path in settings.checkpoints.items()}
    problems = {path: file_sha256(Path(path)) for path in settings.benchmarks.values()}
    engine: RolloutEngine | None = None
    scored: dict[str, dict[str, Any]] = {}
    for name, path in settings.checkpoints.items():
        done = folder / STATE / settings_hash(settings)[:12] / f"{name}.json"
        inputs = {**problems, f"{path}/manifest.json": file_sha256(Path(path) / "manifest.json")}
        before = _scored_before(done, inputs)
        if ranks.gather(before is not None)[0]:
            log.info("%s: already evaluated, reusing %s", name, done)
            if before is not None:  # on other ranks it may be None; only the first rank writes the results
                scored[name] = before
            continue
        started = time.perf_counter()
        if engine is None:
            engine = make_engine(path, settings.limits, settings.sampler, settings.engine, ranks)
        else:
            engine.load_checkpoint(path)
        seconds = {"start": time.perf_counter() - started}
        of_checkpoint = {"inputs": inputs, "checkpoint": path, "checkpoint_step": manifests[name].get("step")}
        scored[name] = {**of_checkpoint, **_score(settings, engine, seconds)}
        if ranks.first:
            write_json(done, scored[name])
            log.info("%s: average %.1f%%", name, 100 * scored[name]["average"])
    if ranks.first:
        _write(settings, folder, scored, made_by)


def _scored_before(file: Path, inputs: dict[str, str]) -> dict[str, Any] | None:
    """The scores that an earlier process computed from the same inputs (path -> sha256); None if there are none."""
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found if found["inputs"] == inputs else None


def _score(settings: EvaluationSettings, engine: RolloutEngine, seconds: dict[str, float]) -> dict[str, Any]:
    """Evaluate the engine's current checkpoint on all benchmarks; empty on ranks other than the first, where lm-eval returns
    nothing."""
    from lm_eval import simple_evaluate

    from eval.engine_lm import EngineLM

    started = time.perf_counter()
    model = EngineLM(engine, settings.evaluate.seed)
    manager, tasks = make_tasks(settings)
    outcome = simple_evaluate(
        model=model,
        tasks=tasks,
        task_manager=manager,  # without it, lm-eval parses all its built-in tasks, which takes seconds
        limit=settings.evaluate.limit,
        apply_chat_template=False,  # EngineLM applies it
        bootstrap_iters=0,
        log_samples=True,
    )
    if outcome is None:
        return {}
    texts, benchmarks = [], {}
    for name in settings.benchmarks:
        samples = sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"])
        texts += [
            {"benchmark": name, **_shown(sample["doc"]), "responses": sample["resps"][0], "correct": sample["correct"]}
            for sample in samples
        ]
        mean = {
            metric: sum(sample[metric] for sample in samples) / len(samples)
            for metric in ("avg_at_k", "pass_at_k", "timed_out")
        }
        benchmarks[name] = {**mean, "problems": len(samples), "samples": settings.evaluate.samples_for(name)}
    return {
        "texts": texts,
        "benchmarks": benchmarks,
        "average": sum(benchmark["avg_at_k"] for benchmark in benchmarks.values()) / len(benchmarks),
        "prompts_too_long": model.prompts_too_long,
        "prompts_sha256": model.prompts_sha256,
        "seconds": {**seconds, "evaluate": time.perf_counter() - started},
    }


def _shown(doc: dict[str, Any]) -> dict[str, Any]:
    """The fields of a problem that go into samples.jsonl. Unit tests are left out: they can be megabytes, and problems.parquet
    has them."""
    return {key: value for key, value in doc.items() if not (key == "answer" and doc["grader"] == "code")}


def make_tasks(settings: EvaluationSettings) -> tuple[TaskManager, list[Task]]:
    """The lm-eval tasks of the benchmarks; the suite's number of samples and sampling parameters override the task files'."""
    from lm_eval.tasks import TaskManager

    metadata = {"problems": settings.benchmarks, "graders": settings.graders}
    metadata |= {"instruction": settings.instruction, "instructions": settings.instructions}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    tasks = manager.load(list(settings.benchmarks))["tasks"]
    for name, task in tasks.items():
        task.set_config("repeats", settings.evaluate.samples_for(name))
        task.set_config("generation_kwargs", settings.evaluate.sampling.model_dump(), update=True)
    return manager, list(tasks.values())


def _write(
    settings: EvaluationSettings, folder: Path, scored: dict[str, dict[str, Any]], made_by: dict[str, dict[str, Any]]
) -> None:
    import pandas as pd

    from sfpo.manifest import write_json, write_text
    from sfpo.settings import settings_hash

    texts = [{"checkpoint": name, **text} for name, one in scored.items() for text in one["texts"]]
    rows = [
        (text["checkpoint"], text["benchmark"], text["id"], sample, verdict)
        for text in texts
        for sample, verdict in enumerate(text["correct"])
    ]
    scores = pd.DataFrame(rows, columns=["checkpoint", "benchmark", "problem_id", "sample", "correct"])
    scores.to_parquet(folder / "scores.parquet", index=False)
    write_text(folder / "samples.jsonl", "".join(json.dumps(text) + "\n" for text in texts))
    results = {
        "settings_hash": settings_hash(settings),
        "inputs": {path: digest for one in scored.values() for path, digest in one["inputs"].items()},
        "checkpoints": {
            name: {key: value for key, value in one.items() if key not in ("inputs", "texts")} for name, one in scored.items()
        },
        **made_by,
    }
    write_json(folder / "results.json", results)


if __name__ == "__main__":
    main()
