"""Augmentation that puts several images together: mosaic, and objects pasted from another image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detector.data.box_transforms import MIN_VISIBLE, PER_BOX, crop, resize, select, sides
from detector.data.coco import Target

DrawSample = Callable[[], tuple[Tensor, Target]]  # a random image of the data set with its target


def mosaic(image: Tensor, target: Target, draw_sample: DrawSample) -> tuple[Tensor, Target]:
    """One image of four: this one and three others around a random point, each resized to cover its part.

    The size of ``image`` stays. The point lies in the middle half of it. Each image is resized, keeping its shape,
    until it covers its part, and cut to it at a random position; boxes of which less than a tenth is left are dropped.
    (Bochkovskiy et al., YOLOv4, 2020. There images keep their scale on a canvas of twice the size, most of which a
    crop then throws away.)

    Args:
        image: float32 [3, H, W].
        target: as :class:`DetectionDataset` gives it.
        draw_sample: draws an image of the data set with its target.
    """
    height, width = image.shape[-2:]
    if min(height, width) < 4:
        return image, target
    x = int(torch.randint(width // 4, width - width // 4, ()))
    y = int(torch.randint(height // 4, height - height // 4, ()))
    canvas, targets = torch.empty_like(image), []
    parts = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    own = int(torch.randint(4, ()))  # the part of the image itself
    for number, (left, top, right, bottom) in enumerate(parts):
        part, boxes = (image, target) if number == own else draw_sample()
        part, boxes = cover(part, boxes, bottom - top, right - left)
        canvas[:, top:bottom, left:right] = part
        targets.append({**boxes, "boxes": boxes["boxes"] + torch.tensor([left, top, left, top])})
    return canvas, {**target, **{name: torch.cat([t[name] for t in targets]) for name in PER_BOX}}


def cover(image: Tensor, target: Target, height: int, width: int) -> tuple[Tensor, Target]:
    """``image`` resized to just cover ``height`` x ``width`` and cut to that at a random position, with its boxes."""
    old_height, old_width = image.shape[-2:]
    factor = max(height / old_height, width / old_width)
    new_height, new_width = max(height, round(old_height * factor)), max(width, round(old_width * factor))
    image, target = resize(image, target, new_height, new_width)
    top, left = (int(torch.randint(room + 1, ())) for room in (new_height - height, new_width - width))
    return crop(image, target, (top, left), height, width)


def copy_paste(image: Tensor, target: Target, source: Tensor, objects: Target) -> tuple[Tensor, Target]:
    """Some boxes of another image, with all that they show, pasted into this one at random positions.

    At least one, at most all; each at 0.5 to 1.5 of its size, as far as the image has room, and over what was pasted
    before. An object that less than a tenth is left of is dropped; the box and area of one that is partly covered stay,
    as annotators draw boxes around what can be inferred. Crowd regions are not pasted. (Dwibedi et al., Cut, Paste and
    Learn, 2017; Ghiasi et al., Simple Copy-Paste, 2021, paste along masks, which boxes do not have.)

    Args:
        image, target: to paste into; they are left alone.
        source, objects: to paste from.
    """
    usable = torch.nonzero((objects["iscrowd"] == 0) & (sides(objects["boxes"].round()) >= 1).all(dim=1)).flatten()
    if not len(usable):
        return image, target
    count = int(torch.randint(1, len(usable) + 1, ()))
    chosen = usable[torch.randperm(len(usable))[:count]]
    image = image.clone()
    height, width = image.shape[-2:]
    # Which object is on top in each pixel: 0 none, else 1 + its number among the pasted ones.
    owner = torch.zeros(height, width, dtype=torch.int64)
    pasted = []
    for number, row in enumerate(chosen.tolist(), 1):
        x1, y1, x2, y2 = objects["boxes"][row].round().int().tolist()
        patch = source[:, y1:y2, x1:x2]
        old_height, old_width = patch.shape[-2:]
        factor = min(float(torch.empty(()).uniform_(0.5, 1.5)), height / old_height, width / old_width)
        new_height, new_width = max(1, int(old_height * factor)), max(1, int(old_width * factor))
        top = int(torch.randint(height - new_height + 1, ()))
        left = int(torch.randint(width - new_width + 1, ()))
        rows, columns = slice(top, top + new_height), slice(left, left + new_width)
        image[:, rows, columns] = F.resize(patch, [new_height, new_width], antialias=True).clamp(0, 1)
        owner[rows, columns] = number
        # The object's box in the patch is the whole patch, up to the rounding to pixels.
        box = torch.tensor([left, top, left + new_width, top + new_height], dtype=torch.float32)
        ratio = sides(box[None]).prod() / sides(objects["boxes"][row][None]).prod()
        pasted.append({**select(objects, torch.tensor([row])), "boxes": box[None]})
        pasted[-1]["area"] = pasted[-1]["area"] * ratio
    own = visible(owner, target["boxes"], 0) >= MIN_VISIBLE
    new = {name: torch.cat([p[name] for p in pasted]) for name in PER_BOX}
    seen = torch.cat([visible(owner, b[None], number) for number, b in enumerate(new["boxes"], 1)])
    new = select(new, seen >= MIN_VISIBLE)
    kept = select(target, own)
    return image, {**kept, **{name: torch.cat([kept[name], new[name]]) for name in PER_BOX}}


def visible(owner: Tensor, boxes: Tensor, number: int) -> Tensor:
    """float32 [N]: the share of each box's pixels that ``owner`` (int64 [H, W]) gives to ``number``."""
    shares = []
    for x1, y1, x2, y2 in boxes.tolist():
        part = owner[int(y1) : max(int(y1) + 1, round(y2)), int(x1) : max(int(x1) + 1, round(x2))]
        shares.append((part == number).float().mean())
    return torch.stack(shares) if shares else torch.zeros(0)
