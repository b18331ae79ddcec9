"""Detections as arrays: from the model's outputs, to and from COCO results files, merged over processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.data.coco_files import RESULTS, WANTED, read_coco
from detector.evaluation.mask_results import box_and_area
from detector.exceptions import DataError
from detector.files import LARGEST, as_id, is_box, is_finite, problem_list, replacing, shown
from detector.words import counted

RESULTS_FORMAT = f"a results file is {WANTED[RESULTS]}"


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of a set of images.

    Attributes:
        image_id: int64 ``[N]``, the COCO image id of each detection.
        category_id: int64 ``[N]``, the COCO category id (not the label 1..K of the model).
        boxes_xywh: float64 ``[N, 4]``: left, top, width, height in pixels of the original image.
        score: float64 ``[N]``.
        images: int64 ``[M]``, the images that the detector looked at, those without a detection included.
            Left out: the images that have a detection.
        source: the file the detections were read from, for messages; ``""`` if there is none.
        area: float64 ``[N]`` in square pixels: whether a detection that finds nothing counts as small, medium or large.
            Left out: that of the box.

    The order of the detections matters: COCO evaluation breaks ties of equal scores by it.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    boxes_xywh: np.ndarray
    score: np.ndarray
    images: np.ndarray = None  # type: ignore[assignment]  # __post_init__ fills it
    source: str = ""
    area: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        store = lambda name, value: object.__setattr__(self, name, value)
        for name in ("image_id", "category_id"):
            store(name, np.asarray(getattr(self, name), dtype=np.int64).reshape(-1))
        store("score", np.asarray(self.score, dtype=np.float64).reshape(-1))
        store("boxes_xywh", np.asarray(self.boxes_xywh, dtype=np.float64).reshape(-1, 4))
        area = self.boxes_xywh[:, 2] * self.boxes_xywh[:, 3] if self.area is None else self.area
        store("area", np.asarray(area, dtype=np.float64).reshape(-1))
        seen = np.unique(self.image_id) if self.images is None else self.images
        store("images", np.asarray(seen, dtype=np.int64).reshape(-1))
        columns = ("image_id", "category_id", "boxes_xywh", "score", "area")
        lengths = {name: len(getattr(self, name)) for name in columns}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every array needs one entry per detection, got lengths {lengths}")
        if not np.isin(self.image_id, self.images).all():
            raise ValueError("there are detections in an image that is not among `images`")

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def empty(cls, images: Sequence[int] = ()) -> Detections:
        """No detections, in ``images``."""
        return cls(np.empty(0), np.empty(0), np.empty((0, 4)), np.empty(0), np.asarray(images, dtype=np.int64))

    @classmethod
    def from_model(
        cls, outputs: Sequence[dict[str, torch.Tensor]], image_ids: Sequence[int], category_ids: Sequence[int]
    ) -> Detections:
        """What a torchvision detector in eval mode returned for some images.

        Args:
            outputs: one dict per image: ``boxes`` ``[n, 4]`` xyxy in pixels of the original image, ``labels``
                int64 ``[n]`` in 1..K, ``scores`` ``[n]``; any float dtype, any device.
            image_ids: the COCO id of each image. If one is repeated, its first output counts.
            category_ids: length K; ``category_ids[label - 1]`` is the COCO category of a label.

        Widths and heights are differences in float64, so that a results file written from them evaluates to
        the very same numbers.
        """
        if len(outputs) != len(image_ids):
            raise ValueError(f"got the outputs of {len(outputs)} images and {len(image_ids)} image ids")
        first = {int(image_id): i for i, image_id in reversed(list(enumerate(image_ids)))}
        kept = [(image_id, outputs[i]) for image_id, i in sorted(first.items(), key=lambda item: item[1])]
        if not kept:
            return cls.empty()
        boxes = _concatenated([output["boxes"] for _, output in kept]).reshape(-1, 4)
        labels = _concatenated([output["labels"] for _, output in kept]).astype(np.int64)
        if len(labels) and (labels.min() < 1 or labels.max() > len(category_ids)):
            raise ValueError(f"labels must be 1..{len(category_ids)}, got {labels.min()}..{labels.max()}")
        return cls(
            image_id=np.repeat([image_id for image_id, _ in kept], [len(output["scores"]) for _, output in kept]),
            category_id=np.asarray(category_ids, dtype=np.int64)[labels - 1],
            boxes_xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
            score=_concatenated([output["scores"] for _, output in kept]),
            images=np.array([image_id for image_id, _ in kept], dtype=np.int64),
        )

    @classmethod
    def concat(cls, parts: Sequence[Detections]) -> Detections:
        """The detections of all ``parts``: batches of one process, or the shards of several.

        Distributed samplers repeat images so that every process gets as many. An image (by
        :attr:`images`) that an earlier part has is left out of the later ones, with its detections; the
        detections of one image therefore keep their order whatever the number of processes.
        """
        seen: set[int] = set()
        kept = []
        for part in parts:
            new = [i for i in part.images.tolist() if i not in seen]
            seen.update(new)
            kept.append(part.only(new) if len(new) < len(part.images) else part)
        if not kept:
            return cls.empty()
        joined = lambda name: np.concatenate([getattr(part, name) for part in kept])
        return cls(
            joined("image_id"),
            joined("category_id"),
            joined("boxes_xywh"),
            joined("score"),
            joined("images"),
            area=joined("area"),
        )

    def only(self, images: Sequence[int]) -> Detections:
        """The detections in ``images``, in the order they have."""
        wanted = np.asarray(images, dtype=np.int64)
        return self._rows(np.isin(self.image_id, wanted), self.images[np.isin(self.images, wanted)])

    def without(self, categories: Sequence[int]) -> Detections:
        """All detections but those of ``categories``, in the order they have."""
        return self._rows(~np.isin(self.category_id, np.asarray(categories, dtype=np.int64)), self.images)

    def _rows(self, kept: np.ndarray, images: np.ndarray) -> Detections:
        """The detections of ``kept`` (bool ``[N]``) on ``images``."""
        names = ("image_id", "category_id", "boxes_xywh", "score", "area")
        return replace(self, images=images, **{name: getattr(self, name)[kept] for name in names})

    @classmethod
    def from_json(
        cls, path: str | Path, image_ids: Sequence[int] | None = None, category_ids: Sequence[int] | None = None
    ) -> Detections:
        """Read a COCO results file: a JSON list of ``{"image_id", "category_id", "bbox", "score"}``.

        Args:
            path: the file. Keys other than these four are ignored. An entry without a ``bbox`` has that of its mask, a
                ``segmentation`` as run-length encoding, or of its ``keypoints``, as in pycocotools.
            image_ids: the images there are; None: do not check.
            category_ids: the categories there are; None: do not check.

        Raises:
            DataError: the file is missing, empty, not JSON or not such a list; or lists, by the number of the
                entry (from 0), what is unusable: a missing key, an id that is not a whole number, an unknown image or
                category, a box that is not four finite numbers or has a negative size, a score that is not a
                finite number.
        """
        entries = read_coco(Path(path), RESULTS)
        if not isinstance(entries, list):
            keys = ", ".join(sorted(entries)[:8]) if isinstance(entries, dict) else ""
            found = f"an object with the keys {keys}" if keys else f"{shown(entries)}"
            hint = " (these look like annotations: are the two files swapped?)" if "annotations" in keys else ""
            raise DataError(f"{path}: expected a list of detections, found {found}{hint}; {RESULTS_FORMAT}")
        around = {i: told for i, entry in enumerate(entries) if (told := _without_box(entry))}
        entries = [{**e, "bbox": around[i][0]} if i in around else e for i, e in enumerate(entries)]
        images = None if image_ids is None else frozenset(image_ids)
        categories = None if category_ids is None else frozenset(category_ids)
        problems = []
        for index, entry in enumerate(entries):
            problem = entry_problem(entry, images, categories)
            if problem:
                problems.append(f"entry {index}: {problem}")
        if problems:
            wrong = counted(len(problems), "entry", "entries")
            raise problem_list(
                f"{path}: {wrong} of {len(entries):,} cannot be used as detections",
                problems,
                f"Entries count from 0; {RESULTS_FORMAT}, ids as in the annotation file.",
            )
        return cls(
            np.array([int(e["image_id"]) for e in entries], dtype=np.int64),
            np.array([int(e["category_id"]) for e in entries], dtype=np.int64),
            boxes := np.array([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4),
            np.array([e["score"] for e in entries], dtype=np.float64),
            source=str(path),
            area=np.array([around[i][1] if i in around else w * h for i, (_, _, w, h) in enumerate(boxes.tolist())]),
        )

    def to_json(self, path: str | Path) -> None:
        """Write a COCO results file, one detection per line, under a temporary name that is then changed.

        Numbers have full precision: reading the file back gives the same arrays to the bit.
        """
        rows = zip(
            self.image_id.tolist(),
            self.category_id.tolist(),
            self.boxes_xywh.tolist(),
            self.score.tolist(),
            strict=True,
        )
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write("[")
            for number, (image_id, category_id, box, score) in enumerate(rows):
                entry = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
                file.write(("," if number else "") + "\n" + json.dumps(entry, allow_nan=False))
            file.write("\n]\n")


def _without_box(entry: Any) -> tuple[list[float], float] | None:
    """Box and area of an entry that has no box but something that tells it."""
    return box_and_area(entry) if isinstance(entry, dict) and not entry.get("bbox") else None


def entry_problem(entry: Any, images: frozenset[int] | None, categories: frozenset[int] | None) -> str:
    """What makes one entry of a results file unusable, ``""`` if nothing does."""
    if not isinstance(entry, dict):
        return f"is {shown(entry)}, not an object"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
    if missing:
        told = [key for key in ("segmentation", "keypoints") if "bbox" in missing and key in entry]
        unreadable = f"; its {told[0]} cannot be read (a mask must be a run-length encoding)" if told else ""
        return f"has no {' and no '.join(repr(key) for key in missing)}{unreadable}"
    for key, known, noun in (("image_id", images, "image"), ("category_id", categories, "category")):
        number = as_id(entry[key])
        if number is None:
            return f"{key} is {shown(entry[key])}, not a whole number"
        if known is not None and number not in known:
            return f"{noun} {number} is not in the annotation file"
    box, score = entry["bbox"], entry["score"]
    if not is_box(box):
        return f"bbox is {shown(box)}, not four finite numbers of less than {LARGEST:.0e}"
    if box[2] < 0 or box[3] < 0:
        return f"bbox {shown(box)} has a negative width or height (bbox is x, y, width, height)"
    if not is_finite(score):
        return f"score is {shown(score)}, not a finite number"
    return ""


def _concatenated(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    return np.concatenate([t.detach().to("cpu", torch.float64).numpy() for t in tensors])
