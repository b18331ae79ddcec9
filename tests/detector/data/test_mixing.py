"""Mosaic and copy-paste: boxes, labels, areas and crowd flags stay with what they are of."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from detector.config.defaults import default
from detector.config.schema import AugmentConfig
from detector.data.box_transforms import MIN_VISIBLE
from detector.data.mixing import copy_paste, cover, mosaic, visible
from detector.data.transforms import Augment, AugmentedDataset, item_rng

BACKGROUND = 0.25


def scene(boxes, height=80, width=100, first=1, crowd=()):
    """An image of a flat background in which box i is filled with the colour of label ``first + i``, and its target."""
    image = torch.full((3, height, width), BACKGROUND)
    labels = torch.arange(first, first + len(boxes))
    for (x1, y1, x2, y2), label in zip(boxes, labels.tolist(), strict=True):
        image[:, y1:y2, x1:x2] = colour(label)
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    target = {
        "boxes": tensor,
        "labels": labels,
        "image_id": torch.tensor(first),
        "area": (tensor[:, 2:] - tensor[:, :2]).prod(dim=1) / 2,
        "iscrowd": torch.tensor([int(i in crowd) for i in range(len(boxes))], dtype=torch.int64),
    }
    return image, target


def colour(label):
    return 0.5 + 0.04 * (label % 11)


def check(image, target, height, width):
    assert image.shape == (3, height, width)
    assert image.min() >= 0
    assert image.max() <= 1
    boxes, count = target["boxes"], len(target["labels"])
    assert boxes.shape == (count, 4)
    assert (boxes.dtype, target["area"].dtype) == (torch.float32, torch.float32)
    assert target["labels"].dtype == target["iscrowd"].dtype == torch.int64
    assert len(target["area"]) == len(target["iscrowd"]) == count
    assert (boxes >= 0).all()
    assert (boxes[:, 0::2] <= width).all()
    assert (boxes[:, 1::2] <= height).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def inside(image, box):
    """The pixels that lie in the box and not at its edge, where resizing mixes."""
    x1, y1, x2, y2 = box.tolist()
    return image[:, int(y1) + 3 : int(y2) - 3, int(x1) + 3 : int(x2) - 3]


@st.composite
def box_lists(draw, most=3, height=80, width=100):
    boxes = []
    for _ in range(draw(st.integers(0, most))):
        x1, y1 = draw(st.integers(0, width - 22)), draw(st.integers(0, height - 22))
        boxes.append([x1, y1, draw(st.integers(x1 + 20, width)), draw(st.integers(y1 + 20, height))])
    return boxes


@given(st.lists(box_lists(), min_size=4, max_size=4), st.integers(0, 2**32))
def test_mosaic_keeps_the_contract_and_halves_of_areas(lists, seed):
    scenes = [
        scene(boxes, 80 + 7 * i, 100 - 9 * i, 1 + 10 * i, crowd=(0,))
        for i, boxes in enumerate(
            [[[x1, y1, min(x2, 70), y2] for x1, y1, x2, y2 in boxes if x1 < 50] for boxes in lists]
        )
    ]
    rest = iter(scenes[1:])
    with item_rng(seed):
        image, target = mosaic(*scenes[0], lambda: next(rest))
    check(image, target, 80, 100)
    assert int(target["image_id"]) == 1
    crowds = {int(t["labels"][0]) for _, t in scenes if len(t["labels"])}
    assert [label in crowds for label in target["labels"].tolist()] == target["iscrowd"].bool().tolist()
    area = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(dim=1)
    torch.testing.assert_close(target["area"], area / 2, rtol=1e-3, atol=1e-2)


@given(st.integers(0, 2**32))
def test_each_box_of_a_mosaic_shows_its_object(seed):
    scenes = [scene([[20, 15, 80, 65]], first=1 + 3 * i) for i in range(4)]
    rest = iter(scenes[1:])
    with item_rng(seed):
        image, target = mosaic(*scenes[0], lambda: next(rest))
    assert set(target["labels"].tolist()) == {1, 4, 7, 10}  # three fifths wide, so no crop misses it
    for box, label in zip(target["boxes"], target["labels"].tolist(), strict=True):
        pixels = inside(image, box)
        torch.testing.assert_close(pixels, torch.full_like(pixels, colour(label)), atol=1e-5, rtol=0)


@given(box_lists(1), st.integers(4, 90), st.integers(4, 90), st.integers(0, 2**32))
def test_cover_leaves_what_is_visible(boxes, height, width, seed):
    assume(boxes)
    with item_rng(seed):
        image, target = cover(*scene(boxes), height, width)
    assert image.shape == (3, height, width)
    bright = (image[0] > (BACKGROUND + colour(1)) / 2).nonzero()
    if not len(target["boxes"]):
        factor = max(height / 80, width / 100)
        whole = factor**2 * (boxes[0][2] - boxes[0][0]) * (boxes[0][3] - boxes[0][1])
        assert len(bright) <= (MIN_VISIBLE + 0.03) * whole + 2 * (height + width) or min(height, width) < 8
        return
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    if len(bright):
        (low_y, low_x), (high_y, high_x) = bright.min(0).values.tolist(), (bright.max(0).values + 1).tolist()
        assert (low_x, low_y, high_x, high_y) == pytest.approx((x1, y1, x2, y2), abs=1.5)


@given(box_lists(), box_lists(), st.integers(0, 2**32))
def test_copy_paste_keeps_the_contract_and_shows_the_objects(own, other, seed):
    (image, target), (source, objects) = scene(own), scene(other, 60 + 20, 100, first=5, crowd=(1,))
    before = image.clone()
    with item_rng(seed):
        new_image, new = copy_paste(image, target, source, objects)
    assert torch.equal(image, before)
    check(new_image, new, 80, 100)
    assert 6 not in new["labels"].tolist()  # the crowd region
    if not any(i != 1 for i in range(len(other))):
        assert torch.equal(new_image, image)
    # Boxes of this image are as they were, or gone.
    kept = new["labels"] < 5
    rows = new["labels"][kept] - 1
    for name in ("boxes", "area", "iscrowd"):
        assert torch.equal(new[name][kept], target[name][rows])
    # A pasted one has the share of its box that it had.
    pasted = new["boxes"][~kept]
    torch.testing.assert_close(new["area"][~kept], (pasted[:, 2:] - pasted[:, :2]).prod(dim=1) / 2)


@given(st.integers(0, 2**32))
def test_one_pasted_object_is_where_its_box_is(seed):
    image, target = scene([])
    with item_rng(seed):
        new_image, new = copy_paste(image, target, *scene([[10, 20, 60, 50]], first=7))
    assert new["labels"].tolist() == [7]
    x1, y1, x2, y2 = (int(v) for v in new["boxes"][0])
    expected = image.clone()
    expected[:, y1:y2, x1:x2] = colour(7)
    torch.testing.assert_close(new_image, expected)
    assert 24 <= x2 - x1 <= 75
    assert 14 <= y2 - y1 <= 45


def test_an_object_that_is_covered_is_dropped():
    """The pasted object fills the image, whatever the factor, as there is no room for a smaller share."""
    source, objects = scene([[0, 0, 400, 320]], 320, 400, first=9)
    image, target = scene([[30, 30, 50, 50]])
    with item_rng(1):
        new_image, new = copy_paste(image, target, source, objects)
    assert new["labels"].tolist() == [9]
    assert new["boxes"].tolist() == [[0, 0, 100, 80]]
    torch.testing.assert_close(new_image, torch.full_like(image, colour(9)))


def test_visible_by_hand():
    owner = torch.zeros(10, 10, dtype=torch.int64)
    owner[:5] = 1
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [2, 4, 4, 8]])
    assert visible(owner, boxes, 0).tolist() == [0.5, 0, 0.75]
    assert visible(owner, boxes, 1).tolist() == [0.5, 1, 0.25]
    assert visible(owner, boxes[:0], 1).tolist() == []


class Scenes:
    """Four images as a data set."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return scene([[20, 15, 80, 65]], first=1 + 3 * index)


def test_mixing_depends_on_the_seed_and_the_key_only():
    off = {"horizontal_flip": 0.0}
    plain, mixed = (
        AugmentedDataset(Scenes(), Augment(default(AugmentConfig, **off, **keys)), seed=3)
        for keys in ({}, {"mosaic": 1.0, "copy_paste": 1.0})
    )
    results = [mixed[draw, 1] for draw in (0, 0, 1)]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1]["boxes"], results[1][1]["boxes"])
    assert not torch.equal(results[0][0], results[2][0])
    assert torch.equal(plain[0, 1][0], Scenes()[1][0])


def test_objects_that_round_to_no_pixel_are_not_pasted():
    """Both sides of this box round to 1, but its corners to the same pixel."""
    image, target = scene([])
    source, objects = scene([])
    box = torch.tensor([[10.6, 20.6, 11.2, 21.2]])
    objects |= {"boxes": box, "labels": torch.ones(1, dtype=torch.int64), "area": torch.ones(1)}
    objects["iscrowd"] = torch.zeros(1, dtype=torch.int64)
    assert copy_paste(image, target, source, objects) == (image, target)
