"""Batches of other people's loaders."""

import pytest
import torch
from torchvision import tv_tensors

from detector.exceptions import DataError
from detector.training.batches import checked, images_of, size_of, without_crowds

IMAGES = [torch.zeros(3, 8, 9), torch.zeros(3, 7, 5)]
BOX = [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("batch", [IMAGES, (IMAGES, [{}, {}]), (tuple(IMAGES), ({}, {})), [IMAGES, [{}, {}]]])
def test_images_in_any_form(batch):
    assert [image.shape for image in images_of(batch)] == [(3, 8, 9), (3, 7, 5)]


def test_stacked_images():
    stacked = torch.zeros(4, 3, 8, 8)
    for batch in (stacked, (stacked, [{}] * 4)):
        assert [image.shape for image in images_of(batch)] == [(3, 8, 8)] * 4


@pytest.mark.parametrize(
    "batch", [torch.zeros(5, 2), (torch.zeros(5, 2), torch.zeros(5)), {"a": torch.zeros(5)}, ([0] * 5, [0] * 5)]
)
def test_size_of_any_batch(batch):
    assert size_of(batch) == 5


def test_targets_become_plain_tensors():
    boxes = tv_tensors.BoundingBoxes(torch.tensor(BOX, dtype=torch.float64), format="XYXY", canvas_size=(9, 9))
    (found,) = checked([{"boxes": boxes, "labels": torch.tensor([2], dtype=torch.int32), "x": 1}], ["a", "b"])
    assert type(found["boxes"]) is torch.Tensor
    assert (found["boxes"].dtype, found["labels"].dtype, found["x"]) == (torch.float32, torch.int64, 1)
    (empty,) = checked([{"boxes": torch.zeros(0), "labels": torch.zeros(0)}], ["a"])
    assert empty["boxes"].shape == (0, 4)
    assert checked([], ["a"]) == without_crowds([]) == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"boxes": BOX, "labels": [0], "image_id": 7}, r"image 7 has labels from 0 to 0.*a, b are 1\.\.2"),
        ({"boxes": BOX, "labels": [3]}, "labels from 3 to 3"),
        ({"boxes": BOX, "labels": [3], "image_id": "a.jpg"}, r"image a\.jpg has labels from 3 to 3"),
        ({"boxes": BOX, "labels": [1, 2]}, "1 boxes and 2 labels"),
        ({"bbox": BOX, "labels": [1]}, "no boxes, but bbox, labels"),
        # x, y, width, height: of the first box these happen to look like corners.
        (
            {"boxes": [[5.0, 5, 30, 40], [30.0, 5, 5, 40]], "labels": [1, 2], "image_id": 7},
            r"image 7 .*box 1 is \[30\.0, 5\.0, 5\.0, 40\.0\].*xywh",
        ),
        ({"boxes": [[5.0, 41, 5, 40]], "labels": [1]}, r"an image .*box 0 is \[5\.0, 41\.0.*xywh"),
        ({"boxes": [[5.0, 5, float("nan"), 40]], "labels": [1], "image_id": 7}, "image 7 .*not finite.*box 0"),
        ({"boxes": [[5.0, 5, 9, float("inf")]], "labels": [1]}, "not finite"),
    ],
)
def test_targets_that_cannot_be_used(target, words):
    given = {key: torch.tensor(value) if key != "image_id" else value for key, value in target.items()}
    with pytest.raises(DataError, match=words):
        checked([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}, given], ["a", "b"])


def test_a_box_without_area_stays():
    """The network leaves it out, as those that lose their area when an image is resized."""
    (found,) = checked([{"boxes": torch.tensor([[5.0, 5, 5, 40]]), "labels": torch.tensor([1])}], ["a"])
    assert found["boxes"].tolist() == [[5, 5, 5, 40]]


def test_crowds_are_left_out():
    target = {"boxes": torch.arange(8.0).reshape(2, 4), "labels": torch.tensor([1, 2]), "area": torch.tensor([5, 6]),
              "iscrowd": torch.tensor([1, 0]), "size": torch.tensor([9, 9])}  # fmt: skip
    plain = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([1])}
    found, same = without_crowds([target, plain])
    assert found["boxes"].tolist() == [[4, 5, 6, 7]]
    assert (found["labels"].tolist(), found["area"].tolist(), found["size"].tolist()) == ([2], [6], [9, 9])
    assert same is plain
    (kept,) = without_crowds([{**target, "iscrowd": torch.tensor([0, 0])}])
    assert kept["boxes"] is target["boxes"]
