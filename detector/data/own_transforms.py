"""Transforms of the user's own on training images: torchvision's, albumentations' and plain functions."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detector.data.box_transforms import first_inverted, sides
from detector.data.coco import Target
from detector.data.mixing import DrawSample
from detector.exceptions import TransformError

MIN_BOX = 1  # pixels: boxes with a shorter side are removed, as torchvision's SanitizeBoundingBoxes does
OVERSHOOT = 0.5  # how far colours may lie outside 0..1, where a resize with bicubic interpolation puts some
LIMITS = ("min_area", "min_visibility", "min_width", "min_height", "max_accept_ratio")  # of albumentations.BboxParams


class OwnTransform:
    """A transform of the user's own on training images.

    A function, or an object of ``torchvision.transforms.v2``, is called with a ``tv_tensors.Image`` (float32 [3, H, W]
    in 0..1) and the target of :class:`DetectionDataset`, whose ``boxes`` are ``tv_tensors.BoundingBoxes``; both are
    tensors to all other functions. It returns image and target. A transform of albumentations, an ``A.Compose``
    included, is called with ``image`` (uint8 [H, W, 3]), ``bboxes`` (float32 [N, 4], ``pascal_voc``) and ``labels``.

    Of what comes back image, boxes and labels count. The image is float32 or uint8 with three channels. Boxes are
    clipped to it, and those with a side of less than a pixel are removed; ``area`` is that of the boxes. The random
    numbers of PyTorch, NumPy, Python and albumentations depend on the image and on how often it was drawn, as those of
    :class:`Augment` do.

    Args:
        transform: the function or object.
        name: it is called so in messages; "": by its class or function.

    Raises:
        TransformError: when called, if it fails or returns anything else.
    """

    def __init__(self, transform: Callable[..., Any], name: str = "") -> None:
        self.name = name or f"transform {name_of(transform)}"
        self.call: Callable[..., Any] = Albumentation(transform) if is_albumentation(transform) else transform

    def __call__(self, image: Tensor, target: Target, draw_sample: DrawSample | None = None) -> tuple[Tensor, Target]:
        """The image and the target that the transform makes; the arguments are left alone."""
        name = f"{self.name}, image {int(target['image_id'])}"
        with seeded_by_torch():
            given = {**target, "boxes": wrapped(target["boxes"], image)}
            try:
                returned = self.call(tv_tensors.Image(image.clone()), given)
            except Exception as error:  # whatever the user's code comes up with
                raise TransformError(f"{name}: {told(error)}") from None
            try:
                new, made = returned
                new, boxes, labels = as_image(new), as_tensor(made["boxes"], 4), as_tensor(made["labels"])
            except Exception as error:  # of tensors of any shape and type
                raise TransformError(
                    f"{name}: it returns {kinds_in(returned)}, and must return an image and a target with boxes "
                    f"[N, 4] and labels [N]: {told(error)}"
                ) from None
        if problem := what_is_wrong(new, boxes, labels):
            raise TransformError(f"{name}: it returns {problem}")
        height, width = new.shape[-2:]
        boxes = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)
        keep = (sides(boxes) >= MIN_BOX).all(dim=1)
        return new.clamp(0, 1).contiguous(), {
            "boxes": boxes[keep],
            "labels": labels[keep].long(),
            "image_id": target["image_id"],
            "area": sides(boxes[keep]).prod(dim=1),
            "iscrowd": torch.zeros(int(keep.sum()), dtype=torch.int64),
        }


class Albumentation:
    """A transform of albumentations with the arguments and the result of one of torchvision's.

    Args:
        transform: an ``A.BasicTransform``, or some of them put together, as by ``A.Compose``. What the ``bbox_params``
            of an ``A.Compose`` say about small boxes stays; the other parameters of the boxes are set here.
    """

    def __init__(self, transform: Any) -> None:
        import albumentations

        given = transform.processors.get("bboxes") if isinstance(transform, albumentations.BaseCompose) else None
        limits = {name: getattr(given.params, name) for name in LIMITS} if given else {}
        params = albumentations.BboxParams(
            "pascal_voc", label_fields=["labels"], clip=True, filter_invalid_bboxes=True, **limits
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of transforms that leave boxes alone
            self.compose = albumentations.Compose([transform], bbox_params=params)

    def __call__(self, image: Tensor, target: Target) -> tuple[Any, dict[str, Any]]:
        """Image, and ``boxes`` and ``labels``, as they come back; draws follow NumPy's generator."""
        seed = int(np.random.randint(2**32, dtype=np.uint64))
        # Not `set_random_seed`: that gives each transform the same numbers, so that two flips always go together.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # Most transforms are for 8 bits, and some for nothing else; images from files mostly have no more.
        pixels = (image.as_subclass(Tensor) * 255).round_().byte().permute(1, 2, 0).contiguous().numpy()
        made = self.compose(
            image=pixels, bboxes=target["boxes"].as_subclass(Tensor).numpy(), labels=target["labels"].numpy()
        )
        new = made["image"]
        return torch.from_numpy(new).permute(2, 0, 1) if isinstance(new, np.ndarray) else new, {
            "boxes": np.asarray(made["bboxes"]).reshape(-1, 4),
            "labels": np.asarray(made["labels"], dtype=np.int64),
        }


def is_albumentation(transform: Any) -> bool:
    """Whether it is a transform of albumentations, or of a class made from one; nothing is imported."""
    return any(part.__module__.partition(".")[0] == "albumentations" for part in type(transform).__mro__)


@contextmanager
def seeded_by_torch() -> Iterator[None]:
    """Inside the block NumPy's and Python's global generators follow PyTorch's; afterwards they are as before."""
    before = random.getstate(), np.random.get_state()
    seed = int(torch.randint(2**32, ()))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def wrapped(boxes: Tensor, image: Tensor) -> tv_tensors.BoundingBoxes:
    """Boxes [N, 4] (x1, y1, x2, y2) as torchvision's transforms take them."""
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=F.get_size(image))


def as_image(value: Any) -> Tensor:
    """An image as a plain tensor of floats, uint8 scaled to 0..1; what is no image stays as it is."""
    if not isinstance(value, Tensor):
        raise TypeError(f"its image is a {name_of(value)} and not a tensor")
    plain = value.as_subclass(Tensor)
    return plain.float() / 255 if plain.dtype == torch.uint8 else plain


def as_tensor(value: Any, columns: int = 0) -> Tensor:
    """Boxes as float32 [N, ``columns``], or numbers [N]."""
    tensor = torch.as_tensor(value)
    return tensor.as_subclass(Tensor).float().reshape(-1, columns) if columns else tensor.as_subclass(Tensor).flatten()


def what_is_wrong(image: Tensor, boxes: Tensor, labels: Tensor) -> str:
    """Why image, boxes [N, 4] and labels cannot be trained on; "" if they can."""
    if image.dtype != torch.float32 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        return f"an image of {image.dtype} {list(image.shape)}; it must be float32 or uint8 [3, H, W]"
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        return f"an image with values from {low:.3g} to {high:.3g}; they must be in 0..1, the model normalises them"
    if len(boxes) != len(labels):
        return f"{len(boxes)} boxes and {len(labels)} labels"
    if problem := first_inverted(boxes):
        return problem
    if labels.is_floating_point() and (labels != labels.round()).any():
        return "labels that are no whole numbers"
    return ""


def name_of(value: Any) -> str:
    """The full name of a function, or of the class of an object."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def kinds_in(value: Any) -> str:
    """The type of a value, and the types of the parts of a tuple or list."""
    if isinstance(value, tuple | list) and len(value) <= 3:
        return f"{type(value).__name__} of {', '.join(type(part).__name__ for part in value) or 'nothing'}"
    return f"{type(value).__name__} of {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def told(error: Exception) -> str:
    """Kind and message of an error of the user's code, and the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = f" ({frame.filename}:{frame.lineno})" if frame.filename != __file__ else ""
    return f"{type(error).__name__}: {error}{line}"
