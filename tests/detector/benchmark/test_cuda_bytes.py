"""Counted bytes against counts by hand."""

import pytest
import torch

from detector.benchmark import cuda_bytes_suite as suite
from detector.benchmark.workloads import Scene

# 56 pixels are 14 on the map of stride 4. Seven bins of two samples, at 2 p + 0.5 and 2 p + 1.5, read pixels 2 p to
# 2 p + 2: 21 loads of 15 pixels on each axis.
BOX = [torch.tensor([[0.0, 0.0, 56.0, 56.0]])]
LOADS, PIXELS, BINS = 21 * 21, 15 * 15, 7 * 7


def test_reach_of_an_axis():
    found = suite.reach(torch.tensor([0.0, 8.0, 100.0]), torch.tensor([14.0, 14.0, 14.0]), 32, 16)
    assert [column.tolist() for column in found] == [[21, 21, 0], [15, 15, 0], [1, 2, 0]]


@pytest.mark.parametrize(("size", "casts"), [(4, 0), (2, 6)])
def test_forward_and_backward_of_one_box(size, casts):
    scene = Scene((128, 128), 1)
    maps = scene.pyramid(1)
    cells = 32**2 + 16**2 + 8**2 + 4**2
    found = suite.forward("a", scene, maps, BOX, size)
    assert {key: value / 256 for key, value in found.items() if key != "workload"} == {
        "floor": pytest.approx((PIXELS + BINS) * size),
        "once_per_roi": (PIXELS + BINS) * size,
        "asked_for": (LOADS + BINS) * size,
        "written": BINS * size,
        "torchvision": BINS * 16 * 4 + BINS * 4 + casts * (cells + BINS),
    }
    found = suite.backward("b", scene, maps, BOX, size)
    assert {key: value / 256 for key, value in found.items() if key != "workload"} == {
        "floor": pytest.approx((cells + BINS) * size),
        "once_per_roi": (cells + BINS) * size,
        "asked_for": (cells + BINS) * size,  # one tile stages all of its gradients
        "written": cells * size,
        "torchvision": BINS * 16 * 4 + BINS * 4 + cells * 4 + casts * (cells + BINS),
    }


def test_a_gradient_is_staged_by_every_tile_that_its_box_is_on():
    scene = Scene((128, 128), 1)
    maps, across = scene.pyramid(1), [torch.tensor([[32.0, 0.0, 88.0, 56.0]])]  # columns 8 to 22 of the finest map
    one, two = (suite.backward("b", scene, maps, boxes, 4)["asked_for"] for boxes in (BOX, across))
    assert two - one == BINS * 4 * 256
