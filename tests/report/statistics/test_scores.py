import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.statistics.scores import avg_at_k, pass_at_k, per_problem, sample_variance


def scores(rows):
    return pd.DataFrame(rows, columns=["seed", "benchmark", "problem_id", "sample", "correct"])


def test_pass_at_k_by_hand():
    # 4 samples, 1 right, k=2: of the 6 pairs, 3 hold no right answer: 1 - 3/6. With 3 right every pair holds one.
    np.testing.assert_allclose(pass_at_k(np.array([0, 1, 3, 4]), np.array([4, 4, 4, 4]), k=2), [0, 0.5, 1, 1])


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@4 needs at least 4 samples"):
        pass_at_k(np.array([1, 1]), np.array([4, 2]), k=4)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(case):
    n, correct, k = case
    expected = 1 - math.comb(n - correct, k) / math.comb(n, k)
    assert pass_at_k(np.array([correct]), np.array([n]), k)[0] == pytest.approx(expected)


@given(st.integers(1, 30), st.data())
def test_pass_at_1_is_avg_at_k(n, data):
    correct = np.array([data.draw(st.integers(0, n))])
    assert pass_at_k(correct, np.array([n]), 1)[0] == pytest.approx(avg_at_k(correct, np.array([n]))[0])


def test_per_problem_by_hand():
    rows = [(seed, "sums", problem, k, right) for seed, problem, k, right in [
        (0, "b", 0, True), (0, "b", 1, False), (0, "a", 0, False), (0, "a", 1, False),
        (1, "a", 0, True), (1, "a", 1, True), (1, "b", 0, False), (1, "b", 1, True),
    ]]  # fmt: skip
    mean = per_problem(scores(rows))["sums"]
    assert list(mean.columns) == ["a", "b"] and list(mean.index) == [0, 1]
    np.testing.assert_allclose(mean, [[0, 0.5], [1, 0.5]])
    np.testing.assert_allclose(per_problem(scores(rows), partial(pass_at_k, k=2))["sums"], [[0, 1], [1, 1]])


def test_seeds_must_share_their_problems():
    with pytest.raises(ValueError, match="sums: the seeds were not scored on the same problems"):
        per_problem(scores([(0, "sums", "a", 0, True), (1, "sums", "b", 0, True)]))


def test_variance_of_a_sample_by_hand():
    # 1 of 4 right: 1/4 * 3/4 * 4/3; 2 of 2: 0; one sample tells nothing.
    found = sample_variance(np.array([1, 2, 1]), np.array([4, 2, 1]))
    np.testing.assert_allclose(found, [0.25, 0, np.nan])
