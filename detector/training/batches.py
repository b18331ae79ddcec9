"""Batches as other people's loaders give them, in the form that the detector takes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detector.data.box_transforms import first_inverted, inverted
from detector.data.coco import Target
from detector.exceptions import ConfigError, DataError

PER_BOX = ("boxes", "labels", "area", "iscrowd")  # what a target has for each box


def images_of(batch: Any) -> list[Tensor]:
    """The images of a batch: (images, targets), or images only; images are a sequence of [3, H, W] or [B, 3, H, W]."""
    first = batch[0]
    return list(batch if isinstance(first, Tensor) and first.ndim == 3 else first)


def size_of(batch: Any) -> int:
    """The number of items of any module's batch: of its first part, if it has parts."""
    if isinstance(batch, dict):
        batch = tuple(batch.values())
    return len(batch[0] if isinstance(batch, tuple | list) else batch)


def check_one_loader(loaders: Any, stage: str) -> None:
    """Raise :class:`ConfigError` for a list or dict of several loaders, where ``stage`` takes the batches of one."""
    if isinstance(loaders, list | tuple | dict) and len(loaders) > 1:
        raise ConfigError(
            f"{stage} with {len(loaders)} loaders: DetectionModule takes one. Join their data sets with "
            "torch.utils.data.ConcatDataset, or call the Trainer once for each"
        )


def image_id(target: Target) -> int | None:
    """The image id of a target; None: it has none.

    Raises:
        DataError: it is not a whole number.
    """
    if "image_id" not in target:
        return None
    try:
        return operator.index(target["image_id"])
    except (TypeError, ValueError):
        raise DataError(
            f"{name_of(target)}: image_id has to be one whole number, as a tensor or not. Without annotations it "
            "may be left out"
        ) from None


def checked(targets: Sequence[Target], class_names: Sequence[str]) -> list[Target]:
    """``targets`` with ``boxes`` as plain float32 [N, 4] and ``labels`` as int64 [N]; waits for the device once.

    Raises:
        DataError: one lacks them, they are not of one length, or there is a label that is not 1..K; a box is not finite
            or has x2 < x1 or y2 < y1, as boxes of other formats have.
    """
    plain = [_plain(target) for target in targets]
    lowest, highest, inside_out = _extremes(plain)
    if inside_out:
        name, problem = next((name_of(t), p) for t in plain if (p := first_inverted(t["boxes"])))
        raise DataError(f"the target of {name} has {problem}")
    if lowest < 1 or highest > len(class_names):
        allowed = range(1, len(class_names) + 1)
        wrong = [name_of(t) for t in plain if any(label not in allowed for label in t["labels"].tolist())]
        raise DataError(
            f"the target of {', '.join(wrong)} has labels from {lowest} to {highest}: the classes "
            f"{', '.join(class_names)} are 1..{len(class_names)}, and 0 is the background"
        )
    return plain


def without_crowds(targets: Sequence[Target]) -> list[Target]:
    """``targets`` without their crowd regions, which detectors are not trained on; waits for the device once."""
    crowds = [torch.as_tensor(target["iscrowd"]) for target in targets if "iscrowd" in target]
    if not crowds or not torch.cat(crowds).any():
        return list(targets)
    return [_select(t, torch.as_tensor(t["iscrowd"]) == 0) if "iscrowd" in t else t for t in targets]


def _plain(target: Target) -> Target:
    missing = [key for key in ("boxes", "labels") if key not in target]
    if missing:
        has = ", ".join(target) or "nothing"
        raise DataError(f"the target of {name_of(target)} has no {' and no '.join(missing)}, but {has}")
    boxes = torch.as_tensor(target["boxes"]).as_subclass(Tensor).float().reshape(-1, 4)
    labels = torch.as_tensor(target["labels"]).as_subclass(Tensor).long()
    if len(boxes) != len(labels):
        raise DataError(f"the target of {name_of(target)} has {len(boxes)} boxes and {len(labels)} labels")
    return {**target, "boxes": boxes, "labels": labels}


def name_of(target: Target) -> str:
    """How messages call the image of a target."""
    if "image_id" not in target:
        return "an image"
    given = target["image_id"]
    return f"image {given.squeeze().tolist() if isinstance(given, Tensor) else given}"


def _select(target: Target, keep: Tensor) -> Target:
    return {key: value[keep] if key in PER_BOX else value for key, value in target.items()}


def _extremes(targets: Sequence[Target]) -> tuple[int, int, int]:
    """The lowest and the highest of all labels, and whether a box is :func:`inverted`; 1, 1, 0 if there are none."""
    if not any(len(target["labels"]) for target in targets):
        return 1, 1, 0
    labels, boxes = (torch.cat([target[key] for target in targets]) for key in ("labels", "boxes"))
    lowest, highest, inside_out = torch.stack([labels.min(), labels.max(), inverted(boxes).any().long()]).tolist()
    return lowest, highest, inside_out
