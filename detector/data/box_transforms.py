"""What becomes of the boxes of an image that is resized or cut."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detector.data.annotation_table import MIN_SIDE
from detector.data.coco import Target

# A box of which a crop, or what is pasted over it, leaves less than this share is dropped: nobody could tell what the
# rest belongs to.
MIN_VISIBLE = 0.1
PER_BOX = ("boxes", "labels", "area", "iscrowd")  # the entries of a target that have one value for each box


def select(target: Target, rows: Tensor) -> Target:
    """``target`` with the boxes that ``rows`` (bool or int64) picks."""
    return {**target, **{name: target[name][rows] for name in PER_BOX}}


def sides(boxes: Tensor) -> Tensor:
    """float32 [N, 2]: width and height of boxes [N, 4] (x1, y1, x2, y2)."""
    return boxes[:, 2:] - boxes[:, :2]


def inverted(boxes: Tensor) -> Tensor:
    """bool [N]: which of ``boxes`` [N, 4] have x2 < x1, y2 < y1 or a value that is not finite."""
    return ~((sides(boxes) >= 0).all(dim=1) & boxes.isfinite().all(dim=1))


def first_inverted(boxes: Tensor) -> str:
    """What is wrong with the first of :func:`inverted`, and its number from 0; "" if there is none."""
    wrong = inverted(boxes).nonzero().flatten().tolist()
    if not wrong:
        return ""
    box = [round(value, 2) for value in boxes[wrong[0]].tolist()]
    if not boxes[wrong[0]].isfinite().all():
        return f"a box that is not finite: box {wrong[0]} is {box}"
    return (f"a box with x2 < x1 or y2 < y1: box {wrong[0]} is {box}; boxes are x1, y1, x2, y2, and not x, y, width, "
            "height (xywh)")  # fmt: skip


def resize(image: Tensor, target: Target, height: int, width: int) -> tuple[Tensor, Target]:
    """The image (float32 [3, H, W]) as [3, height, width], with its boxes and areas."""
    y, x = height / image.shape[-2], width / image.shape[-1]
    image = F.resize(image, [height, width], antialias=True).clamp(0, 1)
    return image, {**target, "boxes": target["boxes"] * torch.tensor([x, y, x, y]), "area": target["area"] * (x * y)}


def crop(image: Tensor, target: Target, corner: tuple[int, int], height: int, width: int) -> tuple[Tensor, Target]:
    """The part of the image below and right of ``corner`` (top, left), with the boxes that are visible there."""
    top, left = corner
    boxes = target["boxes"] - torch.tensor([left, top, left, top])
    image = image[:, top : top + height, left : left + width]
    return image, keep_visible({**target, "boxes": boxes}, height, width, sides(boxes).prod(dim=1))


def keep_visible(target: Target, height: int, width: int, before: Tensor) -> Target:
    """``target`` with its boxes clipped to the image, without those that lost too much.

    Args:
        target: ``area`` is scaled as the area of the box is.
        height, width: of the image.
        before: float32 [N], area of each box before it was cut.
    """
    boxes = target["boxes"]
    boxes = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)
    share = (sides(boxes).prod(dim=1) / before).clamp(0, 1)  # if nothing is cut it is 1 up to rounding
    keep = (share >= MIN_VISIBLE) & (sides(boxes) >= MIN_SIDE).all(dim=1)
    return select({**target, "boxes": boxes, "area": target["area"] * share}, keep)
