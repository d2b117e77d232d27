import numpy as np
import pytest
from by_hand import LATE, THREE_SEEDS, TWO_SEEDS, runs
from report_factory import report_settings

from eval.report.targets import BEST, TARGETS, Target, costs_to_targets, curves_of, spent_to_targets

HALF = Target(0.5)


def costs(accuracies, targets, seeds=(0, 1, 2)):
    found = costs_to_targets(runs(accuracies), report_settings(seeds=seeds), targets)
    return found.set_index(["target", "measure", "arm"]).sort_index()


def ends(row, name):
    return [row[name], row[f"{name}_low"], row[f"{name}_high"]]


@pytest.mark.parametrize(
    "target, level, name",
    [
        # GRPO's mean curve is 0.3, 0.5, 0.7: a gain of 0.4.
        (BEST, 0.7, "GRPO's best"),
        (HALF, 0.5, "base + 50% of GRPO's gain"),
        (Target(1.5), 0.9, "base + 150% of GRPO's gain"),
        (Target(0.55, of_gain=False), 0.55, "55%"),
    ],
)
def test_levels_by_hand(target, level, name):
    first = curves_of(runs(TWO_SEEDS).query("arm == 'grpo'"), [0, 1])
    assert target.level(first) == pytest.approx(level) and target.name("GRPO") == name


@pytest.mark.parametrize("given", [{"value": 0.0}, {"value": -0.5}, {"value": 50, "of_gain": False}])
def test_a_target_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="above"):
        Target(**given)


def test_curves_are_those_of_the_seeds_in_any_order_of_lines():
    frame = runs(TWO_SEEDS).query("arm == 'sfpo'").iloc[::-1]
    curves = curves_of(frame, [1, 0])
    assert curves.accuracy.tolist() == [[0.2, 0.8, 0.7], [0.4, 0.7, 0.9]]
    assert curves.costs["backward_passes"].tolist() == [[0, 20, 40]] * 2
    short = curves_of(frame[~((frame["seed"] == 0) & (frame["step"] == 10))], [0, 1])  # steps that all have
    assert short.accuracy.tolist() == [[0.4, 0.7], [0.2, 0.8]]


def test_equal_seeds_reach_their_own_mean():
    # (0.1 + 0.1 + 0.1) / 3 rounds to 0.10000000000000002: no seed may miss its own level by that.
    accuracies = {(arm, seed): [0.0, 0.1] for arm in ("grpo", "sfpo") for seed in (0, 1, 2)}
    assert spent_to_targets(runs(accuracies), report_settings(), (BEST,))["reached"].all()


def test_costs_by_hand():
    # GRPO's mean curve 0.4, 0.5, 0.5667, 0.6, 0.8: half of its gain is 0.6, at step 15; SFPO's 0.4, 0.6, ...: at step 5. One
    # step: 100 rollouts; 1 and 4 passes; 2 and 3 s.
    found = costs(THREE_SEEDS, (HALF,)).loc["base + 50% of GRPO's gain"]
    assert found["level"].to_numpy() == pytest.approx(60) and (found["n_seeds"] == 3).all() and (found["n_reached"] == 3).all()
    assert found.loc[("rollouts", "grpo"), ["cost", "spent"]].tolist() == pytest.approx([1500, 2000])
    assert found.loc["rollouts"].loc["sfpo", ["cost", "ratio"]].tolist() == pytest.approx([500, 3])
    assert found.loc[("backward_passes", "sfpo"), "ratio"] == pytest.approx(3 / 4)
    assert found.loc[("seconds", "sfpo"), "ratio"] == pytest.approx(2)
    # The jackknife. Without seed 0 the mean curve of GRPO is 0.4, 0.5, 0.55, 0.6, 0.8: 0.6 at step 15; without 1: 0.4, 0.55,
    # 0.6: step 10; without 2: 0.4, 0.45, 0.55, 0.6: step 15. SFPO: step 5 each. Logarithms of the ratio: log 3, log 2, log 3:
    # their standard deviation (of 3) is sqrt(2)/3 log 1.5 = 0.19114; error sqrt(2) * 0.19114 = 0.27031; t(2) = 4.30265:
    # 1.16305.
    sfpo = found.loc[("rollouts", "sfpo")]
    assert ends(sfpo, "ratio") == pytest.approx([3, 3 * np.exp(-1.16305), 3 * np.exp(1.16305)], rel=1e-4)
    # t = log 3 / 0.27031 = 4.0643; p of t(2): 1 - t / sqrt(2 + t^2) = 0.0555. Three ratios, whose p are (3, 0.75, 2 times):
    # 0.0555, 0.400, 0.1243 (t = -1.0643 and 2.5643): Holm's first 3 * 0.0555.
    assert sfpo["p"] == pytest.approx(0.0555, abs=1e-4) and sfpo["p_holm"] == pytest.approx(0.1666, abs=2e-4)
    # SFPO alone crosses at step 5 without each seed: no spread.
    assert np.isnan(sfpo["cost_low"])


def test_ratios_are_paired_by_seed():
    # Seeds ten times apart, SFPO always twice as fast: the ratio has little spread, though each arm's cost has much.
    slow = {("grpo", k): [0.2, *np.linspace(0.2, 0.8, 2 * n), *[0.8] * (40 - 2 * n)] for k, n in enumerate((5, 10, 15))}
    fast = {("sfpo", k): [0.2, *np.linspace(0.2, 0.8, n), *[0.8] * (40 - n)] for k, n in enumerate((5, 10, 15))}
    sfpo = costs({**slow, **fast}, (Target(0.7, of_gain=False),)).loc[("70%", "rollouts", "sfpo")]
    assert sfpo["ratio"] == pytest.approx(2, abs=0.1)
    assert sfpo["ratio_high"] / sfpo["ratio_low"] < 1.3 < 2 < sfpo["cost_high"] / sfpo["cost_low"]


@pytest.mark.parametrize(
    "late, known",
    [
        ("grpo", (False, True)),
        ("sfpo", (True, False)),
    ],
)
def test_an_arm_that_does_not_arrive_has_no_cost_and_no_ratio(late, known):
    accuracies = {key: LATE if key[0] == late else values for key, values in THREE_SEEDS.items()}
    found = costs(accuracies, (Target(0.6, of_gain=False),)).loc[("60%", "rollouts")]
    assert tuple(found.loc[["grpo", "sfpo"], "cost"].notna()) == known
    assert found.loc[late, "n_reached"] == 0 and found.loc[late, "spent"] == 2000
    assert found["ratio"].isna().all() and found["p_holm"].isna().all()


def test_the_mean_curve_may_arrive_where_one_seed_does_not():
    # SFPO: 0.4, 0.5333, 0.5833, 0.7, 0.7, at 0.6 after 10 + 5 * 0.01667/0.11667 = 10.714 steps.
    accuracies = {**THREE_SEEDS, ("sfpo", 0): LATE}
    sfpo = costs(accuracies, (Target(0.6, of_gain=False),)).loc[("60%", "rollouts", "sfpo")]
    assert sfpo["n_reached"] == 2 and sfpo["cost"] == pytest.approx(1071.4, abs=0.1)


def test_one_seed_has_no_interval_and_no_test():
    found = costs({key: values for key, values in THREE_SEEDS.items() if key[1] == 0}, TARGETS, seeds=(0,))
    columns = [column for column in found if column.endswith(("_low", "_high"))]
    assert len(columns) == 4 and found[[*columns, "p", "p_holm"]].isna().all(axis=None) and (found["n_seeds"] == 1).all()
    assert found.loc[("GRPO's best", "rollouts", "sfpo"), "ratio"] == 2
