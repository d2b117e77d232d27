"""The results of all benchmarks together: summary.json, summary.md, and the table and figure of docs/performance.md."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from eval.report.style import BASE_COLOR, COLORS, WIDTH, context
from sfpo.manifest import write_json, write_text

BEGIN, END = "<!-- figures: begin (python -m benchmarks.run writes them) -->", "<!-- figures: end -->"
MEETS = {"at least": operator.ge, "at most": operator.le}


class Headline(NamedTuple):
    """A ratio of the summary."""

    title: str
    bound: str | None = None
    """A key of MEETS; None: no target."""
    target: float = 0.0


SPEEDUPS = {
    "grpo_step_speedup_vs_trl": Headline("GRPO step, SmolLM2-135M: TRL's time / ours", "at least", 3.0),
    "grpo_step_speedup_vs_trl_tiny": Headline("GRPO step, tiny model: TRL's time / ours"),
    "update_speedup_vs_trl_ragged": Headline("Update, ragged completions: TRL's time / ours", "at least", 2.0),
    "update_speedup_vs_trl_equal": Headline("Update, equal completions: TRL's time / ours"),
    "logprob_speed_over_naive": Headline("Log-probs at 152,000 tokens: naive time / ours", "at least", 1.0),
    "two_ranks_over_one_at_4096_tokens": Headline("Update at 4,096 tokens a pass: two ranks / one", "at least", 1.7),
    "two_ranks_over_one_at_1024_tokens": Headline("Update at 1,024 tokens a pass: two ranks / one"),
    "evaluation_speedup_vs_hf": Headline("Evaluation, tiny model: lm-eval's hf time / ours"),
}
COSTS = {
    "sfpo_step_over_ideal": Headline("SFPO step over GRPO step, over its ideal (SmolLM2)", "at most", 1.05),
    "sfpo_step_over_ideal_tiny": Headline("The same on the tiny model", "at most", 1.05),
    "reposition_share_of_step": Headline("Snapshot and reposition, share of an SFPO step"),
    "sfpo_extra_weight_copies": Headline("Memory of an SFPO step over GRPO's, in copies of the weights", "at most", 1.05),
    "save_over_plain_write": Headline("Saving a run's state: time over a plain write of as many bytes", "at most", 1.2),
    "save_wait_over_plain_write": Headline("... and what training waits for where a thread writes (GPUs)"),
    "planner_error": Headline("Planned memory of an update: its largest error, three model sizes", "at most", 0.15),
    "logprob_peak_over_naive": Headline("Log-probs at 152,000 tokens: our peak / naive peak", "at most", 0.125),
    "update_cost_slope_tokens": Headline("Update: slope of log time over log tokens", "at most", 1.1),
    "update_cost_slope_group_size": Headline("... over log group size", "at most", 1.1),
    "update_cost_slope_model_size": Headline("... over log parameters", "at most", 1.1),
    "sfpo_step_cost_slope_updates": Headline("SFPO step, tiny model: slope over its K + 1 updates", "at most", 1.1),
    "weight_sync_over_copy": Headline("Weight sync into vLLM / plain copy of the weights"),
}
HEADLINES = {**SPEEDUPS, **COSTS}


def summarize(folder: Path, benchmarks: Iterable[str], page: Path | None) -> None:
    """Write the summary of the results in ``folder``.

    Args:
        page: the text between its two markers is replaced by the table, and figures/performance.png next to it is drawn; None:
            neither.
    """
    results = {name: json.loads(path.read_text()) for name in benchmarks if (path := folder / f"{name}.json").is_file()}
    summary = collect(results)
    write_json(folder / "summary.json", summary)
    table = as_markdown(summary)
    write_text(folder / "summary.md", table)
    if page:
        draw(summary, page.parent / "figures/performance.png")
        head, rest = page.read_text().split(BEGIN)
        write_text(page, f"{head}{BEGIN}\n\n{table}\n{END}{rest.split(END)[1]}")


def collect(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Headline -> its median; "spread": every figure with its range; "chosen": the configuration that was selected for each
    side."""
    figures = {key: value for result in results.values() for key, value in result["figures"].items()}
    sides = {f"{name}/{side}": one for name, result in results.items() for side, one in result["sides"].items()}
    return {
        **{key: figures[key]["median"] for key in HEADLINES if key in figures},
        "spread": figures,
        "chosen": {name: side["chosen"] for name, side in sides.items()},
        "other_load": max((turn["other_load"] for side in sides.values() for turn in side["turns"]), default=0.0),
        "minutes": sum(result["minutes"] for result in results.values()),
        "machine": _all_of(result["machine"] for result in results.values()),
        "versions": _all_of(result["versions"] for result in results.values()),
    }


def _all_of(facts: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Versions or hardware of the results as text; if they differ between results (after ``--only``), all values are listed."""
    values: dict[str, dict[str, None]] = {}
    for one in facts:
        for key, value in one.items():
            values.setdefault(key, {})[", ".join(value) if isinstance(value, list) else str(value)] = None
    return {key: " and ".join(said) for key, said in values.items()}


def as_markdown(summary: dict[str, Any]) -> str:
    """The table of headlines, the settings of the sides, and the machine."""
    lines = ["| | median | range | target |", "|:--|--:|:--|:--|"]
    for key, headline in HEADLINES.items():
        if key not in summary:
            continue
        one, target = summary["spread"][key], ""
        if headline.bound:
            met = "met" if MEETS[headline.bound](one["median"], headline.target) else "missed"
            target = f"{headline.bound} {headline.target:g}: {met}"
        lines.append(f"| {headline.title} | {one['median']:.3g} | {one['min']:.3g} to {one['max']:.3g} | {target} |")
    lines += ["", "| also measured | median | range |", "|:--|--:|:--|"]
    for key, one in summary["spread"].items():
        if key not in HEADLINES:
            lines.append(f"| {key.replace('_', ' ')} | {one['median']:.4g} | {one['min']:.4g} to {one['max']:.4g} |")
    lines += ["", "| implementation | selected configuration |", "|:--|:--|"]
    for side, chosen in summary["chosen"].items():
        lines.append(f"| {side} | {', '.join(f'{key} {value}' for key, value in chosen.items() if key != 'work')} |")
    machine, packages = summary["machine"], summary["versions"]
    devices = f"{machine['cpu']}, {machine['cores']} cores" + (f", {machine['gpus']}" if machine["gpus"] else "")
    repetitions = max(one["repetitions"] for one in summary["spread"].values())  # planned memory has one turn
    return "\n".join(
        [
            *lines,
            "",
            f"{devices}; {', '.join(f'{name} {version}' for name, version in packages.items())}. Medians and ranges of "
            f"{repetitions} interleaved repetitions, {summary['minutes']:.0f} minutes in all; others used at most "
            f"{summary['other_load']:.0%} of the machine before a turn.",
            "",
        ]
    )


def draw(summary: dict[str, Any], path: Path) -> None:
    """Bars of the ratios to peers, with the range of the repetitions and the target of each."""
    rows = [(headline.title, headline, summary["spread"][key]) for key, headline in SPEEDUPS.items() if key in summary]
    if not rows:
        return
    table = pd.DataFrame([(title, one["median"]) for title, _, one in rows], columns=["title", "ratio"])
    with context():
        figure, axes = plt.subplots(figsize=(WIDTH, 0.4 + 0.3 * len(rows)), layout="constrained")
        sns.barplot(table, x="ratio", y="title", color=COLORS[0], ax=axes)
        for place, (_, headline, one) in enumerate(rows):
            axes.plot([one["min"], one["max"]], [place, place], color="black", linewidth=1.0)
            if headline.bound:
                axes.plot([headline.target] * 2, [place - 0.4, place + 0.4], color=COLORS[1], linestyle="--")
        axes.axvline(1.0, color=BASE_COLOR, linewidth=0.8)
        axes.set(xlabel="times as fast as the peer (line: range; dashed: target)", ylabel="")
        figure.savefig(path)
        plt.close(figure)
