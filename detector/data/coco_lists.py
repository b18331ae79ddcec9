"""The three lists of a COCO annotation file for boxes that are in tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from detector.data.annotations import Annotations
from detector.data.coco import Target


def coco_lists(
    targets: Mapping[int, Target],
    sizes: Mapping[int, tuple[int, int]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    file_names: Sequence[str] = (),
) -> dict[str, list[Any]]:
    """``images``, ``annotations`` and ``categories``, as ``parse_annotations`` takes them.

    Args:
        targets: by image id. Each has ``boxes`` [N, 4] xyxy in pixels and ``labels`` [N] in 1..K; ``area`` [N] (else
            that of the box) and ``iscrowd`` [N] (else no box is a crowd) may be missing.
        sizes: height and width of each image.
        class_names: ``class_names[k - 1]`` is the name of label k.
        category_ids: and this its category id.
        file_names: of the images, in the order of ``targets``; none if there are no files.
    """
    annotations: list[dict[str, Any]] = []
    for image_id, target in targets.items():
        boxes = target["boxes"].detach().cpu().double().reshape(-1, 4)
        xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        rows = zip(
            xywh.tolist(),
            target["labels"].tolist(),
            target.get("area", xywh[:, 2] * xywh[:, 3]).tolist(),
            target.get("iscrowd", torch.zeros(len(xywh))).tolist(),
            strict=True,
        )
        annotations += [
            {"id": number, "image_id": image_id, "category_id": category_ids[int(label) - 1],
             "bbox": box, "area": area, "iscrowd": int(crowd)}
            for number, (box, label, area, crowd) in enumerate(rows, len(annotations) + 1)
        ]  # fmt: skip
    images: list[dict[str, Any]] = [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in targets]
    for image, name in zip(images, file_names, strict=False):
        image["file_name"] = name
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, class_names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def lists_of(read: Annotations) -> dict[str, list[Any]]:
    """The same lists for annotations that were read."""
    ids, categories = read.image_ids.tolist(), read.category_ids
    columns = (read.ids, read.image, read.label, read.boxes_xywh, read.area, read.iscrowd)
    return {
        "images": [
            {"id": i, "height": height, "width": width, "file_name": name}
            for i, (height, width), name in zip(ids, read.sizes.tolist(), read.file_names.tolist(), strict=True)
        ],
        "annotations": [
            {"id": number, "image_id": ids[image], "category_id": categories[label],
             "bbox": box, "area": area, "iscrowd": crowd}
            for number, image, label, box, area, crowd in zip(*(c.tolist() for c in columns), strict=True)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(categories, read.class_names, strict=True)],
    }  # fmt: skip
