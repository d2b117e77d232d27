"""Sets of real numbers as pieces of the line, and what can be done with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sfpo.rewards.tokens import Unread
from sfpo.rewards.values import exact

INFINITE = float("inf")
MAX_PIECES = 64


@dataclass(frozen=True)
class Piece:
    """From ``low`` to ``high``; a point has both ends closed and equal."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


Pieces = list[Piece]
EVERYTHING = [Piece(-INFINITE, False, INFINITE, False)]


class Line:
    """Unions, intersections and complements of pieces, whose ends are compared with a tolerance."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def equal(self, left: Any, right: Any) -> bool:
        if abs(left) == INFINITE or abs(right) == INFINITE:
            return bool(left == right)
        return bool(abs(left - right) <= self.tolerance * max(1, abs(right)))

    def same(self, left: Piece, right: Piece) -> bool:
        if (left.low_closed, left.high_closed) != (right.low_closed, right.high_closed):
            return False
        return self.equal(left.low, right.low) and self.equal(left.high, right.high)

    def merged(self, pieces: Pieces) -> Pieces:
        """In order, and those that touch as one."""
        if len(pieces) > MAX_PIECES:
            raise Unread("too many pieces")
        found: Pieces = []
        for piece in sorted(pieces, key=lambda piece: (piece.low, not piece.low_closed)):
            last = found[-1] if found else None
            if last is None or not self.joined(last, piece):
                found.append(piece)
                continue
            high, closed = max((last.high, last.high_closed), (piece.high, piece.high_closed))
            if self.equal(last.high, piece.high):
                closed = last.high_closed or piece.high_closed
            low_closed = last.low_closed or (piece.low_closed and self.equal(piece.low, last.low))
            found[-1] = Piece(last.low, low_closed, high, closed)
        return found

    def joined(self, first: Piece, second: Piece) -> bool:
        """Whether nothing lies between two pieces, of which the first begins earlier."""
        if self.equal(second.low, first.high):
            return second.low_closed or first.high_closed
        return bool(second.low < first.high)

    def outside(self, pieces: Pieces) -> Pieces:
        """The complement in the real numbers."""
        found, low, closed = [], -INFINITE, False
        for piece in self.merged(pieces):
            if low < piece.low or (low == piece.low and closed and not piece.low_closed):
                found.append(Piece(low, closed, piece.low, not piece.low_closed and abs(piece.low) != INFINITE))
            low, closed = piece.high, not piece.high_closed
        if low < INFINITE:
            found.append(Piece(low, closed, INFINITE, False))
        return found

    def both(self, left: Pieces, right: Pieces) -> Pieces:
        """The intersection."""
        if left is EVERYTHING or right is EVERYTHING:
            return right if left is EVERYTHING else left
        if len(left) * len(right) > MAX_PIECES**2:
            raise Unread("too many pieces")
        found = []
        for one in left:
            for other in right:
                low, low_open = max((one.low, not one.low_closed), (other.low, not other.low_closed))
                high, high_closed = min((one.high, one.high_closed), (other.high, other.high_closed))
                if low < high or (low == high and not low_open and high_closed):
                    found.append(Piece(low, not low_open, high, high_closed))
        return found

    def whole(self, pieces: Pieces, natural: bool) -> Pieces:
        """The whole numbers in bounded pieces, each as a point; of the natural ones, zero is in doubt."""
        found: Pieces = []
        for piece in pieces:
            bounded = piece.low > -INFINITE and piece.high < INFINITE and piece.high - piece.low <= MAX_PIECES
            if not bounded or (natural and piece.low <= 0):
                raise Unread("too many whole numbers")
            values = map(exact, range(math.floor(piece.low), math.ceil(piece.high) + 1))
            found += self.both([piece], [Piece(value, True, value, True) for value in values])
        return found
