"""The data doctor: what is in a data set, what is wrong with it, and how well the model's anchors fit it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from detector.config.schema import DataConfig, InspectConfig, ModelConfig
from detector.data.annotation_table import check_boxes, in_order, missing_files
from detector.data.annotations import Annotations, read_annotations
from detector.data.problems import Problem
from detector.data.splits import Split, find_split, has_split
from detector.data.systematic import exchange_sizes, straighten_boxes
from detector.inspection.anchor_fit import AnchorFit, fit_anchors, propose_anchors, resize_factors
from detector.inspection.pictures import Pictures, Twins, find_twins, look_at
from detector.inspection.repair import Change, repair, repeated_boxes

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
UNUSABLE = ("missing_file", "damaged_file", "wrong_size")  # kinds of problems whose image a cleaned copy leaves out


@dataclass(frozen=True, eq=False)
class ExaminedSplit:
    """One annotation file and its images: M images, B usable boxes.

    Attributes:
        split: its files.
        read: what the annotation file holds.
        image: int64 ``[B]``, row of the image of each box that can be used.
        label: int64 ``[B]``, position of its class.
        boxes: float64 ``[B, 4]``, x1, y1, x2, y2 in pixels, inside the image.
        crowd: bool ``[B]``.
        problems: everything that is wrong.
        pictures: what is in the image files; None if they were not opened.
        renamed: by image id, the files that are meant where the annotation file names others.
        exchanged: ids of the images whose entries have width and height exchanged; ``read`` has them right.
    """

    split: Split
    read: Annotations
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    problems: list[Problem]
    pictures: Pictures | None
    renamed: dict[int, str]
    exchanged: set[int]

    @property
    def name(self) -> str:
        """ "train" or "val"."""
        return self.split.name

    @property
    def box_counts(self) -> np.ndarray:
        """int64 ``[M]``: boxes of each image, without crowd regions."""
        return np.bincount(self.image[~self.crowd], minlength=len(self.read.image_ids))

    def class_counts(self, names: Sequence[str]) -> list[int]:
        """Boxes of each of the classes ``names``, without crowd regions."""
        found = Counter(self.read.class_names[k] for k in self.label[~self.crowd].tolist())
        return [found[name] for name in names]

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """What goes into ``data.json``: plain values."""
        sizes = Counter((w, h) for h, w in self.read.sizes.tolist())
        return {
            "annotations": str(self.read.file),
            "images": len(self.read.image_ids),
            "boxes": int((~self.crowd).sum()),
            "crowds": int(self.crowd.sum()),
            "empty_images": int((self.box_counts == 0).sum()),
            "boxes_per_image": np.bincount(self.box_counts).tolist(),
            "classes": dict(zip(class_names, self.class_counts(class_names), strict=True)),
            "image_sizes": {f"{w} x {h}": count for (w, h), count in sizes.most_common()},
            "problems": [problem_dict(p) for p in self.problems],
        }


@dataclass(frozen=True, eq=False)
class Examination:
    """What the doctor finds.

    Attributes:
        splits: train and, if there is one, val.
        class_names: the classes of all splits, by category id.
        twins: images that occur twice; splits by their number.
        sides: float64 ``[B]``, square root of the area of the training boxes in the network's input, without crowd
            regions.
        narrow: float64 ``[B]``, their shorter sides.
        ratios: float64 ``[B]``, their height / width.
        anchors: the fit of the configured anchors; None without training boxes.
        proposed: the fit of better ones.
        model: the configuration that they belong to.
    """

    splits: list[ExaminedSplit]
    class_names: list[str]
    twins: list[Twins]
    sides: np.ndarray
    narrow: np.ndarray
    ratios: np.ndarray
    anchors: AnchorFit | None
    proposed: AnchorFit | None
    model: ModelConfig

    @property
    def leaks(self) -> list[Twins]:
        """The images that training and validation share."""
        return [t for t in self.twins if t.first[0] != t.second[0]]

    def image_name(self, image: tuple[int, int]) -> str:
        """The file name of a (split, row)."""
        return str(self.splits[image[0]].read.file_names[image[1]])

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``data.json``: plain values."""
        pair = lambda image: [self.splits[image[0]].name, self.image_name(image)]
        return {
            "splits": {s.name: s.to_dict(self.class_names) for s in self.splits},
            "train_side": quantiles(self.sides),
            "train_height_by_width": quantiles(self.ratios),
            "anchors": {"configured": fit_dict(self.anchors), "proposed": fit_dict(self.proposed)},
            "same_images": [
                {"first": pair(t.first), "second": pair(t.second), "same_file": t.same_file} for t in self.twins
            ],
        }


def quantiles(values: np.ndarray) -> dict[str, float]:
    """The quantiles of ``values``, nothing of none."""
    found = np.quantile(values, QUANTILES).tolist() if len(values) else []
    return {f"{q:g}": value for q, value in zip(QUANTILES, found, strict=False)}


def fit_dict(fit: AnchorFit | None) -> dict[str, Any] | None:
    """The fit of anchors as JSON holds it."""
    if fit is None:
        return None
    reached = {"recall_50": fit.recall(0.5), "recall_matched": fit.recall(fit.matched), "matched_iou": fit.matched}
    sizes = {"sizes": fit.sizes, "aspect_ratios": fit.aspect_ratios}
    return {**sizes, **reached, "mean_iou": fit.mean_iou, "arguments": fit.override}


def problem_dict(problem: Problem) -> dict[str, Any]:
    """A problem as JSON holds it."""
    # JSON has no NaN and no infinity.
    box = None if problem.box is None else json.loads(json.dumps(problem.box, default=repr), parse_constant=str)
    kept = ("kind", "what", "file", "image_id", "annotation_id")
    return {**{key: value for key, value in asdict(problem).items() if key in kept}, "box": box}


def splits_of(data: DataConfig) -> list[Split]:
    """The training split and, if there is one, the validation split.

    Raises:
        DataError: there is no training file.
    """
    return [find_split(data, name) for name in ("train", "val") if name == "train" or has_split(data, name)]


def examine(
    config: InspectConfig, splits: Sequence[Split], progress: Callable[[float], object] = lambda share: None
) -> Examination:
    """Read the splits, look into their images, and hold the anchors against the boxes.

    Raises:
        DataError: a file or folder is missing, or is no annotation file at all.
    """
    share = lambda i: lambda done: progress((i + done) / (len(splits) + 1))
    found = [examine_split(split, config, share(i)) for i, split in enumerate(splits)]
    looked = [s.pictures for s in found if s.pictures is not None]
    twins = find_twins(looked, share(len(splits))) if looked else []
    names = {c: n for s in reversed(found) for c, n in zip(s.read.category_ids, s.read.class_names, strict=True)}
    train = found[0]
    used = ~train.crowd
    sizes = train.read.sizes[train.image[used]]
    factor = resize_factors(sizes, config.model)[:, None] if used.any() else np.ones((0, 1))
    boxes = train.boxes[used] * factor
    side = boxes[:, 2:] - boxes[:, :2]
    return Examination(
        splits=found,
        class_names=list(dict.fromkeys(names[c] for c in sorted(names))),
        twins=twins,
        sides=np.sqrt(side.prod(axis=1)),
        narrow=side.min(axis=1, initial=np.inf),
        ratios=side[:, 1] / side[:, 0],
        anchors=fit_anchors(boxes, sizes * factor, config.model) if len(boxes) else None,
        proposed=propose_anchors(boxes, sizes * factor, config.model) if len(boxes) else None,
        model=config.model,
    )


def examine_split(split: Split, config: InspectConfig, progress: Callable[[float], object]) -> ExaminedSplit:
    """One split with all its problems: of the file, of its boxes, and of the image files."""
    with split.naming_keys():
        read = read_annotations(split.annotations, strict=False)
        _, renamed, lost = missing_files(split.images, read)
    names = [renamed.get(i, name) for i, name in zip(read.image_ids.tolist(), read.file_names.tolist(), strict=True)]
    read = replace(read, file_names=np.array(names, dtype=str))
    pictures, stored, sized = None, None, []
    if config.open_images:
        pictures = look_at(split.images, read, config.data.workers, progress)
        sized = pictures.problems
        other = [p.image_id for p in sized if p.kind == "wrong_size" and p.image_id is not None]
        stored = np.where(np.isin(read.image_ids, other)[:, None], pictures.sizes, 0)
    given = read.sizes
    read, whole = exchange_sizes(read, split.images, stored)
    exchanged = set(read.image_ids[(read.sizes != given).any(axis=1)].tolist())
    read, strange = straighten_boxes(read)
    columns, geometric = check_boxes(read, clip=True)
    return ExaminedSplit(
        split=split,
        read=read,
        image=columns["image"],
        label=columns["labels"] - 1,
        boxes=columns["boxes"].astype(np.float64),
        crowd=columns["iscrowd"] == 1,
        problems=[
            *read.structure,
            *(*whole, *strange, *lost),
            *(p for p in sized if p.image_id not in exchanged),
            *in_order(read.problems + geometric + repeated_boxes(read)),
        ],
        pictures=pictures,
        renamed=renamed,
        exchanged=exchanged,
    )


def cleaned(examination: Examination, number: int) -> tuple[dict[str, Any], list[Change]]:
    """The cleaned content of the annotation file of split ``number``, and what was changed (:func:`repair`).

    Images whose file is missing, damaged or of another size are left out, and images of the training set that the
    validation set has too.
    """
    found = examination.splits[number]
    unusable = {p.image_id: p.what for p in found.problems if p.kind in UNUSABLE and p.image_id is not None}
    for twins in examination.leaks if number == 0 else ():
        other = examination.image_name(twins.second)
        unusable.setdefault(int(found.read.image_ids[twins.first[1]]), f"the validation set has it too, as {other}")
    names, sizes = found.read.file_names.tolist(), found.read.sizes.tolist()
    rows = zip(names, found.read.image_ids.tolist(), sizes, strict=True)
    known = {name: (h, w) for name, image, (h, w) in rows if image in found.exchanged}
    if found.pictures is not None:
        known |= {name: (h, w) for name, (h, w) in zip(names, found.pictures.sizes.tolist(), strict=True) if h}

    def size_of(name: str) -> tuple[int, int] | None:
        if name in known or found.pictures is None:
            return known.get(name)
        try:  # an image whose entry could not be read
            with Image.open(found.split.images / name) as image:
                return image.height, image.width
        except Exception:
            return None

    return repair(found.read.file, size_of, unusable, found.renamed)
