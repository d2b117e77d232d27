from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from by_hand import LATE, THREE_SEEDS, runs
from report_factory import report_settings

from eval.report.paper_values import PATH, beside_ours, paper_values
from eval.report.targets import BEST, TARGETS
from eval.report.targets_display import targets_table
from sfpo.schema import ConfigError

ROOT = Path(__file__).parents[2]
BENCHMARKS = ["math500", "aime24", "aime25", "amc", "minerva_math", "olympiadbench"]


def written(tmp_path, *rows):
    path = tmp_path / "values.yaml"
    row = {"item": "table1", "source": "Table 1", "model": "m", "arm": "grpo", "values": {"amc": 50.0}}
    path.write_text(yaml.safe_dump({"rows": [{**row, **changes} for changes in rows]}))
    return path


def test_every_name_is_one_of_params_yaml():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    values = paper_values()
    assert set(values["model"]) <= set(params["models"])
    assert set(values["arm"]) | set(values["over"]) - {""} <= set(params["arms"])
    assert set(values["dataset"].dropna()) <= set(params["datasets"])
    assert set(values["quantity"]) <= {*params["benchmarks"], "average", "rollouts", "hours"}


def test_averages_are_those_of_the_cells():
    """To a hundredth, as they are printed. All six are; one that is not would stand in ``odd``."""
    table = paper_values().query("item == 'table1' and over == ''").pivot_table("value", ["model", "arm"], "quantity")
    odd = []
    assert len(table) == 6 and not table.isna().any(axis=None)
    off = table.index[(table[BENCHMARKS].mean(axis=1) - table["average"]).abs() > 0.01]
    assert list(off) == odd


def test_what_is_confirmed_and_nothing_else():
    found = paper_values().groupby("item", sort=False).size()
    # Three models, two arms, seven columns, and one gain; one benchmark of two arms; two models of two arms; three models,
    # two arms, two costs.
    assert found.to_dict() == {"table1": 3 * 2 * 7 + 1, "table2": 2, "table3": 4, "figure4": 12}
    assert paper_values().query("over != ''")[["model", "arm", "over", "value"]].values.tolist() == [
        ["qwen2.5-math-7b", "sfpo", "grpo", 0.83]
    ]


def test_cost_ratios_of_the_paper():
    """Computed from its costs; as printed, 3.21x, 3.50x and 4.93x in rollouts and 2.62x, 2.65x and 4.19x in hours.

    Three differ in the second decimal from those of the printed costs: 3.20, 4.94 and 2.63.
    """
    costs = paper_values().query("item == 'figure4'").pivot_table("value", ["model", "quantity"], "arm", sort=False)
    ratios = (costs["grpo"] / costs["sfpo"]).unstack(sort=False)
    np.testing.assert_allclose(ratios["rollouts"], [49300 / 15400, 3.5, 47400 / 9600])
    np.testing.assert_allclose(ratios["rollouts"], [3.21, 3.50, 4.93], atol=0.01)
    np.testing.assert_allclose(ratios["hours"], [2.62, 2.65, 4.19], atol=0.016)


@pytest.mark.parametrize(
    "rows, said",
    [
        ([{"colour": "red"}], "colour: unknown key"),
        ([{"item": "table9"}], "item = 'table9'"),
        ([{"values": {}}], "values"),
        ([{"values": {"amc": 101.0}}], "values.amc = 101.0: must be between 0 and 100"),
        ([{"values": {"amc": -1.0}}], "between 0 and 100"),
        ([{"values": {"amc": float("nan")}}], "amc"),
        ([{"item": "figure4", "values": {"amc": 1.0}}], "figure4 has rollouts, hours"),
        ([{"item": "figure4", "values": {"hours": 0.0}}], "above 0"),
        ([{}, {}], "given twice: table1 m None grpo None amc"),
        ([{}, {"arm": "sfpo"}, {"arm": "sfpo", "over": "grpo"}], "it is computed from the two cells"),
    ],
)
def test_faults_are_named(tmp_path, rows, said):
    with pytest.raises(ConfigError, match=said):
        paper_values(written(tmp_path, *rows))


def test_a_gain_may_be_negative(tmp_path):
    values = paper_values(written(tmp_path, {"arm": "sfpo", "over": "grpo", "values": {"amc": -1.5}}))
    assert values["value"].tolist() == [-1.5] and PATH.is_file()


def ours(rows, model="qwen2.5-math-1.5b", dataset="dapo-math", columns=("amc", "average")):
    """{(arm, kind): [(mean, low, high) of each column]} as the frame of an accuracy table."""
    made = []
    for (arm, kind), numbers in rows.items():
        cells = {
            f"{c}{end}": n
            for c, triple in zip(columns, numbers, strict=True)
            for end, n in zip(("", "_low", "_high"), triple, strict=True)
        }
        made.append({"model": model, "dataset": dataset, "arm": arm, "kind": kind, **cells, "n_seeds": 1, "best_in": ""})
    return pd.DataFrame(made)


OURS = {
    ("base", "score"): [(30.0, 25.0, 35.0), (20.0, 18.0, 22.0)],
    ("grpo", "score"): [(50.0, 45.0, 55.0), (39.0, 38.5, 39.5)],
    ("sfpo", "score"): [(55.0, 50.0, 60.0), (40.0, 38.0, 42.0)],
    ("grpo-base", "gain"): [(20.0, 15.0, 25.0), (19.0, 17.0, 21.0)],
    ("sfpo-grpo", "gain"): [(5.0, -1.0, 11.0), (1.0, 0.5, 1.5)],
}


def test_beside_ours_by_hand():
    frame = beside_ours("table1", ours(OURS)).frame.set_index(["arm", "over", "quantity"])
    assert len(frame) == 6 and set(frame["model"]) == {"qwen2.5-math-1.5b"}
    # GRPO: AMC 53.31, ours 50 [45, 55]: 3.31 below, within. Average 38.35, ours 39 [38.5, 39.5]: 0.65 above, not within.
    assert frame.loc[("grpo", "", "amc"), "difference"] == pytest.approx(-3.31)
    assert frame.loc[("grpo", "", "amc"), "within"] and not frame.loc[("grpo", "", "average"), "within"]
    assert frame.loc[("grpo", "", "average"), "difference"] == pytest.approx(0.65)
    # Gains: AMC 56.02 - 53.31 = 2.71; average 40.19 - 38.35 = 1.84, ours 1 [0.5, 1.5].
    gain = frame.loc[("sfpo", "grpo", "average")]
    assert gain["paper"] == pytest.approx(1.84) and gain["difference"] == pytest.approx(-0.84) and not gain["within"]
    assert frame.loc[("sfpo", "grpo", "amc"), "paper"] == pytest.approx(2.71) and frame.loc[("sfpo", "grpo", "amc"), "within"]
    assert list(frame["computed"]) == [False] * 4 + [True] * 2 and set(frame["source"]) == {"Table 1"}


def test_beside_ours_in_words():
    table = beside_ours("table1", ours(OURS), {"grpo": "GRPO", "sfpo": "SFPO", "amc": "AMC"})
    lines = [line for line in table.markdown.splitlines() if line.startswith("| ") and "---" not in line]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["", "Paper", "Ours", "Ours - paper", "Paper within our interval"]
    assert rows[1] == ["GRPO: AMC", "53.31", "50.0 [45.0, 55.0]", "-3.31", "yes"]
    assert rows[-1] == ["SFPO - GRPO: Average", "+1.84", "+1.0 [0.5, 1.5]", "-0.84", "no"]
    assert (
        "qwen2.5-math-1.5b, trained on dapo-math" in table.markdown and "gains are differences of its cells" in table.markdown
    )
    assert "53.31" in table.latex and r"\label{tab:table1_paper}" in table.latex and "†" not in table.markdown
    assert {line.count("&") for line in table.latex.splitlines() if line.endswith(r"\\[2pt]") and "multi" not in line} == {4}


def test_a_gain_that_is_all_there_is_is_marked():
    table = beside_ours("table1", ours(OURS, model="qwen2.5-math-7b"))
    assert table.frame[["arm", "over", "quantity", "paper"]].values.tolist() == [["sfpo", "grpo", "average", 0.83]]
    assert not table.frame["computed"].any()
    assert "+0.83 †" in table.markdown and "† The paper's cells are not confirmed" in table.markdown
    assert r"\cmidrule" not in table.latex  # there are no scores to rule off


def test_without_an_interval_nothing_is_within():
    unknown = {key: [(mean, np.nan, np.nan) for mean, _, _ in numbers] for key, numbers in OURS.items()}
    table = beside_ours("table1", ours(unknown))
    assert table.frame["within"].isna().all() and table.markdown.count("n/a |") == len(table.frame)


def test_if_nothing_can_be_compared_one_line_says_why():
    for frame, said in (
        (ours(OURS, model="tiny-qwen2"), "has only other models (qwen2.5-math-1.5b, "),
        (ours(OURS, dataset="math"), "has no values for the arms and benchmarks of this suite"),
        (ours(OURS, columns=("sums", "chains")), "has no values for the arms and benchmarks of this suite"),
    ):
        table = beside_ours("table1", frame)
        assert table.frame.empty and "paper" in table.frame
        assert table.markdown.count("\n") == table.latex.count("\n") == 1 and said in table.markdown


def test_a_table_whose_data_set_is_not_confirmed_is_compared_all_the_same():
    rows = {("dapo", "score"): [(45.0, 40.0, 50.0)], ("sfpo_dapo", "score"): [(46.0, 41.0, 51.0)]}
    rows[("sfpo_dapo-dapo", "gain")] = [(1.0, 0.0, 2.0)]
    table = beside_ours("table3", ours(rows, "qwen3-4b-base", columns=("average",)))
    assert table.frame["paper"].round(9).tolist() == [46.48, 47.87, 1.39]  # 47.87 - 46.48


def costs_frame(accuracies, targets=(BEST,)):
    validation = runs(accuracies).assign(model="qwen3-4b-base")
    return targets_table(validation, report_settings(models=("qwen3-4b-base",)), targets).frame


def test_cost_ratios_beside_ours():
    # GRPO's best is 0.8, at step 20; SFPO's mean curve is there at step 15, also without each seed: no spread.
    table = beside_ours("figure4", costs_frame(THREE_SEEDS), {"grpo": "GRPO", "sfpo": "SFPO"})
    frame = table.frame.set_index("quantity")
    assert list(frame.index) == ["rollouts", "hours"] and set(frame["kind"]) == {"ratio"}
    assert frame.loc["rollouts", "paper"] == pytest.approx(44800 / 12800)
    assert frame.loc["rollouts", "ours"] == pytest.approx(4 / 3)
    assert frame.loc["rollouts", "difference"] == pytest.approx(4 / 3 - 3.5)
    assert frame.loc["hours", "ours"] == pytest.approx(4 / 3 / 1.5)
    assert "| GRPO / SFPO: rollouts |  3.50 | 1.33 [n/a] |        -2.17 |" in table.markdown
    assert "Ratio: the first arm's cost of reaching its best accuracy" in table.markdown


def test_a_ratio_that_is_unknown_is_said_to_be():
    late = {key: LATE if key[0] == "sfpo" else values for key, values in THREE_SEEDS.items()}
    table = beside_ours("figure4", costs_frame(late))
    assert table.markdown.count("unknown |") == 2 and table.frame["within"].isna().all()


def test_one_seed_is_said_above():
    alone = {key: values for key, values in THREE_SEEDS.items() if key[1] == 0}
    validation = runs(alone).assign(model="qwen3-4b-base")
    frame = targets_table(validation, report_settings(models=("qwen3-4b-base",), seeds=(0,)), (BEST,)).frame
    table = beside_ours("figure4", frame)
    assert table.markdown.index("ONE TRAINING SEED") < table.markdown.index("2.00 [n/a]")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="figure4 needs a frame with one target"):
        beside_ours("figure4", costs_frame(THREE_SEEDS, TARGETS))
    with pytest.raises(ValueError, match="table9: the paper has no values"):
        beside_ours("table9", ours(OURS))
