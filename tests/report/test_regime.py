"""The regime analysis, with expected values worked out by hand for curves that are straight lines."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from report_factory import report_settings

from eval.report.prices import own_prices
from eval.report.regime import even_at, ratios, regime_figure, regime_table

KEYS = {"model": "tiny-qwen2", "dataset": "arithmetic"}


def validation(seeds=(0, 1, 2), speed=2.0):
    """GRPO rises by 1 point a step from 20 to 80%; SFPO ``speed`` times as fast, with 4 passes a step. SFPO's seeds differ a
    little."""
    rows = [
        {
            **KEYS,
            "arm": arm,
            "seed": seed,
            "step": step,
            "accuracy": min(0.8, 0.2 + 0.01 * step * rate * (1 + 0.05 * (seed - 1) * (arm == "sfpo"))),
            "rollouts": 128 * step,
            "backward_passes": passes * step,
            "seconds": 1.0 * step,
        }
        for arm, rate, passes in (("grpo", 1.0, 1), ("sfpo", speed, 4))
        for seed in seeds
        for step in range(0, 61, 5)
    ]
    return pd.DataFrame(rows)


def metrics(seeds=(0, 1, 2)):
    """After the first step: 3 s of rollouts a step, 1.5 s a pass, so rho = 2."""
    rows = []
    for arm, passes in (("grpo", 1), ("sfpo", 4)):
        for seed in seeds:
            for step in (1, 60):
                spent = {"generate": 50 + 2.0 * step, "grade": 0.5 * step, "old_logprobs": 0.25 * step, "sync": 0.25 * step}
                of_step = {f"seconds_{phase}": value for phase, value in {**spent, "update": 1.5 * passes * step}.items()}
                rows.append({**KEYS, "arm": arm, "seed": seed, "step": step, "backward_passes": passes * step, **of_step})
    return pd.DataFrame(rows)


def settings(seeds=(0, 1, 2)):
    return report_settings(seeds=seeds).model_copy(update={"item": "regime", "shows": "regime"})


def test_the_ratio_at_each_price():
    # To half of the gain: 30 steps against 15, at rho + 1 and rho + 4 a step: 2 (rho + 1) / (rho + 4), 1 at rho = 2.
    found = ratios(validation(), settings())
    half = found[found["target"].str.contains("50%")]
    assert half["level"].unique() == pytest.approx([50.0])
    assert half["ratio"].to_numpy() == pytest.approx((2 * (half["rho"] + 1) / (half["rho"] + 4)).to_numpy(), rel=0.02)
    assert even_at(half) == pytest.approx(2.0, rel=0.05)
    inside = (half["ratio_low"] < half["ratio"]) & (half["ratio"] < half["ratio_high"])
    assert inside.all()


def test_where_it_breaks_even():
    curve = pd.DataFrame({"rho": [0.1, 1.0, 10.0], "ratio": [0.5, 0.5, 2.0]})
    assert even_at(curve) == pytest.approx(10**0.5)  # half of the way from 0.5 to 2, and from 1 to 10, in logarithms
    assert even_at(curve.assign(ratio=[1.2, 1.5, 2.0])) == 0.1  # at any price
    assert even_at(curve.assign(ratio=[0.5, 0.6, 0.9])) is None
    assert even_at(curve.assign(ratio=[2.0, 0.9, np.nan])) is None  # unknown is no gain


def test_the_price_of_each_run():
    assert own_prices(metrics())["rho"].to_list() == pytest.approx([2.0] * 6)
    assert own_prices(metrics())["passes"].to_list() == [1, 1, 1, 4, 4, 4]


def test_the_table_has_the_ratio_needed_and_the_rho_from_which_an_arm_pays_off():
    table = regime_table(validation(), metrics(), settings())
    half = table.frame.iloc[0]
    assert half["break_even"] == pytest.approx(2.0)  # (2 + 4) / (2 + 1)
    assert half["ratio_rollouts"] == pytest.approx(2.0, rel=0.02) and half["ratio"] == pytest.approx(1.0, rel=0.03)
    assert "rho 2.00" in table.markdown and "jackknife over 3 seeds" in table.markdown
    slow = regime_table(validation(speed=0.9), metrics(), settings())
    assert "none" in slow.markdown.split("Pays off from")[1]
    never = regime_table(validation(speed=0.1), metrics(), settings()).markdown
    assert "not reached" in never and "nan" not in never


def test_one_seed_has_no_interval():
    table = regime_table(validation((0,)), metrics((0,)), settings((0,)))
    assert table.frame["ratio_low"].isna().all() and "One training seed" in table.markdown


def test_the_figure_draws_the_curves_and_marks_the_prices():
    figure, data = regime_figure(validation(), metrics(), settings())
    half = figure.axes[0]
    (curve,) = [line for line in half.lines if line.get_label() == "SFPO"]
    assert curve.get_xdata()[0] == pytest.approx(0.1) and curve.get_ydata()[-1] == pytest.approx(2.0, rel=0.03)
    own = [line for line in half.lines if line.get_linestyle() == ":"]
    assert own[0].get_xdata()[0] == pytest.approx(2.0)
    diamonds = [line for line in half.lines if line.get_marker() == "D"]
    assert sorted(line.get_xdata()[0] for line in diamonds) == pytest.approx([8.1, 12.3, 15.9], abs=0.5)
    assert set(data["series"]) == {"ratio", "own price", "paper"}
    plt.close("all")


def test_an_arm_that_does_not_reach_the_target_is_labelled():
    figure, _ = regime_figure(validation(speed=0.1), metrics(), settings())
    assert "SFPO (not reached)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_suite_with_one_arm_has_nothing_to_compare():
    # As in the report of a suite of which only the first arm has finished.
    settings = report_settings().model_copy(update={"arms": {"grpo": "GRPO"}, "seeds": [0, 1, 2]})
    curves, records = (frame[frame["arm"] == "grpo"] for frame in (validation(), metrics()))
    assert ratios(curves, settings).empty
    table = regime_table(curves, records, settings)
    assert table.frame.empty and "GRPO is the only arm" in table.markdown
    figure, data = regime_figure(curves, records, settings)
    assert set(data["series"]) == {"own price", "paper"}
    plt.close(figure)
