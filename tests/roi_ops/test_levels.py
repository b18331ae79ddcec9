import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops.poolers import LevelMapper

from roi_ops.levels import assign_levels, infer_scales, level_range


@settings(deadline=None)
@given(st.lists(st.floats(0.0078125, 4000, width=32), min_size=4, max_size=40), st.integers(0, 5), st.integers(0, 4))
def test_agrees_with_torchvision_to_the_bit(numbers, k_min, more):
    boxes = torch.tensor(numbers[: len(numbers) // 4 * 4]).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    expected = LevelMapper(k_min, k_min + more)([boxes])
    assert torch.equal(assign_levels(boxes, k_min, k_min + more, 224, 4), expected)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_around_the_borders_between_levels(k):
    side = torch.tensor(224.0 * 2 ** (k - 4))
    sides = [side]
    for _ in range(40):
        sides = [torch.nextafter(sides[0], torch.tensor(0.0)), *sides, torch.nextafter(sides[-1], torch.tensor(1e9))]
    boxes = torch.stack([torch.stack([s * 0, s * 0, s, s]) for s in sides])
    assert torch.equal(assign_levels(boxes, 2, 5, 224, 4), LevelMapper(2, 5)([boxes]))


def test_boxes_that_are_none():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan, 0, 1, 1], [0, 0, inf, inf], [9, 0, 1, 300], [300, 300, 0, 0], [0, 0, 1e30, 1e30]])
    assert assign_levels(boxes, 2, 5, 224, 4).tolist() == [0, 0, -1, 2, 3]


def test_level_range():
    assert level_range([5.0]) == (0, 0)
    assert level_range([1 / 4, 1 / 8, 1 / 16, 1 / 32]) == (2, 5)
    assert level_range([1 / 32, 1 / 32]) == (5, 5)  # torchvision's MobileNet pyramids
    for scales in ([1 / 32, 1 / 4], [1 / 4, 1 / 16], [1 / 4, 1 / 4, 1 / 8], [0.25, 0.2, 0.125]):
        with pytest.raises(ValueError, match="each map half the size"):
            level_range(scales)


def test_scales_by_hand():
    # 800 x 1216: strides 4 and 32 exactly.
    assert infer_scales([(200, 304), (25, 38)], [(800, 1216)]) == [1 / 4, 1 / 32]
    # 33 x 150 padded to 64 x 160: the height alone would tell 2 / 33, stride 16.
    assert infer_scales([(2, 5)], [(33, 150)]) == [1 / 32]
    # A strip: its height says nothing.
    assert infer_scales([(1, 42)], [(5, 1333)]) == [1 / 32]
    # The largest image of the batch counts.
    assert infer_scales([(25, 38)], [(100, 100), (800, 1216)]) == [1 / 32]


def test_scales_that_cannot_be_inferred():
    with pytest.raises(ValueError, match="image_sizes is empty"):
        infer_scales([(2, 2)], [])
    with pytest.raises(ValueError, match="does not belong"):
        infer_scales([(8, 200)], [(800, 800)])
