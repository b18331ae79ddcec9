"""One split of a data set, examined: its boxes, its pictures, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from detector.config.schema import InspectConfig
from detector.data.annotation_table import check_boxes, in_order, missing_files
from detector.data.annotations import Annotations
from detector.data.areas import odd_areas
from detector.data.images import is_turned, turn
from detector.data.orientation import Evidence, Headers, find_evidence, first_told
from detector.data.problems import Problem
from detector.data.splits import Split
from detector.data.systematic import exchange_sizes, straighten_boxes
from detector.inspection.pictures import Pictures, look_at, wrong_sizes
from detector.inspection.repair import repeated_boxes
from detector.inspection.twins import Marked, Twins, find_twins
from detector.words import counted

ZERO_ID = "it has the id 0, and pycocotools counts what detects it as wrong"


@dataclass(frozen=True, eq=False)
class ExaminedSplit:
    """One annotation file and its images: M images, B usable boxes.

    Attributes:
        split: its files.
        read: what the annotation file holds, without the classes of ``data.drop_categories``.
        listed: the same as the file has it, before names and sizes of files are put right.
        image: int64 ``[B]``, row of the image of each box that can be used.
        label: int64 ``[B]``, position of its class.
        boxes: float64 ``[B, 4]``, x1, y1, x2, y2 in pixels, inside the image.
        crowd: bool ``[B]``, whether training leaves it out: crowd regions, and what is marked ``ignore``.
        ignore: bool ``[B]``, whether it does so because of the mark.
        problems: everything that is wrong.
        pictures: what is in the image files; None if they were not opened.
        exchanged: ids of the images whose entries have width and height exchanged; ``read`` has them right.
        evidence: what the file tells about pictures that EXIF turns.
    """

    split: Split
    read: Annotations
    listed: Annotations
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    problems: list[Problem]
    pictures: Pictures | None
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
            "crowds": int((self.crowd & ~self.ignore).sum()),
            "ignored": int(self.ignore.sum()),
            "dropped_categories": self.read.dropped,
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


def problem_dict(problem: Problem) -> dict[str, Any]:
    """A problem as JSON holds it."""
    # JSON has no NaN and no infinity.
    box = None if problem.box is None else json.loads(json.dumps(problem.box, default=repr), parse_constant=str)
    kept = ("kind", "what", "file", "image_id", "annotation_id")
    return {**{key: value for key, value in asdict(problem).items() if key in kept}, "box": box}


def examine_splits(
    config: InspectConfig,
    splits: Sequence[Split],
    reads: Sequence[Annotations],
    progress: Callable[[float], object],
    before: Sequence[ExaminedSplit] = (),
) -> tuple[list[ExaminedSplit], list[str], list[Twins]]:
    """The splits with all their problems, how pictures of each that EXIF turns are read, and the twins.

    Args:
        config: of the inspection.
        splits: their files.
        reads: what the annotation files hold.
        progress: told the share that is done.
        before: an earlier examination: image files of a split are not opened again if it has the same images.
    """
    share = lambda i: lambda done: progress((i + done) / (len(splits) + 1))
    looked = [*before, *[None] * (len(splits) - len(before))]
    found = [
        examine_split(split, read, config, share(i), old)
        for i, (split, read, old) in enumerate(zip(splits, reads, looked, strict=True))
    ]
    told = [split.evidence.exif for split in found]
    exif = [first_told(config.data.exif, own, other) for own, other in zip(told, told[::-1], strict=True)]
    marked = [marked_pictures(s, e != "ignore") for s, e in zip(found, exif, strict=True)]
    return found, exif, find_twins(marked, share(len(splits)))


def examine_split(
    split: Split,
    read: Annotations,
    config: InspectConfig,
    progress: Callable[[float], object],
    looked: ExaminedSplit | None,
) -> ExaminedSplit:
    """One split with all its problems: of the file, of its boxes, and of the image files.

    Args:
        split: its files.
        read: what the annotation file holds.
        config: of the inspection.
        progress: told the share that is done.
        looked: an examination of the same split: image files are not opened again if it has the same images.
    """
    listed = read
    with split.naming_keys():
        _, renamed, lost = missing_files(split.images, read)
    names = [renamed.get(i, name) for i, name in zip(read.image_ids.tolist(), read.file_names.tolist(), strict=True)]
    read = replace(read, file_names=np.array(names, dtype=str))
    pictures, headers = None, Headers(split.images, read.file_names)
    if config.open_images:
        same = looked is not None and same_images(replace(looked.listed, file_names=looked.read.file_names), read)
        pictures = looked.pictures if looked is not None and same else None
        pictures = pictures or look_at(split.images, read, config.data.white, config.data.workers, progress)
        headers = pictures.headers
    given = read.sizes
    read, whole = exchange_sizes(read, split.images, headers)
    exchanged = set(read.image_ids[(read.sizes != given).any(axis=1)].tolist())
    sized = [*pictures.problems, *wrong_sizes(read, headers)] if pictures else []
    row_of: dict[int | None, int] = {image: row for row, image in enumerate(read.image_ids.tolist())}
    read, strange = straighten_boxes(read)
    columns, geometric = check_boxes(read, clip=True)
    zero = [read.problem(row, "zero_id", ZERO_ID) for row in np.flatnonzero(read.ids == 0).tolist()]
    return ExaminedSplit(
        split=split,
        read=read,
        listed=listed,
        image=columns["image"],
        label=columns["labels"] - 1,
        boxes=columns["boxes"].astype(np.float64),
        crowd=columns["iscrowd"] == 1,
        ignore=columns["ignore"],
        problems=[
            *read.structure,
            *(*whole, *strange, *lost),
            *sorted(sized, key=lambda p: row_of.get(p.image_id, 0)),
            *area_problems(read),
            *in_order(read.problems + geometric + repeated_boxes(read) + zero),
        ],
        pictures=pictures,
        exchanged=exchanged,
        evidence=find_evidence(headers, read.sizes),
    )


def same_images(first: Annotations, second: Annotations) -> bool:
    """Whether two files have the same images in the same order."""
    columns = ("image_ids", "file_names", "sizes")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in columns)


def area_problems(read: Annotations) -> list[Problem]:
    """A problem for each way in which areas cannot be right."""
    problems = []
    for what, rows in odd_areas(read.boxes_xywh, read.area, read.area_given).items():
        example = read.ids[int(rows.argmax())]
        sentence = (
            f"{int(rows.sum()):,} of {counted(len(rows), 'annotation')} {what}, such as annotation {example}: the AP "
            "and AR of small, medium and large objects go by the area"
        )
        problems.append(Problem("odd_area", sentence))
    return problems


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
    rows = np.split(order, np.cumsum(np.bincount(found.image, minlength=len(looked.paths))))[:-1]
    marked = []
    for i, (of_image, (height, width)) in enumerate(zip(rows, found.read.sizes.tolist(), strict=True)):
        orientation, thumbnail = int(looked.headers.orientation[i]), looked.thumbnails[i]
        if is_turned(orientation, tuple(looked.headers.sizes[i].tolist()), (height, width), upright):
            thumbnail = turn(thumbnail, orientation)
        shares = found.boxes[of_image] / np.array([width, height, width, height])
        classes, flat = tuple(names[of_image].tolist()), bool(looked.flat[i])
        marked.append(Marked(looked.digests[i], thumbnail, flat, classes, shares, (height, width)))
    return marked
