"""Text summaries of the results: notes below an accuracy table, and the headline printed when a suite is done."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from eval.report.accuracy import ALL_MODELS, SOURCES, gain_pairs
from eval.report.collect import BASE
from eval.report.markup import Cell, Table
from eval.report.notes import ONE_SEED_ABOVE, samples_text
from eval.report.panels import FEW_ARMS
from eval.report.partial import missing_note
from eval.report.statistics.comparisons import is_significant
from eval.report.statistics.scores import AVERAGE
from sfpo.settings import ReportSettings


def by_group(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (title, rows) for each model and data set."""
    for (model, dataset), rows in frame.groupby(["model", "dataset"], sort=False):
        yield f"{model}, trained on {dataset}", rows


def arm_title(arm: str, settings: ReportSettings) -> str:
    """Title of a row: 'Base', an arm's title, or 'A - B' for a gain."""
    titles = {BASE: "Base", **settings.arms}
    pairs = {f"{a}-{b}": f"{titles[a]} - {titles[b]}" for a, b in gain_pairs(settings)}
    return titles[arm] if arm in titles else pairs[arm]


def printed(rows: pd.DataFrame, settings: ReportSettings) -> pd.DataFrame:
    """The rows that are printed; with more than FEW_ARMS arms, gains over the base are only in the csv."""
    return rows if len(settings.arms) <= FEW_ARMS else rows[~rows["arm"].isin([f"{arm}-{BASE}" for arm in settings.arms])]


def verdicts(frame: pd.DataFrame, settings: ReportSettings) -> list[str]:
    """One sentence per average gain over the first arm: its value, and whether it differs significantly from zero.

    With more than FEW_ARMS arms, one sentence per model and data set, which lists the significant gains. With one seed, only
    gains pooled over several models are tested.
    """
    tested = frame[frame["p"].notna()] if "p" in frame else frame.iloc[:0]
    sentences = []
    for group, rows in by_group(tested):
        if len(settings.arms) > FEW_ARMS:
            sentences.append(f"{group}: {_of_many(rows, settings, len(tested))}")
        else:
            sentences += [f"{group}: {_of_one(row, settings, len(tested))}" for _, row in rows.iterrows()]
    return sentences


def _of_many(rows: pd.DataFrame, settings: ReportSettings, comparisons: int) -> str:
    different = rows[rows["p_holm"].map(is_significant)]
    said = [
        f"{word}: {', '.join(arm_title(arm, settings).split(' - ')[0] for arm in of_sign['arm'])}"
        for word, of_sign in (("better", different[different[AVERAGE] > 0]), ("worse", different[different[AVERAGE] < 0]))
        if len(of_sign)
    ]
    first = next(iter(settings.arms.values()))
    return (
        f"of {len(rows)} average gains over {first}, {len(different)} differ from zero (p below 5% after Holm's correction for "
        f"{comparisons} comparisons){'; ' if said else ''}{'; '.join(said)}."
    )


def _of_one(row: pd.Series, settings: ReportSettings, comparisons: int) -> str:
    corrected = f", {row['p_holm']:.2g} after Holm's correction for {comparisons} comparisons" if comparisons > 1 else ""
    parts = [
        f"{arm_title(row['arm'], settings)} = {average(row)} points on average: {significance(row, settings)}; "
        f"p {row['p']:.2g}{corrected}"
    ]
    if pd.notna(row["detectable_low"]):
        low, high = row["detectable_low"], row["detectable_high"]
        parts.append(f"the smallest gain that is detected with 80% power lies between {low:.1f} and {high:.1f} points")
    if "error_seed" in row and pd.notna(row["error_seed"]):
        errors = ", ".join(f"{word} {row[f'error_{source}']:.2f}" for source, word in zip(SOURCES, WORDS, strict=True))
        parts.append(f"standard errors by source: {errors}")
    return "; ".join(parts) + "."


WORDS = ("seeds", "problems", "seeds and problems together", "samples")


def average(row: pd.Series) -> Cell:
    return Cell.of(row, AVERAGE, signed=row["kind"] == "gain")


def significance(row: pd.Series, settings: ReportSettings) -> str:
    """Whether an average gain differs significantly from zero, as text; empty if it was not tested."""
    if pd.isna(row["p_holm"]):
        return ""
    many = row["model"] == ALL_MODELS
    of_what = f"{len(settings.models)} models" if many else f"{len(settings.seeds)} seeds"
    if not is_significant(row["p_holm"]):
        return f"not distinguishable from zero with {of_what}"
    return f"distinguishable from zero with {of_what} ({'better' if row[AVERAGE] > 0 else 'worse'})"


def headline(table: Table, at_least_once: Table, settings: ReportSettings) -> str:
    """The main results for the terminal, the paths of tables and figures, and what to do next.

    Args:
        table: accuracy table of avg@k.
        at_least_once: accuracy table of pass@k.
    """
    seeds = f"{len(settings.seeds)} seed{'s' if len(settings.seeds) > 1 else ''}"
    pass_at = f"pass@{min(settings.samples.values())}"
    corrected = "; p after Holm's correction" if "p_holm" in table.frame and table.frame["p_holm"].notna().any() else ""
    lines = [
        f"Suite {settings.suite}: accuracy (avg@{samples_text(settings)}, %), average of {len(settings.benchmarks)} benchmarks "
        f"[95% interval], and {pass_at};",
        f"{seeds}, {table.frame['problems'].iloc[0]} problems{corrected}",
    ]
    passes = at_least_once.frame.set_index(["model", "dataset", "arm"])[AVERAGE]
    for group, all_rows in by_group(table.frame):
        rows = printed(all_rows, settings)
        lines += ["", group]
        titles = [arm_title(arm, settings) for arm in rows["arm"]]
        width = max(map(len, titles))
        for title, (_, row) in zip(titles, rows.iterrows(), strict=True):
            cell = average(row)
            once = Cell(passes[row["model"], row["dataset"], row["arm"]], float("nan"), float("nan"), cell.signed).mean_text
            verdict = f"{significance(row, settings)}, p {row['p_holm']:.2g}" if pd.notna(row.get("p_holm")) else ""
            lines.append(f"  {title:<{width}}  {cell.mean_text:>5} {cell.range_text:<14} {once:>5}  {verdict}".rstrip())
    folder = f"results/{settings.suite}" + ("/partial" if settings.missing else "")
    return "\n".join(
        [
            *lines,
            *(["", *missing_note(settings)] if settings.missing else []),
            *(["", ONE_SEED_ABOVE] if len(settings.seeds) == 1 else []),
            "",
            f"Table:   {folder}/tables/{settings.item}.md (.csv, .tex), {settings.item}_pass_at_k.md, and others there",
            f"Figures: {folder}/figures/ (.png, .pdf, .csv)",
            "Next:    change arms, seeds or the suite in params.yaml, then run the command again: only what changed is rerun.",
        ]
    )
