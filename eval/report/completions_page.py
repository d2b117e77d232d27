"""The page of completions: browse sampled completions by run, step and prompt; two runs side by side on the same prompt.

It is a single offline file that makes no requests. Model outputs are untrusted: they are embedded as JSON and displayed as
plain text, never as HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eval.report.collect import read
from sfpo.rewards.boxes import find_boxes
from sfpo.settings import ReportSettings, RunId

TEMPLATE = Path(__file__).with_name("completions.html")
MAX_COMPLETIONS = 20_000
"""Limit for training and validation completions; beyond it, only every n-th step is shown."""
EVALUATION_PROBLEMS = 20
"""Number of problems shown per benchmark and checkpoint (the first ones)."""
KINDS = {"completions.jsonl": "training", "validation_completions.jsonl": "validation"}


def completions_page(items: Iterable[ReportSettings], root: Path = Path(".")) -> str:
    """The page as self-contained HTML.

    Args:
        items: their runs are shown, each once, with evaluation samples if there are any.
        root: folder that contains runs/ and evaluations/.

    Raises:
        ReportError: a file is corrupt; the message names it.
    """
    items = list(items)
    runs = list(dict.fromkeys(run for item in items for run in item.runs))
    titles = {arm: title for item in items for arm, title in item.arms.items()}
    groups = [group for place, run in enumerate(runs) for group in _of_training(place, run, root)]
    left_out, groups = _thinned(groups)
    groups += [group for place, run in enumerate(runs) for group in _of_evaluation(place, f"evaluations/{run.path}", root)]
    shown = [{"job": f"{run.model}, {run.dataset}", "name": f"{titles.get(run.arm, run.arm)}, seed {run.seed}"} for run in runs]
    for folder in dict.fromkeys(folder for item in items for folder in item.base.values()):
        model = Path(folder).parent.name
        for job in dict.fromkeys(one["job"] for one in shown if one["job"].startswith(f"{model}, ")):
            groups += _of_evaluation(len(shown), folder, root)
            shown.append({"job": job, "name": "before training"})
    notes = f"{left_out} completions are not shown, to limit the size of the page: only every n-th step is." if left_out else ""
    data = {"title": f"Completions of suite {items[0].suite}", "notes": notes, "runs": shown, "groups": groups}
    return TEMPLATE.read_text().replace("@DATA@", as_script_data(data))


def as_script_data(value: Any) -> str:
    """JSON with <, > and & escaped, so that no text can close the script element that contains it.

    >>> as_script_data("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _of_training(place: int, run: RunId, root: Path) -> Iterator[list[Any]]:
    for file, kind in KINDS.items():
        path = root / "runs" / run.path / file
        if not path.is_file():
            continue
        for line in _lines(path):
            completions = [
                [one["text"], one["reward"], one["correct"], one["advantage"], one["tokens"], one["truncated"], None]
                for one in line["completions"]
            ]
            yield [place, kind, line["step"], line["prompt"], line["problem"], line["answer"], completions]


def _lines(path: Path) -> list[dict[str, Any]]:
    return read(path, lambda: [json.loads(line) for line in path.read_text().splitlines()])


def _of_evaluation(place: int, folder: str, root: Path) -> Iterator[list[Any]]:
    path = root / folder / "samples.jsonl"
    if not path.is_file():
        return
    seen: dict[tuple[str, str], int] = {}
    for line in _lines(path):
        key = (line["checkpoint"], line["benchmark"])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > EVALUATION_PROBLEMS:
            continue
        math = line.get("grader", "math") == "math"
        completions = [
            [text, None, correct, None, None, False, _extracted(text) if math else None]
            for text, correct in zip(line["responses"], line["correct"], strict=True)
        ]
        answer = line.get("answer", ["passes its unit tests"])
        prompt = f"{line['benchmark']} {line['id']}"
        yield [place, "evaluation", line["checkpoint"], prompt, line["problem"], list(answer), completions]


def _extracted(text: str) -> str:
    boxes = find_boxes(text)
    return " or ".join(boxes.answers) if boxes else "no box"


def _thinned(groups: list[list[Any]]) -> tuple[int, list[list[Any]]]:
    """(number of completions left out, remaining groups): every n-th step of each kind is kept."""
    count = sum(len(group[-1]) for group in groups)
    every = -(-count // MAX_COMPLETIONS)
    if every <= 1:
        return 0, groups
    steps = {kind: sorted({group[2] for group in groups if group[1] == kind}) for kind in KINDS.values()}
    kept = {(kind, step) for kind, all_steps in steps.items() for step in all_steps[::every]}
    rest = [group for group in groups if (group[1], group[2]) in kept]
    return count - sum(len(group[-1]) for group in rest), rest
