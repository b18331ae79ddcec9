"""The data doctor: what is in a data set, what is wrong with it, and how well the model's anchors fit it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.config.schema import DataConfig, InspectConfig, ModelConfig
from detector.data.annotations import Annotations, read_annotations
from detector.data.problems import Problem
from detector.data.shapes import ensure_shapes
from detector.data.systematic import exchange_sizes, straighten_boxes
from detector.data.table import check_boxes, missing_files
from detector.exceptions import DataError
from detector.inspection.anchor_fit import AnchorFit, fit_anchors, propose_anchors, resize_factors
from detector.inspection.pictures import Pictures, Twins, find_twins, look_at
from detector.inspection.repair import Change, repair, repeated_boxes

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Split:
    """One annotation file and its images: M images, B usable boxes.

    Attributes:
        name: "train" or "val".
        folder: of the images.
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

    name: str
    folder: Path
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
    def box_counts(self) -> np.ndarray:
        """int64 ``[M]``: boxes of each image, crowds apart."""
        return np.bincount(self.image[~self.crowd], minlength=len(self.read.image_ids))

    def class_counts(self, names: Sequence[str]) -> list[int]:
        """Boxes of each of the classes ``names``, crowds apart."""
        found = Counter(self.read.class_names[k] for k in self.label[~self.crowd].tolist())
        return [found[name] for name in names]


@dataclass(frozen=True, eq=False)
class Examination:
    """What the doctor finds.

    Attributes:
        splits: train and, if there is one, val.
        class_names: the classes of all splits, by category id.
        twins: images that occur twice; splits by their number.
        sides: float64 ``[B]``, square root of the area of the training boxes in the network's input, crowds apart.
        narrow: float64 ``[B]``, their shorter sides.
        ratios: float64 ``[B]``, their height / width.
        anchors: the fit of the configured anchors; None without training boxes.
        proposed: the fit of better ones.
        model: the configuration that they belong to.
    """

    splits: list[Split]
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

    def image_name(self, place: tuple[int, int]) -> str:
        """The file name of a (split, row)."""
        return str(self.splits[place[0]].read.file_names[place[1]])

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``data.json``: plain values."""
        spread = lambda x: (
            {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(x, QUANTILES), strict=True)} if len(x) else {}
        )
        fit = lambda f: (
            None
            if f is None or not len(f.best_iou)
            else {
                "sizes": f.sizes,
                "aspect_ratios": f.aspect_ratios,
                "recall_50": f.recall(0.5),
                "recall_matched": f.recall(f.matched),
                "matched_iou": f.matched,
                "mean_iou": f.mean_iou,
                "arguments": f.override,
            }
        )
        return {
            "splits": {
                s.name: {
                    "annotations": str(s.read.file),
                    "images": len(s.read.image_ids),
                    "boxes": int((~s.crowd).sum()),
                    "crowds": int(s.crowd.sum()),
                    "empty_images": int((s.box_counts == 0).sum()),
                    "boxes_per_image": np.bincount(s.box_counts).tolist(),
                    "classes": dict(zip(self.class_names, s.class_counts(self.class_names), strict=True)),
                    "image_sizes": {
                        f"{w} x {h}": n for (h, w), n in Counter(map(tuple, s.read.sizes.tolist())).most_common()
                    },
                    "problems": [problem_dict(p) for p in s.problems],
                }
                for s in self.splits
            },
            "train_side": spread(self.sides),
            "train_height_by_width": spread(self.ratios),
            "anchors": {"configured": fit(self.anchors), "proposed": fit(self.proposed)},
            "same_images": [
                {
                    "first": [self.splits[t.first[0]].name, self.image_name(t.first)],
                    "second": [self.splits[t.second[0]].name, self.image_name(t.second)],
                    "same_file": t.same_file,
                }
                for t in self.twins
            ],
        }


def problem_dict(problem: Problem) -> dict[str, Any]:
    """A problem as JSON holds it."""
    # JSON has no NaN and no infinity.
    box = None if problem.box is None else json.loads(json.dumps(problem.box, default=repr), parse_constant=str)
    return {
        "kind": problem.kind,
        "what": problem.what,
        "file": problem.file,
        "image_id": problem.image_id,
        "annotation_id": problem.annotation_id,
        "box": box,
    }


def files_of(data: DataConfig) -> list[tuple[str, Path, Path]]:
    """Name, annotation file and image folder of each split; the built-in data set is drawn if it is not there.

    Raises:
        DataError: there is no training file.
    """
    root = Path(data.root).expanduser()
    if data.name == "shapes":
        root = ensure_shapes(root, data.shapes)
        return [(name, root / f"{name}.json", root / "images") for name in ("train", "val")]
    if not data.train_annotations:
        raise DataError("data.train_annotations is empty: name the annotation file to look at")
    found = [("train", root / data.train_annotations, root / data.train_images)]
    return found + [("val", root / data.val_annotations, root / data.val_images)] * bool(data.val_annotations)


def examine(config: InspectConfig, progress: Callable[[float], object] = lambda share: None) -> Examination:
    """Read both splits, look into their images, and hold the anchors against the boxes.

    Raises:
        DataError: a file or folder is missing, or is no annotation file at all.
    """
    files = files_of(config.data)
    share = lambda i: lambda done: progress((i + done) / (len(files) + 1))
    splits = [read_split(*file, config, share(i)) for i, file in enumerate(files)]
    looked = [s.pictures for s in splits if s.pictures is not None]
    twins = find_twins(looked, share(len(files))) if looked else []
    names = {c: n for s in reversed(splits) for c, n in zip(s.read.category_ids, s.read.class_names, strict=True)}
    train = splits[0]
    used = ~train.crowd
    sizes = train.read.sizes[train.image[used]]
    factor = resize_factors(sizes, config.model)[:, None] if used.any() else np.ones((0, 1))
    boxes = train.boxes[used] * factor
    side = boxes[:, 2:] - boxes[:, :2]
    fitted = fit_anchors(boxes, sizes * factor, config.model)
    proposed = propose_anchors(boxes, sizes * factor, config.model) if len(boxes) else None
    class_names = list(dict.fromkeys(names[c] for c in sorted(names)))
    return Examination(
        splits,
        class_names,
        twins,
        np.sqrt(side.prod(axis=1)),
        side.min(axis=1, initial=np.inf),
        side[:, 1] / side[:, 0],
        fitted if len(boxes) else None,
        proposed,
        config.model,
    )


def read_split(
    name: str, file: Path, folder: Path, config: InspectConfig, progress: Callable[[float], object]
) -> Split:
    """One split with all its problems: of the file, of its boxes, and of the image files."""
    read = read_annotations(file, strict=False)
    if not folder.is_dir():
        raise DataError(
            f"no image folder {folder}, which the file names in {file} are relative to. Set "
            "data.train_images and data.val_images (relative to data.root)."
        )
    _, renamed, lost = missing_files(folder, read)
    names = [renamed.get(i, name) for i, name in zip(read.image_ids.tolist(), read.file_names.tolist(), strict=True)]
    read = replace(read, file_names=np.array(names, dtype=str))
    pictures, stored, sized = None, None, []
    if config.open_images:
        pictures = look_at(folder, names, read.image_ids.tolist(), read.sizes, config.data.workers, progress)
        sized = pictures.problems
        other = {p.image_id for p in sized if p.kind == "wrong_size"}
        wrong = np.array([i in other for i in read.image_ids.tolist()], dtype=bool)
        stored = np.where(wrong[:, None], pictures.sizes, 0)
    given = read.sizes
    read, whole = exchange_sizes(read, folder, stored)
    exchanged = set(read.image_ids[(read.sizes != given).any(axis=1)].tolist())
    sized = [p for p in sized if p.image_id not in exchanged]
    read, strange = straighten_boxes(read)
    columns, geometric = check_boxes(read, clip=True)
    listed = read.problems + geometric + repeated_boxes(read)
    problems = read.structure + whole + strange + lost + sized
    problems += [p for _, p in sorted(listed, key=lambda item: item[0])]
    return Split(
        name,
        folder,
        read,
        columns["image"],
        columns["labels"] - 1,
        columns["boxes"].astype(np.float64),
        columns["iscrowd"] == 1,
        problems,
        pictures,
        renamed,
        exchanged,
    )


def cleaned(examination: Examination, number: int) -> tuple[dict[str, Any], list[Change]]:
    """The cleaned content of the annotation file of split ``number``, and what was changed (:func:`repair`).

    Images whose file is missing, damaged or of another size are left out, and images of the training set that the
    validation set has too.
    """
    split = examination.splits[number]
    kinds = ("missing_file", "damaged_file", "wrong_size")
    unusable = {p.image_id: p.what for p in split.problems if p.kind in kinds and p.image_id is not None}
    if number == 0:
        for twins in examination.leaks:
            row = twins.first[1]
            other = examination.image_name(twins.second)
            unusable.setdefault(int(split.read.image_ids[row]), f"the validation set has it too, as {other}")
    seen = split.pictures
    rows = zip(split.read.file_names.tolist(), split.read.image_ids.tolist(), split.read.sizes.tolist(), strict=True)
    known = {name: (h, w) for name, image, (h, w) in rows if image in split.exchanged}
    if seen is not None:
        stored = zip(split.read.file_names.tolist(), seen.sizes.tolist(), strict=True)
        known |= {name: (h, w) for name, (h, w) in stored if h}

    def size_of(name: str) -> tuple[int, int] | None:
        if name in known or seen is None:
            return known.get(name)
        try:  # an image whose entry could not be read
            with Image.open(split.folder / name) as image:
                return image.height, image.width
        except Exception:
            return None

    return repair(split.read.file, size_of, unusable, split.renamed)
