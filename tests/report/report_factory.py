"""A results tree as finished jobs leave it, made of random numbers with a known shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from eval.report.kinds import find_kind
from sfpo.config import load_params
from sfpo.jobs import resolve
from sfpo.manifest import write_text
from sfpo.seeding import seed_of
from sfpo.settings import ReportSettings, RunId, RunSettings, settings_hash, to_json

TITLES = {
    "grpo": "GRPO",
    "sfpo": "SFPO",
    "grpo_k": "GRPO-K",
    "lookahead": "Lookahead",
    "extragradient": "Extragradient",
    "gxpo": "GXPO",
    "grpo_scaled": "GRPO (rate x 3.4)",
    "sfpo_no_reposition": "SFPO without stage II",
    "sfpo_no_correction": "SFPO without stage III",
    "sfpo_no_trigger": "SFPO without trigger",
    "sfpo_decay": "SFPO (linear decay)",
    "sfpo_kl": "SFPO (KL for stage II)",
    "dapo": "DAPO",
    "sfpo_dapo": "SFPO on DAPO",
    "dr_grpo": "Dr.GRPO",
    "gspo": "GSPO",
}
BENCHMARKS = {"sums": "Sums", "differences": "Differences", "new_chains": "New chains"}
NAMES = {
    "scores": "table1",
    "curves": "figure2",
    "dynamics": "figure3",
    "costs": "figure4",
    "memory": "figure8",
    "arms": "arms",
    "targets": "targets",
    "selection": "selection",
}
"""What is shown -> the item of that kind."""
EVALUATION = "identity of an evaluation"
STEPS, EVERY, FIRED = 60, 5, 33
CHECKPOINTS = {"best": 0.0, "step_20": -0.3, "step_40": -0.1, "last": 0.0}
"""Checkpoint of a run -> its skill, less that of the best."""
WINDOW = 30
"""Of the entropy trigger, which the arms in odd places have."""
RUN_SETTINGS = [
    one
    for one in resolve(load_params(Path(__file__).parents[2] / "params.yaml", "arms")).values()
    if isinstance(one, RunSettings)
]


def report_settings(
    models: tuple[str, ...] = ("tiny-qwen2",),
    arms: tuple[str, ...] = ("grpo", "sfpo"),
    seeds: tuple[int, ...] = (0, 1, 2),
    shows: str = "scores",
) -> ReportSettings:
    settings = ReportSettings(
        suite="tiny",
        item=NAMES[shows],
        shows=shows,
        scored=find_kind(shows).scored,
        title=None,
        models=list(models),
        datasets=["arithmetic"],
        arms={arm: TITLES[arm] for arm in arms},
        seeds=list(seeds),
        benchmarks=BENCHMARKS,
        out_of_distribution=["new_chains"],
        samples=dict.fromkeys(BENCHMARKS, 4),
        checkpoint="best",
        base={model: f"evaluations/tiny/{model}/base" for model in models},
    )
    return settings.model_copy(update={"made_from": made_from(settings)})


def run_settings(run: RunId) -> RunSettings:
    return next(one for one in RUN_SETTINGS if one.run.arm == run.arm).model_copy(update={"run": run})


def made_from(settings: ReportSettings) -> dict[str, str]:
    """Identities of the runs, and of the evaluations of an item that shows scores."""
    of_runs = {f"runs/{run.path}": settings_hash(run_settings(run)) for run in settings.runs}
    scored = [*settings.base.values(), *(f"evaluations/{run.path}" for run in settings.runs)] if settings.scored else []
    return {**of_runs, **dict.fromkeys(scored, EVALUATION)}


def _scores(generator: np.random.Generator, difficulty: dict[str, np.ndarray], skill: float) -> pd.DataFrame:
    rows = []
    for benchmark, levels in difficulty.items():
        chance = 1 / (1 + np.exp(levels - skill))
        for problem, p in enumerate(chance):
            rows += [(benchmark, f"{benchmark}/{problem:03d}", k, bool(generator.random() < p)) for k in range(4)]
    return pd.DataFrame(rows, columns=["benchmark", "problem_id", "sample", "correct"])


def _curve(steps: np.ndarray, speed: float) -> np.ndarray:
    return 0.45 + 0.25 * (1 - np.exp(-steps * speed / 25))


def _write_run(folder: Path, run: RunId, place: int, generator: np.random.Generator) -> None:
    speed, updates = 1 + 0.25 * place, 1 + 3 * (place > 0)
    steps = np.arange(1, STEPS + 1)
    metrics = [
        {
            "step": int(step),
            "reward": float(_curve(step, speed) - 0.05 + generator.normal(0, 0.03)),
            "response_length": float(14 + 4 * np.exp(-step * speed / 20) + generator.normal(0, 0.3)),
            "entropy": float(0.6 * np.exp(-step * speed / 40) + generator.normal(0, 0.01)),
            "entropy_zscore": float(generator.normal()) if place % 2 and step >= WINDOW else None,
            "updates": [{"loss": 0.1, "ratio_mean": 1.0}] * updates,
            "rollouts": int(step) * 256,
            "backward_passes": int(step) * updates,
            "peak_memory_mb": 1000.0 + 20.0 * (place > 0) + int(step) / 10,
            "seconds": {"generate": float(step), "update": 0.3 * updates * step, "total": float(step) * (1 + 0.3 * updates)},
        }
        for step in steps
    ]
    validation = [
        {
            "step": int(step),
            "accuracy": float(_curve(step, speed) + generator.normal(0, 0.012)),
            "pass_at_k": float(min(1.0, _curve(step, speed) + 0.15)),
            "rollouts": int(step) * 256,
            "backward_passes": int(step) * updates,
            "seconds": float(step) * (1 + 0.3 * updates),
        }
        for step in range(0, STEPS + 1, EVERY)
    ]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics))
    write_text(folder / "validation.jsonl", "".join(json.dumps(line) + "\n" for line in validation))
    fired = FIRED + int(generator.integers(-4, 12)) if place % 2 else None
    settings = run_settings(run)
    write_text(folder / "settings.json", to_json(settings))
    summary = {
        "settings_hash": settings_hash(settings),
        "trigger_fired_at": fired,
        "best_step": 55,
        "steps": STEPS,
        "engine_restarts": 0,
        "seconds": {"update": 40.0, "validate": 9.0, "total": 71.25},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "commit": "abc1234"},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "threads": 1, "gpus": []},
        **settings.model_dump(mode="json", include={"recipe", "execution"}),
    }
    write_text(folder / "summary.json", json.dumps(summary))


def _write_parquet(folder: Path, checkpoints: dict[str, pd.DataFrame]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frames = [pd.DataFrame({"checkpoint": name}, index=frame.index).join(frame) for name, frame in checkpoints.items()]
    pd.concat(frames, ignore_index=True).to_parquet(folder / "scores.parquet")
    took = {name: {"seconds": {"start": 5.0, "evaluate": 36.0}} for name in checkpoints}
    write_text(folder / "results.json", json.dumps({"settings_hash": EVALUATION, "inputs": {}, "checkpoints": took}))


def write_results(root: Path, settings: ReportSettings, problems: int = 40) -> None:
    """runs/, evaluations/ and the settings of an item of every kind below ``root``."""
    for model in settings.models:
        generator = np.random.default_rng(seed_of("test", "problems", model))
        difficulty = {benchmark: generator.normal(0, 1.5, problems) for benchmark in settings.benchmarks}
        _write_parquet(root / f"evaluations/{settings.suite}/{model}/base", {"base": _scores(generator, difficulty, 0.0)})
        for run in (run for run in settings.runs if run.model == model):
            generator = np.random.default_rng(seed_of("test", run.path))
            place = list(settings.arms).index(run.arm)
            _write_run(root / "runs" / run.path, run, place, generator)
            skill = 0.8 + 0.1 * place + generator.normal(0, 0.05)
            scored = {name: _scores(generator, difficulty, skill + gain) for name, gain in CHECKPOINTS.items()}
            _write_parquet(root / "evaluations" / run.path, scored)
    for shows, name in NAMES.items():
        item = settings.model_copy(update={"item": name, "shows": shows, "scored": find_kind(shows).scored})
        item = item.model_copy(update={"made_from": made_from(item)})
        write_text(root / f"results/{settings.suite}/items/{name}/settings.json", to_json(item))
