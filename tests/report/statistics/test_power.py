import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.report.statistics.comparisons import paired_p_value
from eval.report.statistics.power import Components, components, detectable_gain, variance_range


def table(values):
    values = np.asarray(values, float)
    return pd.DataFrame(values, index=pd.RangeIndex(len(values), name="seed"))


def zero(values):
    return {name: 0.0 * one for name, one in values.items()}


def made(seed=0.0, problem=(0.0,), interaction=(0.0,), sample=(0.0,), problems=(100,), samples=(4,), seeds=3):
    arrays = [np.array(one, float) for one in (problem, interaction, sample, problems, samples)]
    return Components(seed, seed / 2, seed * 2, *arrays, seeds)


def test_components_by_hand():
    # Two seeds, two problems, one benchmark, no noise of samples: gains [[0, 2], [2, 8]] (as in test_intervals): mean squares
    # of seeds' means 8 and problems' means 8 (of 2 each), of what is left 4. Interaction 4; problem 8 - 4/2 = 6; seed 8 - 4/2
    # = 6.
    values = {"sums": table([[0, 2], [2, 8]])}
    found = components(values, zero(values), (zero(values), zero(values)), {"sums": 2})
    assert (found.seed, found.problem[0], found.interaction[0], found.sample[0]) == pytest.approx((6, 6, 4, 0))
    # One half of one degree of freedom: chi-squared of 95% is 3.8415, of 5% 0.003932: 8 / 3.8415 - 2 = 0.0825.
    assert found.seed_low == pytest.approx(0.0825, abs=1e-3) and found.seed_high == pytest.approx(8 / 0.003932 - 2, rel=1e-3)
    # Samples of variance 1 in either arm, two each: (1 + 1) / 2 of the 4 are theirs.
    ones = {"sums": table(np.ones((2, 2)))}
    found = components(values, zero(values), (ones, ones), {"sums": 2})
    assert (found.seed, found.problem[0], found.interaction[0], found.sample[0]) == pytest.approx((6, 6, 3, 2))


def test_components_are_those_that_made_the_scores():
    generator = np.random.default_rng(0)
    seed, problem, interaction, sample = 0.03, 0.1, 0.05, 0.4
    found = []
    for _ in range(60):
        shape = (5, 80)
        gains = {
            name: generator.normal(0, problem, (1, 80)) + generator.normal(0, interaction, shape)
            + generator.normal(0, sample / 2, shape)  # four samples
            for name in ("sums", "chains")
        }  # fmt: skip
        shift = generator.normal(0, seed, (5, 1))
        values = {name: table(one + shift) for name, one in gains.items()}
        half = {name: table(np.full(shape, sample**2 / 2)) for name in gains}
        found.append(components(values, zero(values), (half, half), {"sums": 4, "chains": 4}))
    assert np.mean([one.seed for one in found]) == pytest.approx(seed**2, rel=0.2)
    assert np.mean([one.problem for one in found]) == pytest.approx(problem**2, rel=0.2)
    assert np.mean([one.interaction for one in found]) == pytest.approx(interaction**2, rel=0.4)
    held = np.mean([one.seed_low <= seed**2 <= one.seed_high for one in found])
    assert held >= 0.8  # 90%, two standard errors of 60 trials below


def test_errors_by_hand():
    # Two benchmarks: problems 100 and 25, k 4 and 16, 3 seeds. Seeds: 0.0003 / 3. Problems: (0.04/100 + 0.01/25) / 4 = 0.0002.
    # Interaction: (0.03/100 + 0.0075/25) / 4 / 3 = 0.00005. Samples: (0.4/4/100 + 0.4/16/25) / 4 / 3 = 0.000167.
    found = made(0.0003, (0.04, 0.01), (0.03, 0.0075), (0.4, 0.4), (100, 25), (4, 16)).errors()
    assert found == pytest.approx(
        {"seed": 0.01, "problem": 0.0002**0.5, "interaction": 0.00005**0.5, "sample": (0.002 / 12) ** 0.5}
    )


def test_power_of_seeds_alone_is_students():
    # Averages differ by 0.02 from seed to seed, problems not at all: five seeds, gain 0.03: noncentral t(4), shift 0.03
    # sqrt(5) / 0.02.
    shift = 0.03 * math.sqrt(5) / 0.02
    assert made(0.0004).power(0.03, 5) == pytest.approx(stats.nct.sf(stats.t.ppf(0.975, 4), 4, shift))
    assert made(0.0004).power(0.03, 5, seed=0.0001) > made(0.0004).power(0.03, 5)
    needed = made(0.0004).seeds_needed(0.03)
    assert made(0.0004).power(0.03, needed) >= 0.8 > made(0.0004).power(0.03, needed - 1)
    assert made(0.0004).seeds_needed(0.0001) is None


def test_samples_go_where_problems_are_few():
    # sd 0.6 and 0.3 a sample, 25 and 100 problems: k in proportion to 0.024 and 0.003: 8 to 1; 300 completions: 25 * 8 + 100.
    found = made(0.0, (0, 0), (0, 0), (0.36, 0.09), (25, 100), (4, 4))
    assert found.best_samples(300.0).tolist() == [8, 1]
    even, best = (found.with_samples(k).errors()["sample"] for k in ([3, 3], [8, 1]))  # 375 and 300 completions
    assert best < even


def test_power_is_what_simulated_suites_find():
    """Seeds, problems, both together and samples, five seeds: within 5 points of the share that the suite's own test finds."""
    generator = np.random.default_rng(2)
    seed, problem, interaction, sample, gain = 0.01, 0.1, 0.05, 0.5, 0.035
    planned = made(seed**2, (problem**2,) * 2, (interaction**2,) * 2, (sample**2,) * 2, (60, 60), (4, 4), 5).power(gain, 5)
    assert 0.5 < planned < 0.95
    found = []
    for _ in range(400):
        shift = gain + generator.normal(0, seed, (5, 1))
        of_cell = math.hypot(interaction, sample / 2)
        values = {
            name: table(shift + generator.normal(0, problem, (1, 60)) + generator.normal(0, of_cell, (5, 60))) for name in "ab"
        }
        found.append(paired_p_value(values, zero(values))["average"] < 0.05)
    assert np.mean(found) == pytest.approx(planned, abs=0.05 + 0.03)


def test_the_range_of_a_detectable_gain_by_hand():
    # Three seeds gain 0.4, 0.5, 0.6 on every problem: error 0.1 / sqrt(3), t(2) of 97.5% and 80%: 4.30265 + 1.06066 =
    # 5.36331; chi squared of 2 degrees, 95% and 5%: 5.99146 and 0.102587: sqrt(2 / 5.99146) = 0.57776, sqrt(2 / 0.102587) =
    # 4.41539.
    values = {"sums": table(np.repeat([[0.4], [0.5], [0.6]], 50, axis=1))}
    least = 5.36331 * 0.1 / math.sqrt(3)
    assert detectable_gain(values, zero(values)) == pytest.approx((0.57776 * least, 4.41539 * least), rel=1e-4)
    assert np.isnan(detectable_gain({"sums": table(np.ones((1, 9)))}, {"sums": table(np.zeros((1, 9)))})).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_range_holds_the_gain_that_is_found_with_80_percent(seeds):
    generator = np.random.default_rng(seeds)
    true = made(0.02**2, (0.0,), (0.0,), (0.2**2,), (60,), (1,), seeds)
    sizes = np.linspace(0.005, 0.6, 1200)
    truth = next(size for size in sizes if true.power(size, seeds) >= 0.8)
    held = []
    for _ in range(300):
        values = {"sums": table(generator.normal(0, 0.02, (seeds, 1)) + generator.normal(0, 0.2, (seeds, 60)))}
        low, high = detectable_gain(values, zero(values))
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9 - 2 * 0.0173


def test_components_that_cannot_be_estimated_are_an_error():
    one = {"sums": table([[0.5, 0.25]])}
    with pytest.raises(ValueError, match="variance over seeds cannot be estimated"):
        components(one, zero(one), (one, one), {"sums": 4})
    with pytest.raises(ValueError, match="two samples per problem"):
        components(one, zero(one), (one, one), {"sums": 1}, seed=0.0)
    assert components(one, zero(one), (one, one), {"sums": 4}, seed=0.01).seed_high == 0.01


def test_range_of_a_variance():
    low, high = variance_range(9)
    assert (low, high) == pytest.approx((9 / stats.chi2.ppf(0.95, 9), 9 / stats.chi2.ppf(0.05, 9)))
