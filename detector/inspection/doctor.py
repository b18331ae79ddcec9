"""The data doctor: what is in a data set, what is wrong with it, and how well the model's anchors fit it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.config.schema import DataConfig, InspectConfig, ModelConfig
from detector.data.annotations import read_annotations
from detector.data.left_out import check_dropped
from detector.data.splits import Split, find_split, has_split
from detector.inspection.anchor_fit import AnchorFit, fit_anchors, propose_anchors, resize_factors
from detector.inspection.examined_split import ExaminedSplit, examine_splits
from detector.inspection.twins import Twins, shared

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Examination:
    """What the doctor finds.

    Attributes:
        splits: train and, if there is one, val.
        class_names: the classes of all splits, by category id.
        exif: how pictures that EXIF turns are read, of each split: "apply", "ignore", or "auto" if nothing tells.
        twins: images that occur twice, or look nearly alike; splits by their number.
        sides: float64 ``[B]``, square root of the area of the training boxes in the network's input, without crowd
            regions.
        narrow: float64 ``[B]``, their shorter sides.
        ratios: float64 ``[B]``, their height / width.
        anchors: the fit of the configured anchors; None without training boxes.
        proposed: the fit of better ones.
        model: the configuration that they belong to.
        white: the value of 16-bit files that is white.
    """

    splits: list[ExaminedSplit]
    class_names: list[str]
    exif: list[str]
    twins: list[Twins]
    sides: np.ndarray
    narrow: np.ndarray
    ratios: np.ndarray
    anchors: AnchorFit | None
    proposed: AnchorFit | None
    model: ModelConfig
    white: int

    @property
    def leaks(self) -> list[Twins]:
        """The images of training that validation has too, each with the first one that is the same."""
        return shared(self.twins)

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
                {"first": pair(t.first), "second": pair(t.second), "same_file": t.kind == "file"}
                for t in self.twins
                if t.copy
            ],
            "nearly_alike_images": [[pair(t.first), pair(t.second)] for t in self.twins if not t.copy],
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
    dropped = config.data.drop_categories
    reads = [read_annotations(s.annotations, strict=False, drop_categories=dropped) for s in splits]
    check_dropped(dropped, reads, "data.drop_categories")
    found, exif, twins = examine_splits(config, splits, reads, progress)
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
        exif=exif,
        twins=twins,
        sides=np.sqrt(side.prod(axis=1)),
        narrow=side.min(axis=1, initial=np.inf),
        ratios=side[:, 1] / side[:, 0],
        anchors=fit_anchors(boxes, sizes * factor, config.model) if len(boxes) else None,
        proposed=propose_anchors(boxes, sizes * factor, config.model) if len(boxes) else None,
        model=config.model,
        white=config.data.white,
    )
<<<<<<< HEAD
=======


def examine_split(split: Split, config: InspectConfig, progress: Callable[[float], object]) -> ExaminedSplit:
    """One split with all its problems: of the file, of its boxes, and of the image files."""
    read = read_annotations(split.annotations, strict=False)
    _, renamed, lost = missing_files(split.images, read)
    names = [renamed.get(i, name) for i, name in zip(read.image_ids.tolist(), read.file_names.tolist(), strict=True)]
    read = replace(read, file_names=np.array(names, dtype=str))
    pictures, headers = None, Headers(split.images, read.file_names)
    if config.open_images:
        pictures = look_at(split.images, read, config.data.white, config.data.workers, progress)
        headers = pictures.headers
    given = read.sizes
    read, whole = exchange_sizes(read, split.images, headers)
    exchanged = set(read.image_ids[(read.sizes != given).any(axis=1)].tolist())
    sized = [*pictures.problems, *wrong_sizes(read, headers)] if pictures else []
    row_of: dict[int | None, int] = {image: row for row, image in enumerate(read.image_ids.tolist())}
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
            *sorted(sized, key=lambda p: row_of.get(p.image_id, 0)),
            *in_order(read.problems + geometric + repeated_boxes(read)),
        ],
        pictures=pictures,
        renamed=renamed,
        exchanged=exchanged,
        evidence=find_evidence(headers, read.sizes),
    )


def marked_pictures(found: ExaminedSplit, upright: bool) -> list[Marked]:
    """The pictures of a split with their boxes, none if the files were not opened.

    Args:
        found: the split.
        upright: see :class:`~detector.data.images.Reading`.
    """
    looked = found.pictures
    if looked is None or not looked.paths:
        return []
    names = np.array(found.read.class_names, dtype=str)[found.label]
    order = np.lexsort((names, found.image))
    rows = np.split(order, np.cumsum(np.bincount(found.image, minlength=len(looked.paths)))[:-1])
    marked = []
    for i, (of_image, (height, width)) in enumerate(zip(rows, found.read.sizes.tolist(), strict=True)):
        orientation, thumbnail = int(looked.headers.orientation[i]), looked.thumbnails[i]
        if is_turned(orientation, tuple(looked.headers.sizes[i].tolist()), (height, width), upright):
            thumbnail = turn(thumbnail, orientation)
        shares = found.boxes[of_image] / np.array([width, height, width, height])
        classes, flat = tuple(names[of_image].tolist()), bool(looked.flat[i])
        marked.append(Marked(looked.digests[i], thumbnail, flat, classes, shares, (height, width)))
    return marked


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
    # Entries that were read have the size that their boxes are in, with EXIF's turn where it applies.
    known = {name: (h, w) for name, image, (h, w) in rows if image in found.exchanged or found.pictures is not None}

    def size_of(name: str) -> tuple[int, int] | None:
        if name in known or found.pictures is None:
            return known.get(name)
        height, width, orientation = header_of(found.split.images / name)  # an image whose entry could not be read
        shown = orientation in SIDEWAYS and examination.exif[number] != "ignore"
        return ((width, height) if shown else (height, width)) if height else None

    return repair(found.read.file, size_of, unusable, found.renamed)
>>>>>>> images
