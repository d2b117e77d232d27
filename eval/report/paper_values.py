"""Compares our results with the paper's reported values (paper_values.yaml, arXiv 2510.04072).

The paper's gains are computed from the cells of its tables, because some gains in its text do not match the tables. If the
cells of a row are not confirmed, the reported gain is used, and marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import yaml
from pydantic import Field, model_validator

from eval.report.accuracy import ALL_MODELS
from eval.report.markup import DAGGER, Block, Cell, Table, escaped, latex, markdown
from eval.report.notes import ONE_SEED_ABOVE
from eval.report.panels import UNKNOWN, rows_of
from eval.report.targets_display import Ratio
from sfpo.config import Name
from sfpo.schema import Schema, parse

PATH = Path(__file__).with_name("paper_values.yaml")
RATIOS = "figure4"
"""The item that compares ratios of costs, not accuracies."""
COST_QUANTITIES = {"rollouts": "rollouts", "hours": "seconds"}
"""The paper's quantity -> our measure of it."""
KEYS = ["model", "arm", "over", "quantity"]
COLUMNS = [
    *["model", "dataset", "arm", "over", "kind", "quantity", "paper", "ours", "ours_low", "ours_high"],
    *["difference", "within", "computed", "source"],
]

Value = Annotated[float, Field(allow_inf_nan=False)]


class PaperRow(Schema):
    """The values of one arm in one table or figure of the paper."""

    item: Literal["table1", "table2", "table3", "figure4"]
    source: str
    """Place in the paper, such as 'Table 1'."""
    model: Name
    dataset: Name | None = None
    """Training data set; None if the paper does not confirm it."""
    arm: Name
    over: Name | None = None
    """If set, the values are gains over this arm in points, for a row of which only gains are confirmed. None: they are the
    arm's own values."""
    values: Annotated[dict[Name, Value], Field(min_length=1)]
    """Tables: benchmark or 'average' -> percent. figure4: rollouts, hours -> cost of reaching GRPO's best accuracy."""

    @model_validator(mode="after")
    def _values_can_be(self) -> PaperRow:
        low, high = (0.0, float("inf")) if self.item == RATIOS else (-100.0 if self.over else 0.0, 100.0)
        for quantity, value in self.values.items():
            if self.item == RATIOS and (quantity not in COST_QUANTITIES or value == 0):
                raise ValueError(f"values.{quantity} = {value}: {RATIOS} has {', '.join(COST_QUANTITIES)}, all above 0")
            if not low <= value <= high:
                raise ValueError(f"values.{quantity} = {value}: must be between {low:g} and {high:g}")
        return self


class PaperFile(Schema):
    """paper_values.yaml."""

    rows: list[PaperRow]

    @model_validator(mode="after")
    def _said_once(self) -> PaperFile:
        said = [(row.item, row.model, row.dataset, row.arm, row.over, name) for row in self.rows for name in row.values]
        if repeated := [" ".join(map(str, key)) for key in dict.fromkeys(said) if said.count(key) > 1]:
            raise ValueError(f"given twice: {'; '.join(repeated)}")
        for item, model, dataset, arm, over, name in said:
            if over and all((item, model, dataset, one, None, name) in said for one in (arm, over)):
                raise ValueError(f"{item} {model} {arm} over {over}, {name}: remove it, it is computed from the two cells")
        return self


def paper_values(path: Path = PATH) -> pd.DataFrame:
    """The paper's values, one row each, in the order of the file.

    Returns:
        item, model, dataset (None: not confirmed), arm, over (empty: the arm's own value; else a gain over that arm), quantity
        (a benchmark, average, rollouts or hours), value (percent, points, rollouts, hours), source.

    Raises:
        ConfigError: the file has an unknown key, a duplicate or impossible value, or a gain whose two cells are also given.
    """
    file = parse(PaperFile, yaml.safe_load(path.read_text()), str(path))
    rows = [
        {**row.model_dump(exclude={"values"}), "quantity": quantity, "value": value}
        for row in file.rows
        for quantity, value in row.values.items()
    ]
    columns = ["item", "model", "dataset", "arm", "over", "quantity", "value", "source"]
    return pd.DataFrame(rows, columns=columns).astype({"dataset": object, "over": object}).fillna({"over": ""})


def beside_ours(item: str, frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Table:
    """The paper's values next to ours, for all models, arms and quantities that both have.

    Accuracies and gains are compared directly. Costs are compared only as ratios of two arms, because absolute costs depend on
    the machine and on how rollouts are counted.

    Args:
        item: table1, table2, table3 or figure4.
        frame: of ``accuracy_frame``; for figure4 of ``targets.costs_to_targets`` with the single target BEST.
        titles: arm or benchmark -> its title; without one the key is printed.

    Returns:
        The table; if nothing can be compared, its texts are one line that says why. Its frame: model, dataset (ours), arm, over
        (empty, or the arm compared with), kind (score, gain, ratio), quantity; paper, ours, ours_low, ours_high; difference
        (ours - paper), within (whether the paper's value lies in our 95% interval; missing if there is none), computed (True:
        from cells of the paper; False: the paper's reported gain), source.

    Raises:
        ValueError: the paper has no such item, or the frame for figure4 has several targets.
    """
    paper = rows_of(paper_values(), item=item)
    if paper.empty:
        raise ValueError(f"{item}: the paper has no values; items with values: {', '.join(paper_values()['item'].unique())}")
    ours = _our_ratios(frame) if item == RATIOS else _our_cells(frame)
    both = ours.merge(_compared(paper, item), on=KEYS, suffixes=("", "_paper"))
    both = both[both["dataset_paper"].isna() | (both["dataset_paper"] == both["dataset"])]
    difference, has_interval = both["ours"] - both["paper"], both["ours_low"].notna()
    within = both["paper"].between(both["ours_low"], both["ours_high"]).astype("boolean").where(has_interval)
    both = both.assign(difference=difference, within=within).reindex(columns=COLUMNS).reset_index(drop=True)
    name = paper["source"].iloc[0]
    if both.empty:
        line = _why_nothing(name, paper, frame)
        return Table(both, f"{line}\n", escaped(line) + "\n")
    heads = ["Paper", "Ours", "Ours -\npaper", "Paper within\nour interval"]
    groups = both.groupby(["model", "dataset"], sort=False)
    blocks = [_block(rows, titles or {}, f"{model}, trained on {dataset}") for (model, dataset), rows in groups]
    caption = f"{name} of the paper, and ours"
    notes, above = _notes(both), [ONE_SEED_ABOVE] if frame["n_seeds"].max() == 1 else []
    label = f"{item}_paper"
    return Table(both, markdown(caption, heads, blocks, notes, above), latex(caption, heads, blocks, notes, label, above))


# ---------------------------------------------------------------------------------------------- numbers


def _our_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of an accuracy table in long form: model, dataset, arm, over, kind, quantity, ours, ours_low, ours_high."""
    arms = frame.loc[frame["kind"] == "score", "arm"].unique()
    pairs = {f"{arm}-{over}": (arm, over) for arm in arms for over in arms}
    quantities = [column for column in frame if f"{column}_low" in frame]
    rows = []
    for _, row in frame[frame["model"] != ALL_MODELS].iterrows():
        arm, over = (row["arm"], "") if row["kind"] == "score" else pairs[row["arm"]]
        known = {"model": row["model"], "dataset": row["dataset"], "arm": arm, "over": over, "kind": row["kind"]}
        for name in quantities:
            numbers = {f"ours{end}": row[f"{name}{end}"] for end in ("", "_low", "_high")}
            rows.append({**known, "quantity": name, **numbers})
    return pd.DataFrame(rows)


def _our_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Like ``_our_cells``, for the ratio of the first arm's cost to each other arm's."""
    if frame["target"].nunique() > 1:
        raise ValueError(f"{RATIOS} needs a frame with one target, but it has {', '.join(frame['target'].unique())}")
    measures = {measure: quantity for quantity, measure in COST_QUANTITIES.items()}
    first = frame["arm"].iloc[0]
    found = frame[frame["measure"].isin(list(measures)) & (frame["arm"] != first)]
    names = {f"ratio{end}": f"ours{end}" for end in ("", "_low", "_high")}
    found = found.assign(over=first, kind="ratio", quantity=found["measure"].map(measures)).rename(columns=names)
    return found[["model", "dataset", *KEYS[1:], "kind", *names.values()]]


def _compared(paper: pd.DataFrame, item: str) -> pd.DataFrame:
    """The paper's values (column paper) in the form that ours are compared with: cells, and gains or ratios of pairs of
    arms."""
    cells = rows_of(paper, over="")
    pairs = cells.merge(cells.drop(columns=["over", "source"]), on=["item", "model", "quantity"], suffixes=("", "_over"))
    same = (pairs["dataset"] == pairs["dataset_over"]) | (pairs["dataset"].isna() & pairs["dataset_over"].isna())
    pairs = pairs[same & (pairs["arm"] != pairs["arm_over"])]
    between = pairs["value_over"] / pairs["value"] if item == RATIOS else pairs["value"] - pairs["value_over"]
    computed = pairs.assign(over=pairs["arm_over"], value=between, computed=True)
    both = computed if item == RATIOS else pd.concat([paper.assign(computed=False), computed])
    return both.rename(columns={"value": "paper"})[["dataset", *KEYS, "paper", "computed", "source"]]


# ---------------------------------------------------------------------------------------------- words


def _why_nothing(name: str, paper: pd.DataFrame, frame: pd.DataFrame) -> str:
    models = ", ".join(paper["model"].unique())
    if set(frame["model"]) & set(paper["model"]):
        return f"{name} of the paper has no values for the arms and benchmarks of this suite (its models: {models})."
    return f"{name} of the paper has only other models ({models}), so there is nothing to compare."


def _block(rows: pd.DataFrame, titles: Mapping[str, str], title: str) -> Block:
    names = {"average": "Average", **{arm: arm for arm in rows["arm"]}, **titles}

    def line(row: pd.Series) -> tuple[str, list[Cell | str]]:
        arm, over = names.get(row["arm"], row["arm"]), names.get(row["over"], row["over"])
        of_whom = {"score": arm, "gain": f"{arm} - {over}", "ratio": f"{over} / {arm}"}[row["kind"]]
        sign = "+" if row["kind"] == "gain" else ""
        mark = f" {DAGGER}" if row["kind"] == "gain" and not row["computed"] else ""
        ours = Ratio.of(row, "ours") if row["kind"] == "ratio" else Cell.of(row, "ours", signed=row["kind"] == "gain")
        within = "n/a" if pd.isna(row["within"]) else "yes" if row["within"] else "no"
        cells = [
            f"{row['paper']:{sign}.2f}{mark}",
            UNKNOWN if pd.isna(row["ours"]) else ours,
            "n/a" if pd.isna(row["ours"]) else f"{row['difference']:+.2f}",
            within,
        ]
        return f"{of_whom}: {names.get(row['quantity'], row['quantity'])}", cells

    return Block(title, [line(row) for _, row in rows.iterrows()], int((rows["kind"] == "score").sum()) or len(rows))


def _notes(both: pd.DataFrame) -> list[str]:
    ratios = (both["kind"] == "ratio").any()
    notes = [
        "Ours: mean [95% interval], as in the corresponding table or figure. Paper: as reported, without an interval; its "
        + ("ratios are computed from its costs." if ratios else "gains are differences of its cells.")
    ]
    if ((both["kind"] == "gain") & ~both["computed"].astype(bool)).any():
        notes.append(f"{DAGGER} The paper's cells are not confirmed; this is its reported gain.")
    notes.append(
        "The paper's values are noisy too, so even if both had the same true values, more than 5% would lie outside our "
        "intervals."
    )
    if ratios:
        notes.append(
            "Ratio: the first arm's cost of reaching its best accuracy, divided by the other arm's cost of reaching the same "
            "accuracy; unknown if one of our arms did not reach it. Absolute costs are not comparable across setups."
        )
    return notes
