"""Training-time augmentation: images and their boxes, changed together and reproducibly."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from detector.config.schema import AugmentConfig
from detector.config.targets import build_all
from detector.data.box_transforms import crop, keep_visible, resize, sides
from detector.data.coco import DetectionDataset, Target
from detector.data.mixing import DrawSample, copy_paste, mosaic
from detector.data.own_transforms import OwnTransform, wrapped
from detector.exceptions import ConfigError, TransformError
from detector.models.seeding import seed_of, seeded

Step = Callable[[Tensor, Target], tuple[Tensor, Target]]

# Images with a side of fewer pixels than this are not cropped.
MIN_CROP = 16
FIRST_OWN = 8  # the sequence of random numbers of the first of the user's transforms


class Augment:
    """The transforms of an :class:`AugmentConfig`, in this order: mosaic, copy-paste, photometric, scale jitter, IoU
    crop, large-scale jitter, flips, and the user's own ``transforms``.

    Called with an image (float32 [3, H, W] in 0..1) and a target as :class:`DetectionDataset` gives them, and a
    function that draws another sample for the transforms that need one; without it they are left out. Returns an image
    and a target, as new plain tensors. Boxes lie inside the new image. A box that a crop cuts away is removed together
    with its label, ``area`` and ``iscrowd``; ``area`` is scaled as the box is.

    Random numbers are PyTorch's, of the CPU. Each transform has a sequence of its own, so switching one on or off
    leaves alone what the others do.

    Raises:
        ConfigError: ``scale_jitter`` or ``large_scale`` is not a range; one of ``transforms`` cannot be built.
        TransformError: when called, if one of ``transforms`` fails.
    """

    def __init__(self, config: AugmentConfig) -> None:
        for key in ("scale_jitter", "large_scale"):
            value = getattr(config, key)
            if len(value) != 2 or value[0] > value[1]:
                raise ConfigError(f"augment.{key}={value}: must be [low, high] with low <= high")
        self.config = config
        self.colours = v2.ColorJitter(config.brightness, config.contrast, config.saturation)
        self.crop = v2.RandomIoUCrop()
        key = "augment.transforms"
        self.own = [
            OwnTransform(transform, f"{key}[{number}]: {config.transforms[number]['_target_']}")
            for number, transform in enumerate(build_all(config.transforms, key, returns=Callable))  # type: ignore[arg-type]
        ]

    def __call__(self, image: Tensor, target: Target, draw_sample: DrawSample | None = None) -> tuple[Tensor, Target]:
        """The augmented image and target; the arguments are left alone."""
        config = self.config
        target = dict(target)
        seed = int(torch.randint(2**62, ()))
        if draw_sample is not None:
            with item_rng(seed, 6):
                if float(torch.rand(())) < config.mosaic:
                    image, target = mosaic(image, target, draw_sample)
            with item_rng(seed, 7):
                if float(torch.rand(())) < config.copy_paste:
                    image, target = copy_paste(image, target, *draw_sample())
        # The numbers are those of the sequences, which a new transform leaves as they were.
        steps: tuple[tuple[int, float, Step], ...] = (
            (0, config.photometric, self.photometric),
            (1, config.scale_jitter != [1.0, 1.0], self.scale_jitter),
            (2, config.iou_crop, self.iou_crop),
            (5, config.large_scale != [1.0, 1.0], self.large_scale),
            (3, config.horizontal_flip, partial(flip, F.horizontal_flip)),
            (4, config.vertical_flip, partial(flip, F.vertical_flip)),
        )
        for number, probability, step in steps:
            with item_rng(seed, number):
                if float(torch.rand(())) < probability:
                    image, target = step(image, target)
        for number, own in enumerate(self.own, FIRST_OWN):
            with item_rng(seed, number):
                image, target = own(image, target)
        return image.contiguous(), target

    def photometric(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Change brightness, contrast, saturation (in random order) and hue."""
        image = self.colours(image)
        if self.config.hue:
            image = turn_hue(image, float(torch.empty(()).uniform_(-self.config.hue, self.config.hue)))
        return image, target

    def scale_jitter(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Resize by a random factor and keep the size of the image."""
        return rescale(image, target, float(torch.empty(()).uniform_(*self.config.scale_jitter)))

    def large_scale(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Resize by a random factor of what fits into the square of ``crop_size``, and crop or pad to that."""
        side = self.config.crop_size
        fits = min(side / image.shape[-2], side / image.shape[-1])
        factor = fits * float(torch.empty(()).uniform_(*self.config.large_scale))
        return rescale(image, target, factor, (side, side))

    def iou_crop(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Crop as SSD does, and keep the boxes whose centre is in the crop."""
        # The crop looks for objects and would search an empty image in vain; tiny images leave nothing to crop.
        if len(target["boxes"]) == 0 or min(image.shape[-2:]) < MIN_CROP:
            return image, target
        before = sides(target["boxes"]).prod(dim=1)
        image, boxes = self.crop(image, wrapped(target["boxes"], image))
        height, width = image.shape[-2:]
        return image, keep_visible({**target, "boxes": boxes.as_subclass(Tensor)}, height, width, before)


def flip(function: Callable[[Tensor], Tensor], image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """The image and its boxes flipped by a function of torchvision."""
    return function(image), {**target, "boxes": function(wrapped(target["boxes"], image)).as_subclass(Tensor)}


def turn_hue(image: Tensor, turn: float) -> Tensor:
    """Turn the colours of ``image`` (float32 [3, H, W] in 0..1) about the grey axis by ``turn`` of a full circle.

    Keeps the mean of the channels and the distance from grey, which a change of hue in HSV does not; for thirds of
    a circle the two are the same. And the way to HSV and back takes longer than reading the image
    (``v2.functional.adjust_hue``: 23 ms for 640 x 480; this: 2 ms).
    """
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rest = (1 - cos) / 3  # Rodrigues' rotation about (1, 1, 1) / sqrt(3)
    own, next_, last = cos + rest, rest - sin / math.sqrt(3), rest + sin / math.sqrt(3)
    return (own * image + next_ * image.roll(-1, 0) + last * image.roll(-2, 0)).clamp_(0, 1)


def rescale(image: Tensor, target: Target, factor: float, size: tuple[int, int] | None = None) -> tuple[Tensor, Target]:
    """Resize by about ``factor`` (to whole pixels), then crop or pad to ``size`` at a random position.

    The padding has the mean colour of the image. ``target`` loses the boxes that are no longer visible.

    Args:
        image: float32 [3, H, W].
        target: of the image.
        factor: of height and width.
        size: (height, width) of the result; None: as before.
    """
    old_height, old_width = image.shape[-2:]
    height, width = size or (old_height, old_width)
    new_height, new_width = max(1, round(old_height * factor)), max(1, round(old_width * factor))
    image, target = resize(image, target, new_height, new_width)
    top, left = _random_offset(new_height - height), _random_offset(new_width - width)
    pad_top, pad_left = _random_offset(height - new_height), _random_offset(width - new_width)
    if new_height < height or new_width < width:
        padding = [pad_left, pad_top, max(0, width - new_width - pad_left), max(0, height - new_height - pad_top)]
        image = F.pad(image, padding, fill=image.mean(dim=(-2, -1)).tolist())
        target = {**target, "boxes": target["boxes"] + torch.tensor([pad_left, pad_top, pad_left, pad_top])}
    return crop(image, target, (top, left), height, width)


def _random_offset(room: int) -> int:
    """0..room, both included; 0 if there is no room."""
    return int(torch.randint(room + 1, ())) if room > 0 else 0


def item_rng(*key: int) -> AbstractContextManager[None]:
    """Inside the block PyTorch's CPU generator starts from ``key``; afterwards it goes on where it was.

    The generators of GPUs are left alone: only the training process has them, so that training would depend on the
    number of loader processes.
    """
    return seeded(seed_of(*key))


def check_labels(target: Target, classes: int) -> None:
    """Raise :class:`TransformError` if transforms have left a label that is not 1..``classes``."""
    if wrong := [label for label in target["labels"].tolist() if not 1 <= label <= classes]:
        of_image = f"image {int(target['image_id'])} has the label {wrong[0]} after the transforms"
        raise TransformError(f"{of_image}; labels are 1..{classes}")


class AugmentedDataset(Dataset[tuple[Tensor, Target]]):
    """A data set seen through an :class:`Augment` or an :class:`OwnTransform`.

    Items are asked for by (number of the draw, index).

    What happens to an image depends on (seed, draw, index) only: not on the other images of its batch, the number of
    loader processes or what was drawn before.
    """

    def __init__(self, dataset: DetectionDataset, augment: Augment | OwnTransform, seed: int) -> None:
        self.dataset = dataset
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        draw, index = key
        image, target = self.dataset[index]
        with item_rng(self.seed, draw, index):
            image, target = self.augment(image, target, self._draw_sample)
        if not isinstance(self.augment, Augment) or self.augment.own:
            check_labels(target, len(self.dataset.class_names))
        return image, target

    def _draw_sample(self) -> tuple[Tensor, Target]:
        """A random image of the data set; it may be the same one."""
        return self.dataset[int(torch.randint(len(self.dataset), ()))]
