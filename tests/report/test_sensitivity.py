"""Accuracy over a grid of learning rates, and the choice of a rate, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.sensitivity import accuracies, at_own_best, mean_before, over_scales
from eval.report.sensitivity_display import sensitivity_figure, sensitivity_table
from sfpo.config import at_rate

KEYS = {"model": "tiny-qwen2", "dataset": "arithmetic"}
SCALES, SEEDS, BASE = (0.1, 1.0, 10.0), (0, 1, 2), 0.4
ENDS = {"grpo": (0.5, 0.6, 0.55), "sfpo": (0.6, 0.62, 0.2)}
"""Where each arm levels off at each rate; at the highest SFPO falls below the base."""


def end_of(arm, scale, seed):
    return ENDS[arm][SCALES.index(scale)] + 0.01 * (seed - 1)


def runs(seeds=SEEDS):
    """(validation, metrics): the base at step 0, the end from step 10 on; SFPO takes 4 passes a step; rho is 2."""
    validation, metrics = [], []
    for arm, passes in (("grpo", 1), ("sfpo", 4)):
        for scale in SCALES:
            for seed in seeds:
                run = {**KEYS, "arm": at_rate(arm, scale), "seed": seed}
                for step in range(0, 101, 10):
                    accuracy = end_of(arm, scale, seed) if step else BASE
                    spent = {"rollouts": 128 * step, "backward_passes": passes * step, "seconds": 3.0 * step}
                    validation.append({**run, "step": step, "accuracy": accuracy, **spent})
                for step in (1, 100):
                    seconds = {"generate": 2.0 * step, "grade": 0, "old_logprobs": 0, "sync": 0, "update": passes * step}
                    of_step = {f"seconds_{phase}": value for phase, value in seconds.items()}
                    of_step |= {"backward_passes": passes * step, "learning_rate": 3e-5 * scale}
                    metrics.append({**run, "step": step, **of_step})
    return pd.DataFrame(validation), pd.DataFrame(metrics)


def with_a_diverged_run():
    """GRPO, seed 2, diverges at the highest rate after step 40."""
    validation, metrics = runs()
    lost = (validation["arm"] == at_rate("grpo", 10.0)) & (validation["seed"] == 2) & (validation["step"] > 40)
    validation.loc[lost, "accuracy"] = 0.0
    return validation.assign(diverged=lost.map({True: True, False: None})), metrics


def settings(seeds=SEEDS):
    changes = {"item": "sensitivity", "shows": "sensitivity", "learning_rate_scales": SCALES}
    return report_settings(seeds=seeds).model_copy(update=changes)


def one(frame, **values):
    for column, value in values.items():
        frame = frame[frame[column] == value]
    (_, row) = next(frame.iterrows())
    assert len(frame) == 1
    return row


def test_the_mean_over_the_last_fifth_of_a_budget():
    costs, accuracy = np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 1.0])
    assert mean_before(costs, accuracy, 20.0) == pytest.approx(1.0)
    assert mean_before(costs, accuracy, 10.0) == pytest.approx(0.9)  # from 0.8 at cost 8 to 1 at cost 10
    assert mean_before(costs, accuracy, 40.0) == pytest.approx(1.0)  # it stays as it was


def test_equal_budgets_are_what_every_run_has_spent():
    found = accuracies(*runs(), settings())
    budget = found.groupby("measure")["budget"].first()
    # 100 steps; of passes and cost GRPO spends less: 100, and 2 * 100 + 100.
    assert budget.to_dict() == {"rollouts": 12800, "backward_passes": 100, "price": 300}
    assert found["rho"].unique() == pytest.approx([2.0]) and found["base"].unique() == pytest.approx([40.0])
    grid = over_scales(found)
    grpo = one(grid, measure="rollouts", arm="grpo", scale=1.0)
    # 59, 60, 61: t(2) = 4.303, sd 1, over sqrt(3): 2.48.
    assert [grpo["accuracy"], grpo["accuracy_low"], grpo["accuracy_high"]] == pytest.approx([60, 57.52, 62.48], abs=0.01)
    diverged = one(grid, measure="rollouts", arm="sfpo", scale=10.0)
    assert diverged["below_base"] == 3 and grpo["below_base"] == 0


def test_a_rate_is_chosen_on_the_other_seeds():
    runs_of = pd.DataFrame(
        [
            {**KEYS, "measure": "rollouts", "arm": arm, "scale": scale, "seed": seed, "accuracy": value}
            for arm, table in {
                # Without seed 0 rate 1 is best (62 against 50), and seed 0 has 40 there; without 1 or 2 rate 0.1 is best
                # (60 against 52, 56 against 51), where these have 50 and 50: 40, 50, 50.
                "grpo": {0.1: (70, 50, 50), 1.0: (40, 60, 64)},
                "sfpo": {0.1: (60, 60, 60), 1.0: (10, 10, 10)},
            }.items()
            for scale, values in table.items()
            for seed, value in enumerate(values)
        ]
    )
    found = at_own_best(runs_of, settings())
    grpo, sfpo = (one(found, arm=arm) for arm in ("grpo", "sfpo"))
    assert grpo["accuracy"] == pytest.approx((40 + 50 + 50) / 3) and grpo["scales"] == "x 0.1 (2 of 3), x 1 (1 of 3)"
    assert sfpo["accuracy"] == 60 and sfpo["gain"] == pytest.approx((20 + 10 + 10) / 3) and sfpo["scales"] == "x 0.1 (3 of 3)"
    assert grpo["gain"] == 0 and np.isnan(grpo["gain_p"]) and sfpo["gain_p"] < 0.1


def test_arms_that_are_alike_gain_nothing_by_the_choice():
    # 400 suites of 5 seeds and 5 rates, all the same: the best rate of each would be about 1.2 sd of a mean above the truth.
    generator = np.random.default_rng(0)
    scores, best = [], []
    for _ in range(400):
        table = pd.DataFrame(generator.normal(50, 2, (5, 5)))
        best.append(table.mean().max())
        long = table.rename_axis("seed").reset_index().melt("seed", var_name="scale", value_name="accuracy")
        of_suite = at_own_best(
            long.assign(**KEYS, measure="rollouts", arm="grpo"), settings().model_copy(update={"arms": {"grpo": "GRPO"}})
        )
        scores.append(of_suite["accuracy"].iloc[0])
    assert abs(np.mean(scores) - 50) < 0.2 and np.mean(best) > 50.8


def test_the_table_has_each_arm_at_its_own_rate():
    table = sensitivity_table(*runs(), settings())
    grpo, sfpo = (one(table.frame, measure="rollouts", arm=arm) for arm in ("grpo", "sfpo"))
    assert grpo["scales"] == "x 1 (3 of 3)" and sfpo["accuracy"] == pytest.approx(62)
    assert sfpo["gain"] == pytest.approx(2.0)
    assert "rates: 3e-06, 3e-05, 0.0003" in table.markdown.lower() and "SFPO 3,600 passes" in table.markdown  # 9 x 400
    alone = sensitivity_table(*runs((0,)), settings((0,)))
    assert "One training seed" in alone.markdown and "SFPO" not in alone.markdown


def test_a_run_that_diverged_counts_and_is_marked():
    figure, data = sensitivity_figure(*with_a_diverged_run(), settings())
    grpo = one(data, measure="rollouts", arm="grpo", scale=10.0)
    assert grpo["accuracy"] == pytest.approx((54 + 55 + 0) / 3) and grpo["diverged"] == 1
    assert data["diverged"].sum() == 3  # at each of the three equal budgets
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert len(crosses) == 1 and "Some seeds diverged" in [text.get_text() for text in figure.legends[0].get_texts()]
    table = sensitivity_table(*with_a_diverged_run(), settings())
    assert "diverged (NaN or inf), with accuracy 0 from then on: GRPO at x 10: 1" in table.markdown
    assert "diverged" not in sensitivity_table(*runs(), settings()).markdown


def test_the_figure_draws_a_curve_an_arm_and_marks_what_fell():
    figure, data = sensitivity_figure(*runs(), settings())
    axes = figure.axes[0]
    labelled = {line.get_label(): line for line in axes.lines if line.get_label() in ("GRPO", "SFPO")}
    assert labelled["GRPO"].get_ydata().tolist() == pytest.approx([50, 60, 55])
    assert labelled["GRPO"].get_xdata() == pytest.approx([3e-6, 3e-5, 3e-4], rel=0.05)
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "w" and len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in hollow] == [pytest.approx([20])]
    assert "Fell below the base" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert [axes.get_title() for axes in figure.axes] == ["Equal rollouts", "Equal passes", "Equal cost"]
    assert len(data) == 3 * 2 * 3
