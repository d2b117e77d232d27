"""The points that a step passes, and the plane that holds them."""

import pytest
import torch

from sfpo.algorithms.trajectory import Plane, put_, record_step
from sfpo.algorithms.update_rules import Update, make_update_rule
from sfpo.types import OldPolicy, TrainBatch


class Mover:
    """A policy whose passes move its three weights by these amounts, one after another."""

    def __init__(self, *moves):
        self.weight, self.moves = torch.zeros(3), iter(moves)

    def parameters(self):
        return [self.weight]

    def descend(self, batch, observe=None):
        self.weight += torch.tensor(next(self.moves))
        return Update({"loss": 0.0}, batch.old)


def places(points):
    return [(point.move, point.weights[0].tolist()) for point in points]


@pytest.fixture
def batch():
    return TrainBatch([[1], [1]], [[2], [3]], torch.tensor([1.0, -1.0]), OldPolicy(torch.zeros(2), 0.5), 2)


def test_the_points_of_an_sfpo_step(batch):
    # K = 2: (0,0,0) -> (2,0,0) -> (2,2,0); alpha 0.5 puts it at (1,1,0); the correction adds (0,0,1).
    policy = Mover([2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0])
    points, report = record_step(make_update_rule("sfpo", num_fast_steps=2, alpha=0.5), policy, batch)
    assert places(points) == [
        ("start", [0, 0, 0]),
        ("pass", [2, 0, 0]),
        ("pass", [2, 2, 0]),
        ("reposition", [1, 1, 0]),
        ("pass", [1, 1, 1]),
    ]
    assert report.backward_passes == 3 and policy.weight.tolist() == [1, 1, 1]


def test_rules_without_a_reposition_and_with_one_at_the_end(batch):
    points, _ = record_step(make_update_rule("grpo"), Mover([1.0, 0.0, 0.0]), batch)
    assert places(points) == [("start", [0, 0, 0]), ("pass", [1, 0, 0])]
    off, _ = record_step(make_update_rule("sfpo", alpha=0.0), Mover([1.0, 0.0, 0.0]), batch)  # alpha 0 is GRPO
    assert places(off) == places(points)
    points, _ = record_step(make_update_rule("lookahead", num_fast_steps=1, alpha=0.5), Mover([4.0, 0.0, 0.0]), batch)
    assert places(points) == [("start", [0, 0, 0]), ("pass", [4, 0, 0]), ("reposition", [2, 0, 0])]


def test_the_plane_holds_the_largest_movements():
    # From (1,1,1): 4 along the first weight, 3 along the second, 1 along the third; squares 16, 9, 1 of 26.
    origin = [torch.ones(3)]
    moves = ([0.0, 0.0, 1.0], [0.0, 3.0, 0.0], [-4.0, 0.0, 0.0])
    plane = Plane.through(origin, [[origin[0] + torch.tensor(move)] for move in moves], lambda tensor: tensor)
    assert plane.share == pytest.approx(25 / 26)
    # The last point lies to the right, so the first axis is minus the first weight; the farthest of the others above.
    expected = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(plane.coordinates, expected, atol=1e-6)
    weights = torch.zeros(3)
    plane.place_([weights], 2.0, 5.0)
    assert torch.allclose(weights, torch.tensor([1.0 - 2.0, 1.0 + 5.0, 1.0]), atol=1e-5)
    put_([weights], origin)
    assert weights.tolist() == [1, 1, 1]


def test_axes_of_a_slanted_plane_are_orthonormal_over_all_tensors():
    generator = torch.Generator().manual_seed(0)
    origin = [torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator)]
    one, two = ([torch.randn(tensor.shape, generator=generator) for tensor in origin] for _ in range(2))
    points = [[o + a * x + b * y for o, x, y in zip(origin, one, two, strict=True)] for a, b in ((1, 0), (0, 1), (1, 2))]
    plane = Plane.through(origin, points, lambda tensor: tensor)
    assert plane.share == pytest.approx(1.0, abs=1e-6)
    flat = [torch.cat([tensor.flatten() for tensor in axis]) for axis in plane.axes]
    for i in range(2):
        for j in range(2):
            assert torch.dot(flat[i], flat[j]).item() == pytest.approx(float(i == j), abs=1e-5)
    placed = [torch.zeros_like(tensor) for tensor in origin]
    plane.place_(placed, *plane.coordinates[2].tolist())
    assert all(torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(placed, points[2], strict=True))


def test_points_on_a_line_have_no_second_direction():
    plane = Plane.through([torch.zeros(2)], [[torch.tensor([3.0, 4.0])], [torch.tensor([6.0, 8.0])]], lambda tensor: tensor)
    assert plane.share == pytest.approx(1.0)
    expected = torch.tensor([[5.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(plane.coordinates, expected)
    weights = torch.ones(2)
    plane.place_([weights], 5.0, 7.0)
    assert torch.allclose(weights, torch.tensor([3.0, 4.0]))
    with pytest.raises(ValueError, match="the weights did not change"):
        Plane.through([torch.zeros(2)], [[torch.zeros(2)], [torch.zeros(2)]], lambda tensor: tensor)
