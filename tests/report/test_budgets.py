import numpy as np
import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.budgets import at_budget, at_equal_budgets, largest_common

RUN = {"model": "tiny-qwen2", "dataset": "arithmetic"}


def runs(accuracies, passes=(1, 4), seconds=(2.0, 3.0)):
    """{(arm, seed): accuracies at steps 0, 5, 10 ...}; the costs of a step of grpo and of sfpo."""
    rows = []
    for (arm, seed), values in accuracies.items():
        place = arm == "sfpo"
        for i, accuracy in enumerate(values):
            costs = {"rollouts": 100 * 5 * i, "backward_passes": passes[place] * 5 * i, "seconds": seconds[place] * 5 * i}
            rows.append({**RUN, "arm": arm, "seed": seed, "step": 5 * i, "accuracy": accuracy, **costs})
    return pd.DataFrame(rows)


TWO_SEEDS = {
    ("grpo", 0): [0.4, 0.5, 0.6],
    ("grpo", 1): [0.2, 0.5, 0.8],
    ("sfpo", 0): [0.4, 0.7, 0.9],
    ("sfpo", 1): [0.2, 0.8, 0.7],
}


def test_the_budget_is_what_every_run_reached():
    budgets = largest_common(runs(TWO_SEEDS)).loc[("tiny-qwen2", "arithmetic")]
    # Both arms end at step 10: 1,000 rollouts each; 10 and 40 passes; 20 and 30 seconds.
    assert list(budgets) == [1000, 10, 20]
    shorter = {**TWO_SEEDS, ("sfpo", 1): [0.2, 0.8]}  # one run that ends at step 5: 500 rollouts, 15 seconds
    assert list(largest_common(runs(shorter)).loc[("tiny-qwen2", "arithmetic")]) == [500, 10, 15]


RISING = runs({("sfpo", 0): [0.2, 0.4, 0.8]})  # backward passes 0, 20, 40


@pytest.mark.parametrize(
    "budget, step, accuracy, area",
    [
        (40, 10, 0.8, (20 * 0.2 + 20 * 0.4) / 40),  # a validation at the budget counts, but has held for no time
        (39.9, 5, 0.4, (20 * 0.2 + 19.9 * 0.4) / 39.9),  # one just after it does not count
        (30, 5, 0.4, (20 * 0.2 + 10 * 0.4) / 30),  # nothing in between: 0.6 would be a look ahead
        (10, 0, 0.2, 0.2),  # before the first step's end: the policy as it started
        (100, 10, 0.8, (20 * 0.2 + 20 * 0.4 + 60 * 0.8) / 100),
    ],
)
def test_the_last_validation_at_or_before_the_budget(budget, step, accuracy, area):
    found = at_budget(RISING, "backward_passes", budget)
    assert (found["step"], found["accuracy"]) == (step, accuracy) and found["area"] == pytest.approx(area)


def test_the_order_of_lines_does_not_matter():
    assert at_budget(RISING.iloc[::-1], "backward_passes", 30) == at_budget(RISING, "backward_passes", 30)


def test_what_comes_after_the_budget_changes_nothing():
    changed = RISING.assign(accuracy=RISING["accuracy"].where(RISING["backward_passes"] <= 30, 0.0))
    assert at_budget(changed, "backward_passes", 30) == at_budget(RISING, "backward_passes", 30)


def test_equal_budgets_by_hand():
    found = at_equal_budgets(runs(TWO_SEEDS), report_settings(seeds=(0, 1))).set_index(["measure", "arm"])
    # Rollouts (1,000): GRPO 60, 80 -> 70; SFPO 90, 70 -> 80. Passes (10): SFPO still at step 0: 40, 20 -> 30. Seconds (20): at
    # step 5 (15 s): 70, 80 -> 75.
    assert list(found["accuracy"].round(9)) == [70, 80, 70, 30, 70, 75]
    assert list(found["step"]) == [10, 10, 10, 0, 10, 5]
    assert list(found["budget"]) == [1000, 1000, 10, 10, 20, 20]
    # t(1) = 12.706. Rollouts, GRPO: 70 +- 12.706 * 14.142 / sqrt(2) = 127 points: ends at 0 and 100.
    assert tuple(found.loc[("rollouts", "grpo"), ["accuracy_low", "accuracy_high"]]) == (0, 100)
    # Gains by seed. Seconds: 70 - 60 = 10, 80 - 80 = 0: 5 +- 12.706 * 7.071 / sqrt(2) = 5 +- 63.53.
    gain = found.loc[("seconds", "sfpo")]
    np.testing.assert_allclose(
        gain[["accuracy_gain", "accuracy_gain_low", "accuracy_gain_high"]].astype(float), [5, -58.53, 68.53], atol=0.01
    )
    # Passes: -20 and -60: paired, -40 +- 12.706 * 28.284 / sqrt(2) = 254 points: ends at -100 and 100.
    assert tuple(found.loc[("backward_passes", "sfpo"), ["accuracy_gain_low", "accuracy_gain_high"]]) == (-100, 100)
    # Area, rollouts: GRPO (40 + 50) / 2 and (20 + 50) / 2 -> 40; SFPO (40 + 70) / 2 and (20 + 80) / 2 -> 52.5.
    assert found.loc[("rollouts", "grpo"), "area"] == pytest.approx(40)
    assert found.loc[("rollouts", "sfpo"), "area_gain"] == pytest.approx(12.5)


def test_gains_are_paired_by_seed():
    # Seeds far apart, the gain nearly the same in each: 1, 2, 3 points; its interval is 2 +- 4.303 * 1 / sqrt(3) = 2 +- 2.484.
    starts = [0.2, 0.5, 0.8]
    accuracies = {("grpo", k): [0.1, start] for k, start in enumerate(starts)}
    accuracies |= {("sfpo", k): [0.1, start + 0.01 * (k + 1)] for k, start in enumerate(starts)}
    gain = at_equal_budgets(runs(accuracies), report_settings()).set_index(["measure", "arm"]).loc[("rollouts", "sfpo")]
    np.testing.assert_allclose(gain[["accuracy_gain_low", "accuracy_gain_high"]].astype(float), [-0.484, 4.484], atol=1e-3)


def test_one_seed_has_no_interval():
    one = {key: values for key, values in TWO_SEEDS.items() if key[1] == 0}
    found = at_equal_budgets(runs(one), report_settings(seeds=(0,)))
    ends = [column for column in found if column.endswith(("_low", "_high"))]
    assert len(ends) == 8 and found[ends].isna().all(axis=None) and (found["n_seeds"] == 1).all()


def test_each_model_has_its_own_budget():
    both = pd.concat([runs(TWO_SEEDS), runs(TWO_SEEDS, seconds=(20.0, 30.0)).assign(model="smollm2-135m")])
    found = at_equal_budgets(both, report_settings(models=("tiny-qwen2", "smollm2-135m"), seeds=(0, 1)))
    assert list(found[found["measure"] == "seconds"]["budget"]) == [20, 20, 200, 200]
