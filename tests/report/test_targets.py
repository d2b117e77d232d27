import numpy as np
import pandas as pd
import pytest
from report_factory import report_settings
from test_budgets import TWO_SEEDS, runs

from eval.report.targets import BEST, TARGETS, Target, arrival, costs_to_targets, spent_to_targets

# Three seeds of each arm at steps 0, 5, 10, 15, 20. Base 0.4; GRPO's mean curve ends highest, at 0.8: a gain of 0.4.
THREE_SEEDS = {
    ("grpo", 0): [0.4, 0.5, 0.6, 0.6, 0.8],
    ("grpo", 1): [0.4, 0.4, 0.5, 0.6, 0.8],
    ("grpo", 2): [0.4, 0.6, 0.6, 0.6, 0.8],
    ("sfpo", 0): [0.4, 0.6, 0.8, 0.8, 0.8],
    ("sfpo", 1): [0.4, 0.6, 0.6, 0.8, 0.8],
    ("sfpo", 2): [0.4, 0.6, 0.7, 0.8, 0.8],
}
HALF = Target(0.5)


def costs(accuracies, targets, seeds=(0, 1, 2)):
    settings = report_settings(seeds=seeds)
    found = costs_to_targets(spent_to_targets(runs(accuracies), settings, targets), settings)
    return found.set_index(["target", "measure", "arm"]).sort_index()


def ends(row, name):
    return [row[name], row[f"{name}_low"], row[f"{name}_high"]]


@pytest.mark.parametrize(
    "target, level, name",
    [
        # TWO_SEEDS: base (0.4 + 0.2 + 0.4 + 0.2) / 4 = 0.3; GRPO's mean curve 0.3, 0.5, 0.7: a gain of 0.4.
        (BEST, 0.7, "GRPO's best"),
        (HALF, 0.5, "base + 50% of GRPO's gain"),
        (Target(1.5), 0.9, "base + 150% of GRPO's gain"),
        (Target(0.55, of_gain=False), 0.55, "55%"),
    ],
)
def test_levels_by_hand(target, level, name):
    assert target.level(runs(TWO_SEEDS), "grpo") == pytest.approx(level) and target.name("GRPO") == name


@pytest.mark.parametrize("given", [{"value": 0.0}, {"value": -0.5}, {"value": 50, "of_gain": False}])
def test_a_target_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="above"):
        Target(**given)


@pytest.mark.parametrize(
    "accuracies, level, step, reached",
    [
        ([0.2, 0.4, 0.8], 0.4, 5, True),  # at the level counts
        ([0.2, 0.4, 0.8], 0.41, 10, True),
        ([0.2, 0.8, 0.3], 0.5, 5, True),  # a later fall changes nothing
        ([0.2, 0.4, 0.8], 0.9, 10, False),
        ([0.9, 0.4, 0.8], 0.7, 10, True),  # luck before training is not the arm's
    ],
)
def test_the_first_validation_at_or_above_the_level(accuracies, level, step, reached):
    run = runs({("sfpo", 0): accuracies})
    for order in (run, run.iloc[::-1]):
        row, arrived = arrival(order, level)
        assert (row["step"], arrived) == (step, reached)


def test_equal_seeds_reach_their_own_mean():
    # (0.1 + 0.1 + 0.1) / 3 rounds to 0.10000000000000002: no seed may miss its own level by that.
    accuracies = {(arm, seed): [0.0, 0.1] for arm in ("grpo", "sfpo") for seed in (0, 1, 2)}
    assert spent_to_targets(runs(accuracies), report_settings(), (BEST,))["reached"].all()


def test_costs_by_hand():
    # To 0.4 + 0.5 * 0.4 = 0.6: GRPO at steps 10, 15, 5; SFPO at 5 each. One step: 100 rollouts; 1 and 4 passes; 2 and 3 s.
    found = costs(THREE_SEEDS, (HALF,)).loc["base + 50% of GRPO's gain"]
    assert found["level"].to_numpy() == pytest.approx(60) and (found["n_reached"] == 3).all() and (found["n_seeds"] == 3).all()
    # GRPO: logarithms of 1000, 1500, 500: mean log(1000 * 0.75^(1/3)) = log(908.56). Around it 0.0959, 0.5014, -0.5973:
    # standard deviation sqrt((0.0092 + 0.2514 + 0.3567) / 2) = 0.55557; half-width 4.30265 * 0.55557 / sqrt(3) = 1.38011.
    grpo = found.loc[("rollouts", "grpo")]
    assert ends(grpo, "cost") == pytest.approx([908.56, 908.56 / np.exp(1.38011), 908.56 * np.exp(1.38011)], rel=1e-4)
    assert grpo["cost_bound"] == "exact" and pd.isna(grpo["ratio"]) and pd.isna(grpo["ratio_bound"])
    # SFPO: 500 in every seed: no spread is known. Its ratio has GRPO's: 908.56 / 500.
    sfpo = found.loc[("rollouts", "sfpo")]
    assert ends(sfpo, "cost") == pytest.approx([500, np.nan, np.nan], nan_ok=True)
    assert ends(sfpo, "ratio") == pytest.approx([1.81712, 1.81712 / np.exp(1.38011), 1.81712 * np.exp(1.38011)], rel=1e-4)
    # Four times the passes a step, and 1.5 times the seconds.
    assert found.loc[("backward_passes", "sfpo"), "ratio"] == pytest.approx(1.81712 / 4, rel=1e-4)
    assert found.loc[("seconds", "sfpo"), "ratio"] == pytest.approx(1.81712 / 1.5, rel=1e-4)


def test_ratios_are_paired_by_seed():
    # Seeds ten times apart, SFPO always twice as fast: the ratio has no spread, though each arm's cost has.
    slow = {("grpo", 0): [0.2, 0.3, 0.8], ("grpo", 1): [0.2] * 20 + [0.8]}
    fast = {("sfpo", 0): [0.2, 0.8, 0.8], ("sfpo", 1): [0.2] * 10 + [0.8] * 11}
    found = costs({**slow, **fast}, (Target(0.8, of_gain=False),), seeds=(0, 1)).loc[("80%", "rollouts")]
    assert found.loc["sfpo", "ratio"] == pytest.approx(2) and np.isnan(found.loc["sfpo", "ratio_low"])
    assert found.loc["sfpo", "cost_high"] > 10 * found.loc["sfpo", "cost"]


LATE = [0.4, 0.4, 0.5, 0.5, 0.5]
"""Of a run that never gets to 60%: all of its 20 steps bound its cost."""


@pytest.mark.parametrize(
    "late, cost_bounds, ratio_bound, ratio",
    [
        # GRPO's seed 0 late: steps 20, 15, 5 against 5, 5, 5: (4 * 3 * 1)^(1/3) = 2.2894, and more.
        ([("grpo", 0)], ("at least", "exact"), "at least", 2.28943),
        # SFPO's seed 0 late: 10, 15, 5 against 20, 5, 5: (0.5 * 3 * 1)^(1/3) = 1.1447, and less.
        ([("sfpo", 0)], ("exact", "at least"), "at most", 1.14471),
        ([("grpo", 0), ("sfpo", 0)], ("at least", "at least"), "unknown", np.nan),
        ([("grpo", 0), ("sfpo", 1)], ("at least", "at least"), "unknown", np.nan),
    ],
)
def test_a_run_that_never_arrives_is_a_bound(late, cost_bounds, ratio_bound, ratio):
    accuracies = {key: LATE if key in late else values for key, values in THREE_SEEDS.items()}
    found = costs(accuracies, (Target(0.6, of_gain=False),)).loc[("60%", "rollouts")]
    assert tuple(found.loc[["grpo", "sfpo"], "cost_bound"]) == cost_bounds
    for arm, bound in zip(("grpo", "sfpo"), cost_bounds, strict=True):
        assert found.loc[arm, "n_reached"] == (3 if bound == "exact" else 2)
        assert bound == "exact" or np.isnan(found.loc[arm, ["cost_low", "cost_high"]].astype(float)).all()
    sfpo = found.loc["sfpo"]
    assert sfpo["ratio_bound"] == ratio_bound
    assert ends(sfpo, "ratio") == pytest.approx([ratio, np.nan, np.nan], rel=1e-5, nan_ok=True)
    if ("grpo", 0) in late:
        assert found.loc["grpo", "cost"] == pytest.approx((2000 * 1500 * 500) ** (1 / 3))  # kept, with all that it spent


def test_a_later_arrival_raises_the_bound():
    """What is marked 'at least' lies below what the run would have cost, had it gone on."""
    short = {key: values[:3] for key, values in THREE_SEEDS.items()}  # up to step 10: GRPO's seed 1 is not there yet
    target = (Target(0.6, of_gain=False),)
    bound, whole = (costs(found, target).loc[("60%", "rollouts")] for found in (short, THREE_SEEDS))
    assert bound.loc["grpo", "cost_bound"] == bound.loc["sfpo", "ratio_bound"] == "at least"
    assert bound.loc["grpo", "cost"] < whole.loc["grpo", "cost"] and bound.loc["sfpo", "ratio"] < whole.loc["sfpo", "ratio"]


def test_one_seed_has_no_interval():
    found = costs({key: values for key, values in THREE_SEEDS.items() if key[1] == 0}, TARGETS, seeds=(0,))
    columns = [column for column in found if column.endswith(("_low", "_high"))]
    assert len(columns) == 4 and found[columns].isna().all(axis=None) and (found["n_seeds"] == 1).all()
