"""From images to the network's batch."""

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector.models.preprocessing import DetectionTransform


def transform(min_size, **keys):
    return DetectionTransform(min_size, 400, [0.0] * 3, [1.0] * 3, **keys)


def test_one_short_side_a_batch():
    """Every image of a batch gets the same of the configured sizes; over many batches all of them occur."""
    resize = transform([32, 64, 96]).train()
    torch.manual_seed(0)
    seen = set()
    for _ in range(30):
        batch, _ = resize([torch.rand(3, 50, 60) for _ in range(4)])
        assert len(set(batch.image_sizes)) == 1
        seen.add(batch.image_sizes[0][0])
    assert seen == {32, 64, 96}


def test_evaluation_takes_the_last_size():
    batch, _ = transform([32, 96, 64]).eval()([torch.rand(3, 50, 60)])
    assert batch.image_sizes == [(64, 76)]


def test_size_is_a_function_of_the_seed():
    resize = transform(list(range(32, 96))).train()
    sizes = []
    for _ in range(2):
        torch.manual_seed(9)
        sizes.append([resize([torch.rand(3, 40, 40)])[0].image_sizes for _ in range(5)])
    assert sizes[0] == sizes[1]


def test_boxes_without_area_after_resizing_are_dropped():
    """A box one float32 step wide, below x = 1024, has no width left once scaled to where steps are twice as long."""
    left = torch.tensor(1023.99993896484375)  # the largest float32 below 1024
    boxes = torch.tensor([[left - 6.103515625e-05, 1, left, 9], [1, 1, 9, 9], [4, 2, 8, 6]])
    scaled = boxes[0, [0, 2]] * (1600 / 1200)
    assert boxes[0, 0] < boxes[0, 2]
    assert scaled[0] == scaled[1]
    target = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "image_id": torch.tensor(7), "area": torch.ones(3)}
    resize = DetectionTransform([16], 1600, [0.0] * 3, [1.0] * 3).train()
    _, (resized,) = resize([torch.rand(3, 12, 1200)], [target])
    assert resized["labels"].tolist() == [2, 3]
    assert resized["area"].shape == (2,)
    assert resized["image_id"] == 7
    assert target["boxes"].shape == (3, 4)  # the caller's target is left alone


@pytest.mark.parametrize(
    ("shape", "resized"),
    [((1, 3000), (1, 400)), ((3000, 1), (400, 1)), ((1, 1), (32, 32)), ((2, 1000), (1, 400)), ((7, 5), (44, 32))],
)
def test_a_thin_image_keeps_a_pixel(shape, resized):
    """The long side becomes at most 400, the short one 32: 1 x 3000 would be 0.13 pixels high."""
    boxes = torch.tensor([[0.0, 0.0, shape[1], shape[0]]])
    for mode in (True, False):
        batch, (target,) = transform([32]).train(mode)([torch.rand(3, *shape)], [{"boxes": boxes}])
        assert batch.image_sizes == [resized]
        torch.testing.assert_close(target["boxes"], torch.tensor([[0.0, 0.0, resized[1], resized[0]]]))


@pytest.mark.parametrize("shape", [(50, 60), (33, 401), (799, 31), (123, 457)])
def test_resizing_is_that_of_torchvision(shape):
    arguments = [48], 400, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]
    target = {"boxes": torch.tensor([[1.0, 2.0, 20.0, 30.0]])}
    image = torch.rand(3, *shape)
    batch, (own,) = DetectionTransform(*arguments).eval()([image], [target])
    expected, (theirs,) = GeneralizedRCNNTransform(*arguments).eval()([image], [target])
    assert torch.equal(batch.tensors, expected.tensors)
    assert batch.image_sizes == [tuple(size) for size in expected.image_sizes]
    assert torch.equal(own["boxes"], theirs["boxes"])


def test_memory_format():
    images = [torch.rand(3, 40, 50), torch.rand(3, 33, 60)]
    plain, _ = transform([32]).eval()(images)
    last, _ = transform([32], channels_last=True).eval()(images)
    assert last.tensors.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.tensors, last.tensors)
