import numpy as np
import pandas as pd
import pytest
from by_hand import RUN, TWO_SEEDS, runs
from report_factory import report_settings

from eval.report.budgets import at_budget, at_equal_budgets, with_modelled_seconds

RISING = runs({("sfpo", 0): [0.2, 0.4, 0.8]})  # backward passes 0, 20, 40


@pytest.mark.parametrize(
    "budget, step, accuracy, area",
    [
        (40, 10, 0.8, (20 * 0.3 + 20 * 0.6) / 40),  # two trapezoids
        (30, 7.5, 0.6, (20 * 0.3 + 10 * 0.4) / 30),  # half way between 0.4 and 0.8; the area holds 0.4 from 20 on
        (10, 2.5, 0.3, 0.2),
        (100, 10, 0.8, (20 * 0.3 + 20 * 0.6 + 60 * 0.8) / 100),  # ended before: it stays as it was
    ],
)
def test_where_a_run_stands_at_a_budget(budget, step, accuracy, area):
    found = at_budget(RISING, "backward_passes", budget)
    assert (found["step"], found["accuracy"], found["area"]) == pytest.approx((step, accuracy, area))


def test_the_order_of_lines_does_not_matter():
    assert at_budget(RISING.iloc[::-1], "backward_passes", 30) == at_budget(RISING, "backward_passes", 30)


def test_a_little_more_budget_changes_a_little():
    """A clock that is 1% off moves the accuracy by 1% of its rise, not by a whole validation."""
    found = [at_budget(RISING, "backward_passes", budget)["accuracy"] for budget in (39.9, 40.1)]
    assert found == pytest.approx([0.798, 0.8])


def test_equal_budgets_by_hand():
    found = at_equal_budgets(runs(TWO_SEEDS), report_settings(seeds=(0, 1))).set_index(["measure", "arm"])
    # GRPO spends 1,000 rollouts, 10 passes, 20 s. Rollouts: GRPO 60, 80 -> 70; SFPO 90, 70 -> 80. Passes (10): SFPO at step
    # 2.5: 55, 50 -> 52.5. Seconds (20): SFPO at step 6.667, a third of the way: 70 + 20/3 = 76.67, 80 - 10/3 = 76.67.
    assert list(found["accuracy"].round(3)) == [70, 80, 70, 52.5, 70, 76.667]
    assert list(found["step"].round(3)) == [10, 10, 10, 2.5, 10, 6.667]
    assert list(found["budget"]) == [1000, 1000, 10, 10, 20, 20]
    # t(1) = 12.706. Rollouts, GRPO: 70 +- 12.706 * 14.142 / sqrt(2) = 127 points: ends at 0 and 100.
    assert tuple(found.loc[("rollouts", "grpo"), ["accuracy_low", "accuracy_high"]]) == (0, 100)
    # Gains by seed. Passes: 55 - 60 = -5, 50 - 80 = -30: -17.5, 12.5 either way: ends at -100 and 100; t = -17.5 / 12.5 = -1.4,
    # p of t(1): 1 - 2 atan(1.4) / pi = 0.3949.
    gain = found.loc[("backward_passes", "sfpo")]
    assert tuple(gain[["accuracy_gain", "accuracy_gain_low", "accuracy_gain_high"]]) == pytest.approx((-17.5, -100, 100))
    assert gain["accuracy_gain_p"] == pytest.approx(0.3949, abs=1e-4)
    assert np.isnan(found.loc[("rollouts", "grpo"), "accuracy_gain_p"])
    # Area, rollouts: GRPO (45 + 55) / 2 and (35 + 65) / 2 -> 50; SFPO (55 + 80) / 2 and (50 + 75) / 2 -> 65.
    assert found.loc[("rollouts", "grpo"), "area"] == pytest.approx(50)
    assert found.loc[("rollouts", "sfpo"), "area_gain"] == pytest.approx(15)


def test_a_third_arm_changes_no_comparison_of_the_others():
    third = runs({("sfpo", 0): [0.1, 0.2], ("sfpo", 1): [0.1, 0.2]}).assign(arm="gxpo")  # ends at step 5
    two = at_equal_budgets(runs(TWO_SEEDS), report_settings(seeds=(0, 1)))
    three = at_equal_budgets(pd.concat([runs(TWO_SEEDS), third]), report_settings(arms=("grpo", "sfpo", "gxpo"), seeds=(0, 1)))
    pd.testing.assert_frame_equal(two, three[three["arm"] != "gxpo"].reset_index(drop=True))


def test_seconds_at_the_first_arms_prices():
    # GRPO's two runs: 20 and 40 s in all, 5 and 15 of them updates, for 2,000 rollouts and 20 passes: 40 s / 2,000 = 0.02 s a
    # rollout, 20 s / 20 = 1 s a pass. SFPO's own clock does not matter: 1,000 rollouts and 40 passes are 20 + 40 = 60 s.
    lines = [("grpo", 0, 20.0, 5.0), ("grpo", 1, 40.0, 15.0), ("sfpo", 0, 999.0, 1.0), ("sfpo", 1, 7.0, 1.0)]
    metrics = pd.DataFrame(
        [
            {**RUN, "arm": arm, "seed": seed, "step": step, "rollouts": 100 * step, "backward_passes": step}
            | {"seconds_total": total * step / 10, "seconds_update": update * step / 10}
            for arm, seed, total, update in lines
            for step in (5, 10)
        ]
    )
    found = with_modelled_seconds(runs(TWO_SEEDS), metrics, report_settings(seeds=(0, 1)))
    ends = found[found["step"] == 10].groupby("arm")["seconds"].unique()
    assert ends["grpo"] == pytest.approx([30]) and ends["sfpo"] == pytest.approx([60])


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
    assert len(ends) == 8 and found[[*ends, "accuracy_gain_p"]].isna().all(axis=None) and (found["n_seeds"] == 1).all()


def test_each_model_has_its_own_budget():
    both = pd.concat([runs(TWO_SEEDS), runs(TWO_SEEDS, seconds=(20.0, 30.0)).assign(model="smollm2-135m")])
    found = at_equal_budgets(both, report_settings(models=("tiny-qwen2", "smollm2-135m"), seeds=(0, 1)))
    assert list(found[found["measure"] == "seconds"]["budget"]) == [20, 20, 200, 200]
