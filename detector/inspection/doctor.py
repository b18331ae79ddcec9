"""The data doctor: what is in a data set, what is wrong with it, and how well the model's anchors fit it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from detector.config.schema import DataConfig, InspectConfig, ModelConfig
from detector.data.annotation_table import check_boxes, in_order, missing_files
from detector.data.annotations import Annotations, read_annotations
from detector.data.images import SIDEWAYS, header_of, is_turned, turn
from detector.data.orientation import Evidence, Headers, find_evidence
from detector.data.problems import Problem
from detector.data.splits import Split, find_split, has_split
from detector.data.systematic import exchange_sizes, straighten_boxes
from detector.inspection.anchor_fit import AnchorFit, fit_anchors, propose_anchors, resize_factors
from detector.inspection.pictures import Pictures, look_at, wrong_sizes
from detector.inspection.repair import Change, repair, repeated_boxes
from detector.inspection.twins import Marked, Twins, find_twins, shared

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
        evidence: what the file tells about pictures that EXIF turns.
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
    evidence: Evidence

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
            "turned_by_exif": {
                "undecided": self.read.file_names[self.evidence.undecided].tolist(),
                "entries_tell": self.evidence.exif,
            },
            "problems": [problem_dict(p) for p in self.problems],
        }


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
    told = [s.evidence.exif if config.data.exif == "auto" else config.data.exif for s in found]
    exif = [own if own != "auto" else other for own, other in zip(told, told[::-1], strict=True)]
    marked = [marked_pictures(s, e != "ignore") for s, e in zip(found, exif, strict=True)]
    twins = find_twins(marked, share(len(splits)))
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
