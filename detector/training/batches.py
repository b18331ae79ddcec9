"""Batches as other people's loaders give them, in the form that the detector takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detector.data.coco import Target
from detector.exceptions import DataError

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


def checked(target: Target, class_names: Sequence[str]) -> Target:
    """``target`` with ``boxes`` as plain float32 [N, 4] and ``labels`` as int64 [N].

    Raises:
        DataError: it lacks one of them, they are not of one length, or there is a label that is not 1..K.
    """
    name = f"image {int(target['image_id'])}" if "image_id" in target else "an image"
    missing = [key for key in ("boxes", "labels") if key not in target]
    if missing:
        raise DataError(f"the target of {name} has no {' and no '.join(missing)}, but {', '.join(target) or 'nothing'}")
    boxes = torch.as_tensor(target["boxes"]).as_subclass(Tensor).float().reshape(-1, 4)
    labels = torch.as_tensor(target["labels"]).as_subclass(Tensor).long()
    if len(boxes) != len(labels):
        raise DataError(f"the target of {name} has {len(boxes)} boxes and {len(labels)} labels")
    if len(labels) and (labels.min() < 1 or labels.max() > len(class_names)):
        raise DataError(
            f"the target of {name} has labels from {labels.min()} to {labels.max()}: the classes "
            f"{', '.join(class_names)} are 1..{len(class_names)}, and 0 is the background"
        )
    return {**target, "boxes": boxes, "labels": labels}


def without_crowds(target: Target) -> Target:
    """``target`` without its crowd regions, which detectors are not trained on."""
    if "iscrowd" not in target or not (crowd := torch.as_tensor(target["iscrowd"]).bool()).any():
        return target
    return {key: value[~crowd] if key in PER_BOX else value for key, value in target.items()}
