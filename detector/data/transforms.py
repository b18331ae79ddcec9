"""Training-time augmentation: images and their boxes, changed together and reproducibly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from detector.config import AugmentConfig
from detector.data.annotations import MIN_SIDE
from detector.data.coco import CocoDataset, Target
from detector.errors import ConfigError

# A box of which a crop leaves less than this share is dropped: nobody could tell what the rest belongs to.
MIN_VISIBLE = 0.1
# Images with a side of fewer pixels than this are not cropped.
MIN_CROP = 16


class Augment:
    """The transforms of an :class:`AugmentConfig`, in this order: photometric, scale jitter, IoU crop, flips.

    Called with an image (float32 [3, H, W] in 0..1) and a target as :class:`CocoDataset` gives them; returns the same,
    as new plain tensors. Boxes lie inside the new image; those that a crop cuts away are removed together with their
    labels, ``area`` and ``iscrowd``; ``area`` is scaled as the box is. Random numbers are PyTorch's, of the CPU.

    Raises:
        ConfigError: ``scale_jitter`` is not a range.
    """

    def __init__(self, config: AugmentConfig) -> None:
        if len(config.scale_jitter) != 2 or config.scale_jitter[0] > config.scale_jitter[1]:
            raise ConfigError(f"augment.scale_jitter={config.scale_jitter}: must be [low, high] with low <= high")
        self.config = config
        self.photometric = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        self.iou_crop = v2.RandomIoUCrop()

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """The augmented image and target; the arguments are left alone."""
        config = self.config
        picture, target = image, dict(target)
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=F.get_size(image))
        if _happens(config.photometric):
            picture = self.photometric(picture)
        low, high = config.scale_jitter
        if (low, high) != (1.0, 1.0):
            factor = float(torch.empty(()).uniform_(low, high))
            picture, boxes, target = rescale(picture, boxes, target, factor)
        # An IoU crop looks for objects and would search an empty image in vain; tiny images leave nothing to crop.
        if _happens(config.iou_crop) and len(boxes) and min(picture.shape[-2:]) >= MIN_CROP:
            before = areas(boxes)
            picture, boxes = self.iou_crop(picture, boxes)
            picture, boxes, target = _keep_visible(picture, boxes, target, before)
        if _happens(config.horizontal_flip):
            picture, boxes = F.horizontal_flip(picture), F.horizontal_flip(boxes)
        if _happens(config.vertical_flip):
            picture, boxes = F.vertical_flip(picture), F.vertical_flip(boxes)
        target["boxes"] = boxes.as_subclass(Tensor)
        return picture.contiguous(), target


def rescale(picture: Tensor, boxes: Tensor, target: Target, factor: float) -> tuple[Tensor, Tensor, Target]:
    """Resize by about ``factor`` (to whole pixels), then crop or pad to the old size at a random place.

    What is padded takes the image's mean colour. ``target`` loses the entries of boxes that are no longer visible.
    """
    height, width = picture.shape[-2:]
    new_height, new_width = max(1, round(height * factor)), max(1, round(width * factor))
    ratio = (new_height / height) * (new_width / width)
    picture = F.resize(picture, [new_height, new_width], antialias=True).clamp(0, 1)
    boxes = F.resize(boxes, [new_height, new_width])
    target = {**target, "area": target["area"] * ratio}
    top, left = _random_offset(new_height - height), _random_offset(new_width - width)
    pad_top, pad_left = _random_offset(height - new_height), _random_offset(width - new_width)
    before = areas(boxes)
    if new_height < height or new_width < width:
        padding = [pad_left, pad_top, max(0, width - new_width - pad_left), max(0, height - new_height - pad_top)]
        colour = picture.mean(dim=(-2, -1)).tolist()
        picture, boxes = F.pad(picture, padding, fill=colour), F.pad(boxes, padding)
    if new_height > height or new_width > width:
        picture, boxes = (F.crop(x, top, left, height, width) for x in (picture, boxes))
    return _keep_visible(picture, boxes, target, before)


def areas(boxes: Tensor) -> Tensor:
    """float32 [N]: width times height of boxes [N, 4] (x1, y1, x2, y2)."""
    plain = boxes.as_subclass(Tensor)
    return (plain[:, 2] - plain[:, 0]) * (plain[:, 3] - plain[:, 1])


def _keep_visible(picture: Tensor, boxes: Tensor, target: Target, before: Tensor) -> tuple[Tensor, Tensor, Target]:
    """Clip boxes to the picture and drop those that lost too much of their area ``before`` (float32 [N])."""
    boxes = F.clamp_bounding_boxes(boxes)
    plain = boxes.as_subclass(Tensor)
    # Nothing is cut: 1 up to rounding, whatever the size of the box.
    share = (areas(boxes) / before).clamp(0, 1)
    keep = (share >= MIN_VISIBLE) & (plain[:, 2:] - plain[:, :2] >= MIN_SIDE).all(dim=1)
    per_box = {name: target[name][keep] for name in ("labels", "iscrowd")}
    target = {**target, **per_box, "area": (target["area"] * share)[keep]}
    return picture, tv_tensors.wrap(plain[keep], like=boxes), target


def _random_offset(room: int) -> int:
    """0..room, both included; 0 if there is no room."""
    return int(torch.randint(room + 1, ())) if room > 0 else 0


def _happens(probability: float) -> bool:
    """True with this probability. Draws a number even if the answer is certain, so that switching one transform on or
    off leaves the numbers of the others alone."""
    return float(torch.rand(())) < probability


@contextmanager
def item_rng(*key: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator with ``key`` inside the block, and put back its state afterwards.

    Not ``torch.manual_seed``: that would reseed the CUDA generators as well, but only in the process that has them,
    so that training would depend on the number of loader processes.
    """
    generator = torch.default_generator
    state = generator.get_state()
    try:
        low, high = np.random.SeedSequence(key).generate_state(2)
        generator.manual_seed(int(low) | int(high) << 32)
        yield
    finally:
        generator.set_state(state)


class AugmentedDataset(Dataset[tuple[Tensor, Target]]):
    """A data set seen through an :class:`Augment`; items are asked for by (pass over the data, index).

    What happens to an image depends on (seed, pass, index) only: not on the other images of its batch, the number of
    loader processes or what was drawn before.
    """

    def __init__(self, dataset: CocoDataset, augment: Augment, seed: int) -> None:
        self.dataset = dataset
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        round_, index = key
        image, target = self.dataset[index]
        with item_rng(self.seed, round_, index):
            return self.augment(image, target)
