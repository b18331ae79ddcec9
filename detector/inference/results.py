"""Predictions as files: COCO results, a COCO data set with scores, a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from detector.evaluation.detections import Detections
from detector.files import replacing
from detector.inference.sources import Item

COLUMNS = ("image", "image_id", "seconds", "name", "score", "x1", "y1", "x2", "y2")


class Seen(NamedTuple):
    """An image that was looked at."""

    name: str
    image_id: int
    height: int
    width: int
    seconds: float | None


class Results:
    """Collects what was found, image by image.

    Args:
        class_names: ``class_names[label - 1]`` is the name of a label.
        category_ids: their category ids in the files.
    """

    def __init__(self, class_names: Sequence[str], category_ids: Sequence[int]):
        self.class_names, self.category_ids = list(class_names), list(category_ids)
        self._parts: list[Detections] = []
        self._images: list[Seen] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def add(self, item: Item, output: dict[str, Tensor]) -> None:
        """``boxes`` (xyxy pixels), ``labels`` and ``scores`` of one image."""
        height, width = item.image.shape[-2:]
        self._images.append(Seen(item.name, item.image_id, height, width, item.seconds))
        self._parts.append(Detections.from_model([output], [item.image_id], self.category_ids))

    def write(self, results: Path, dataset: Path, table: Path) -> None:
        """Write the three files, each in one step."""
        everything = Detections.concat(self._parts)
        everything.to_json(results)
        with replacing(dataset) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(self._coco(everything), file, indent=1, allow_nan=False)
        names = dict(zip(self.category_ids, self.class_names, strict=True))
        with replacing(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for image, part in zip(self._images, self._parts, strict=True):
                time = "" if image.seconds is None else f"{image.seconds:.3f}"
                for category, score, (x, y, w, h) in zip(
                    part.category_id.tolist(), part.score.tolist(), part.boxes_xywh.tolist(), strict=True
                ):
                    box = [f"{v:.2f}" for v in (x, y, x + w, y + h)]
                    writer.writerow([image.name, image.image_id, time, names[category], f"{score:.4f}", *box])

    def _coco(self, found: Detections) -> dict[str, list[dict[str, object]]]:
        images = [
            {"id": image.image_id, "file_name": image.name, "height": image.height, "width": image.width}
            for image in self._images
        ]
        rows = zip(
            found.image_id.tolist(),
            found.category_id.tolist(),
            found.boxes_xywh.tolist(),
            found.score.tolist(),
            strict=True,
        )
        annotations = [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": score,
            }
            for number, (image, category, box, score) in enumerate(rows, 1)
        ]
        categories = [{"id": i, "name": name} for i, name in zip(self.category_ids, self.class_names, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}
