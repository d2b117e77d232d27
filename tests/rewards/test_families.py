"""Families of solutions: their conditions, their letters, and their values."""

import pytest

from sfpo.rewards.families import Condition, renamed, same_family, split_condition

WHOLE = Condition("k", True)


@pytest.mark.parametrize(
    ("text", "family", "condition"),
    [
        (r"k\pi, k \in \mathbb{Z}", r"k\pi", WHOLE),
        (r"k\pi \ (k \in \mathbb Z)", r"k\pi \ ", WHOLE),
        (r"k\pi, \text{where } k \text{ is an integer}", r"k\pi", WHOLE),
        (r"k\pi \text{ for all integers } k", r"k\pi", WHOLE),
        (r"k\pi, k = 0, \pm 1, \pm 2, \ldots", r"k\pi", WHOLE),
        (r"\{k\pi \mid k \in \mathbb{Z}\}", r"k\pi", WHOLE),
        (r"k\pi, k \in \mathbb{N}", r"k\pi", Condition("k", False)),
        (r"k\pi, k \in \mathbb{Z}^{+}", r"k\pi", Condition("k", False)),
        (r"k\pi, k \text{ is a positive integer}", r"k\pi", Condition("k", False)),
        (r"k\pi", r"k\pi", None),
        ("5", "5", None),
    ],
)
def test_conditions_are_split_off(text, family, condition):
    assert split_condition(text) == (family.strip(), condition)


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ([r"\frac{\pi}{3}+n\pi"], [r"\frac{\pi}{3}+k\pi"], True),
        ([r"\frac{4\pi}{3}+n\pi"], [r"\frac{\pi}{3}+k\pi"], True),  # the same values
        ([r"\frac{\pi}{3}-n\pi"], [r"\frac{\pi}{3}+k\pi"], True),
        ([r"\frac{\pi}{3}+2n\pi"], [r"\frac{\pi}{3}+k\pi"], False),
        ([r"\frac{\pi}{4}+\frac{n\pi}{2}"], [r"\frac{\pi}{4}+k\pi", r"\frac{3\pi}{4}+k\pi"], True),
        ([r"\frac{\pi}{4}+n\pi"], [r"\frac{\pi}{4}+k\pi", r"\frac{3\pi}{4}+k\pi"], False),
        ([r"(-1)^{n}\frac{\pi}{6}+n\pi"], [r"\frac{\pi}{6}+2k\pi", r"\frac{5\pi}{6}+2k\pi"], True),
        (["2n"], ["2k"], None),  # a formula, not a family
        ([r"n\pi"], [r"k\pi"], None),
        (["180(n-2)"], ["180(k-2)"], None),
        ([r"n^{2}+\frac{\pi}{3}"], [r"k^{2}+\frac{\pi}{3}"], None),  # no period
    ],
)
def test_families_without_a_condition(given, wanted, same):
    assert same_family(given, None, wanted, None) is same


@pytest.mark.parametrize(
    ("given", "wanted", "same"), [("2n-1", "2k+1", True), ("2n", "2k+1", False), ("4n+1", "2k+1", False), ("-k", "k", True)]
)
def test_a_gold_that_says_so_is_a_family(given, wanted, same):
    assert same_family([given], None, [wanted], WHOLE) is same


def test_letters_are_renamed_only_where_nothing_is_mixed_up():
    assert renamed(["2n", r"\sin n"], "n", "k") == ["2k", r"\sin k"]
    assert renamed(["n+k"], "n", "k") == ["n+k"]
