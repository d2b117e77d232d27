"""Filter a training set by the starting policy's pass rate: ``python -m sfpo.difficulty SETTINGS.json``.

A group of completions that are all correct or all wrong has no advantages and so no gradient. Data sets for RL are therefore
filtered by the pass rate of the model to train (Skywork-OR1, arXiv 2505.22312, section 3).

Written to the folder of the settings file, the report last:
    train.parquet        the rows that are kept
    validation.parquet   the validation set, unchanged
    report.json          number of rows by number of correct completions; mean pass rate; excluded rows
    state/<key>/         the number of correct completions of each row scored so far: a killed job resumes from it
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpo.manifest import content_sha256, write_json
from sfpo.schema import ConfigError
from sfpo.seeding import seed_of
from sfpo.settings import FilterSettings, load_settings, settings_hash

if TYPE_CHECKING:
    from sfpo.ranks import Ranks
    from sfpo.rollouts.engine import RolloutEngine
    from sfpo.types import Prompt

log = logging.getLogger(__name__)

COMPLETIONS_PER_WRITE = 1024
"""Completions between two writes of the state."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="settings.json of the filter; output goes to its folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads (default: all)")
    parser.add_argument("--identity", help="fail unless the settings have this hash (the workflow passes it)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # vLLM reads it on import
    settings = load_settings(FilterSettings, arguments.settings, arguments.identity)

    from sfpo.preflight import require_fit
    from sfpo.ranks import init_distributed

    require_fit(settings.sampler.library)
    filter_rows(settings, arguments.settings.parent, init_distributed())


def filter_rows(settings: FilterSettings, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Score the training rows, write those to keep to ``folder``, and return the report.

    Args:
        ranks: the processes that hold the engine together.

    Raises:
        ConfigError: no row is kept.
    """
    from sfpo.data.prompts import load_problems
    from sfpo.data.rows import write_rows

    difficulty, data = settings.difficulty, Path(settings.data_path)
    inputs = {str(path): content_sha256(path) for path in (data / "train.parquet", Path(settings.model_path) / "manifest.json")}
    rows = load_problems(data / "train.parquet")
    in_drawn_order = sorted((row.id for row in rows), key=lambda row_id: seed_of(difficulty.seed, "difficulty", row_id))
    state = folder / "state" / settings_hash(settings)[:12] / "correct.jsonl"
    correct = ranks.gather(_read_state(state, inputs) if ranks.first else None)[0] or {}
    left = [row_id for row_id in in_drawn_order[: difficulty.rows] if row_id not in correct]
    if left:
        for row_id, count in _score(settings, left, ranks):
            correct[row_id] = count
            if ranks.first:
                _append(state, {"id": row_id, "correct": count})

    low, high = difficulty.kept
    kept = [row for row in rows if (count := correct.get(row.id)) is not None and low <= count <= high]
    by_correct = Counter(count for count in correct.values() if count is not None)
    histogram = {str(count): by_correct[count] for count in range(difficulty.samples + 1)}
    shown = ", ".join(f"{count}: {number}" for count, number in histogram.items())
    if not kept:
        raise ConfigError(
            f"{data}: no row has {low} to {high} correct completions of {difficulty.samples} (rows by number of correct "
            f"completions: {shown}); change the suite's difficulty, model or data set"
        )
    scored = by_correct.total()
    report = {
        "settings_hash": settings_hash(settings),
        "inputs": inputs,
        "kept": len(kept),
        "scored": scored,
        "not_scored": len(rows) - len(correct),
        "rows_by_correct_completions": histogram,
        "pass_rate": sum(count * number for count, number in by_correct.items()) / (scored * difficulty.samples),
        "prompts_too_long": sorted(row_id for row_id, count in correct.items() if count is None),
    }
    if ranks.first:
        write_rows(folder / "train.parquet", kept)
        shutil.copyfile(data / "validation.parquet", folder / "validation.parquet")
        write_json(folder / "report.json", report)
        log.info("kept %d of %d rows; rows by number of correct completions: %s", len(kept), scored, shown)
    return report


def _score(settings: FilterSettings, row_ids: list[str], ranks: Ranks) -> Iterator[tuple[str, int | None]]:
    """Id and number of correct completions of each row; None: its prompt is too long."""
    from sfpo.data.prompts import load_prompts
    from sfpo.ranks import cores
    from sfpo.rewards.graders import make_grader
    from sfpo.rollouts import make_engine

    engine = make_engine(settings.model_path, settings.limits, settings.sampler, settings.engine, ranks)
    prompts, too_long = load_prompts(
        Path(settings.data_path) / "train.parquet", engine.tokenizer, settings.instruction, settings.limits.max_prompt_tokens
    )
    for row_id in set(too_long).intersection(row_ids):
        yield row_id, None
    by_id = {prompt.id: prompt for prompt in prompts}
    with make_grader(settings.grader, cores()) as grader:
        for prompt, texts in _completions(settings, engine, [by_id[one] for one in row_ids if one in by_id], ranks):
            yield prompt.id, sum(grade.correct for grade in grader.grade_all(texts, [prompt.answer] * len(texts)))


def _completions(
    settings: FilterSettings, engine: RolloutEngine, prompts: list[Prompt], ranks: Ranks
) -> Iterator[tuple[Prompt, list[str]]]:
    """Each prompt with the texts of its completions."""
    from tqdm import tqdm

    from sfpo.rollouts.engine import Request

    difficulty = settings.difficulty
    prompts_at_once = max(1, COMPLETIONS_PER_WRITE // difficulty.samples)
    with tqdm(total=len(prompts), desc="pass rates", unit="prompt", disable=not ranks.first) as bar:
        for start in range(0, len(prompts), prompts_at_once):
            batch = prompts[start : start + prompts_at_once]
            requests = [
                Request(prompt.token_ids, seed_of(difficulty.seed, "difficulty", prompt.id, sample))
                for prompt in batch
                for sample in range(difficulty.samples)
            ]
            texts = [completion.text for completion in engine.generate(requests, difficulty.sampling)]
            for place, prompt in enumerate(batch):
                yield prompt, texts[place * difficulty.samples : (place + 1) * difficulty.samples]
                bar.update()


def _read_state(path: Path, inputs: dict[str, str]) -> dict[str, int | None]:
    """Row id -> number of correct completions (None: the prompt is too long), as far as an earlier process has scored the same
    inputs; a line that was cut off is dropped. Starts the file otherwise."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    lines = lines if lines and json.loads(lines[0]) == inputs else [json.dumps(inputs).encode()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return {record["id"]: record["correct"] for record in map(json.loads, lines[1:])}


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
