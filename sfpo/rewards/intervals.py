"""Sets of real numbers as lists of intervals, with set operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sfpo.rewards.tokens import ParseError
from sfpo.rewards.values import exact

INFINITE = float("inf")
MAX_INTERVALS = 64


@dataclass(frozen=True)
class Interval:
    """An interval from ``low`` to ``high``; for a single point, both ends are equal and closed."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


Intervals = list[Interval]
EVERYTHING = [Interval(-INFINITE, False, INFINITE, False)]


class Line:
    """Union, intersection and complement of lists of intervals. Endpoints are compared with a tolerance."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def equal(self, left: Any, right: Any) -> bool:
        if abs(left) == INFINITE or abs(right) == INFINITE:
            return bool(left == right)
        return bool(abs(left - right) <= self.tolerance * max(1, abs(right)))

    def same(self, left: Interval, right: Interval) -> bool:
        if (left.low_closed, left.high_closed) != (right.low_closed, right.high_closed):
            return False
        return self.equal(left.low, right.low) and self.equal(left.high, right.high)

    def merged(self, intervals: Intervals) -> Intervals:
        """Sort the intervals, and merge those that touch or overlap."""
        if len(intervals) > MAX_INTERVALS:
            raise ParseError("too many intervals")
        found: Intervals = []
        for interval in sorted(intervals, key=lambda interval: (interval.low, not interval.low_closed)):
            last = found[-1] if found else None
            if last is None or not self.connected(last, interval):
                found.append(interval)
                continue
            high, closed = max((last.high, last.high_closed), (interval.high, interval.high_closed))
            if self.equal(last.high, interval.high):
                closed = last.high_closed or interval.high_closed
            low_closed = last.low_closed or (interval.low_closed and self.equal(interval.low, last.low))
            found[-1] = Interval(last.low, low_closed, high, closed)
        return found

    def connected(self, first: Interval, second: Interval) -> bool:
        """Whether the union of two intervals has no gap; ``first`` must start first."""
        if self.equal(second.low, first.high):
            return second.low_closed or first.high_closed
        return bool(second.low < first.high)

    def complement(self, intervals: Intervals) -> Intervals:
        """The complement in the real numbers."""
        found, low, closed = [], -INFINITE, False
        for interval in self.merged(intervals):
            if low < interval.low or (low == interval.low and closed and not interval.low_closed):
                found.append(Interval(low, closed, interval.low, not interval.low_closed and abs(interval.low) != INFINITE))
            low, closed = interval.high, not interval.high_closed
        if low < INFINITE:
            found.append(Interval(low, closed, INFINITE, False))
        return found

    def intersect(self, left: Intervals, right: Intervals) -> Intervals:
        """The intersection of two sets."""
        if left is EVERYTHING or right is EVERYTHING:
            return right if left is EVERYTHING else left
        if len(left) * len(right) > MAX_INTERVALS**2:
            raise ParseError("too many intervals")
        found = []
        for one in left:
            for other in right:
                low, low_open = max((one.low, not one.low_closed), (other.low, not other.low_closed))
                high, high_closed = min((one.high, one.high_closed), (other.high, other.high_closed))
                if low < high or (low == high and not low_open and high_closed):
                    found.append(Interval(low, not low_open, high, high_closed))
        return found

    def integers(self, intervals: Intervals, natural: bool) -> Intervals:
        """The integers in bounded intervals, each as a point. With ``natural``, intervals that contain zero are rejected, since
        conventions differ on whether it is a natural number."""
        found: Intervals = []
        for interval in intervals:
            bounded = interval.low > -INFINITE and interval.high < INFINITE and interval.high - interval.low <= MAX_INTERVALS
            if not bounded or (natural and interval.low <= 0):
                raise ParseError("too many integers, or it depends on whether 0 is natural")
            values = map(exact, range(math.floor(interval.low), math.ceil(interval.high) + 1))
            found += self.intersect([interval], [Interval(value, True, value, True) for value in values])
        return found
