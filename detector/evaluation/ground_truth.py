"""The original annotation file, crowds included, as box evaluation reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.config.schema import DataConfig
from detector.data.annotations import Annotations, parse_annotations, read_annotations
from detector.data.areas import NO_AREA, odd_areas
from detector.data.coco import Target
from detector.data.coco_lists import coco_lists
from detector.data.images import WHITE, Reading
from detector.data.left_out import dropped_classes
from detector.data.orientation import Headers, find_evidence
from detector.data.splits import Split
from detector.evaluation.detections import Detections
from detector.files import LARGEST, problem_list


class GroundTruth:
    """A COCO annotation file: M images sorted by id, A boxes in the order of their images, K categories sorted by id.

    Boxes are as the file has them, neither clipped nor rounded, and crowds stay: nothing that changes a number of
    pycocotools is left out. What it silently ignores is ignored and said in :attr:`notes`.

    Args:
        source: COCO annotation JSON (or what was read from one) with ``images``, ``annotations`` and ``categories``;
            ``info``, ``licenses``, file names, sizes, and an annotation's ``area`` and ``iscrowd`` may be missing.
        drop_invalid: leave annotations out that cannot be read (no box, NaN, no id), with a note; the
            default is an error. For runs with ``data.on_invalid=drop`` or ``clip``.
        drop_categories: names of classes to leave out, with their annotations and detections; those that the file does
            not have are passed over.

    Attributes:
        path: the file.
        image_ids: ids of all images, sorted.
        file_names: str ``[M]``, "" where the file gives none.
        sizes: int64 ``[M, 2]``: height, width; 0 where the file gives none.
        category_ids: ids of all categories, sorted.
        class_names: their names, in the same order.
        ids: int64 ``[A]``, annotation ids.
        image: int64 ``[A]``, row of the image, ascending.
        label: int64 ``[A]``, position of the category in ``category_ids``.
        boxes_xywh: float64 ``[A, 4]``: left, top, width, height in pixels.
        area: float64 ``[A]``, in square pixels; of a mask, if the file says so.
        iscrowd: bool ``[A]``.
        dropped: the number of annotations of each class that was left out by its name.
        dropped_ids: the category ids of these classes.
        notes: sentences on what a reader of the numbers must know about this file.

    Raises:
        DataError: the file is missing, not JSON or not COCO annotations, or lists the annotations that cannot be read.
    """

    def __init__(
        self, source: str | Path | Annotations, drop_invalid: bool = False, drop_categories: Collection[str] = ()
    ) -> None:
        read = source
        if not isinstance(read, Annotations):
            read = read_annotations(read, need_pictures=False, drop_categories=drop_categories)
        self.path = read.file
        self.notes: list[str] = []
        stray = [p for p in read.problems if p.kind in ("unknown_image", "unknown_category")]
        unreadable = [str(p) for p in read.problems if p not in stray]
        if unreadable and not drop_invalid:
            total = len(read.ids) + len(read.problems)
            raise problem_list(
                f"{self.path}: {len(unreadable)} of {total} annotations cannot be evaluated",
                unreadable,
                "Correct or remove them in the file, or leave them out with on_invalid=drop; an annotation needs id, "
                "image_id, category_id and bbox [x, y, width, height].",
            )
        by_id = np.argsort(read.image_ids)
        self.image_ids: list[int] = read.image_ids[by_id].tolist()
        self.file_names, self.sizes = read.file_names[by_id], read.sizes[by_id]
        self.category_ids, self.class_names = read.category_ids, read.class_names
        image = np.argsort(by_id)[read.image]
        order = np.argsort(image, kind="stable")
        self.image, self.label, self.ids = image[order], read.label[order], read.ids[order]
        self.boxes_xywh, self.area = read.boxes_xywh[order], read.area[order]
        self.iscrowd = read.iscrowd[order].astype(bool)

        self.dropped, self.dropped_ids = read.dropped, read.dropped_ids
        flat = read.ids[(read.boxes_xywh[:, 2:] <= 0).any(axis=1)].tolist()
        self._note("Annotations left out because they cannot be read", len(unreadable), "; ".join(unreadable[:3]))
        for what, rows in odd_areas(read.boxes_xywh, read.area, read.area_given).items():
            used = "width times height of the box is used" if what == NO_AREA else "used as it is, as in pycocotools"
            self._note(
                f"Annotations {what}",
                int(rows.sum()),
                f"{used}; the AP and AR of small, medium and large objects go by it; annotation ids "
                f"{some(read.ids[rows].tolist())}",
            )
        self._note("Annotations without iscrowd", int((~read.crowd_given).sum()), "they count as single objects")
        self._note(
            "Annotations of an image or a category that the file does not list",
            len(stray),
            f"not counted, as in pycocotools; ids {some([p.annotation_id for p in stray])}",
        )
        self._note(
            "Boxes without a positive width and height",
            len(flat),
            f"nothing can match them, they count as missed; annotation ids {some(flat)}",
        )
        if (self.ids == 0).any():
            self.notes.append(
                "An annotation has the id 0, which pycocotools takes for 'no match': what detects it is a false "
                "positive there. The numbers here are those of the file with its annotations numbered from 1."
            )
        self._note(
            "Annotations marked ignore",
            int((read.ignore & (read.iscrowd == 0)).sum()),
            "they count as objects, as in pycocotools, which looks at iscrowd only; training leaves them out",
        )
        if read.dropped:
            self.notes.append(f"Not scored (drop_categories): {dropped_classes(read.dropped)}.")

    @classmethod
    def of(cls, split: Split) -> GroundTruth:
        """The annotations of ``split``, without what its data set leaves out.

        Raises:
            DataError: as the class.
        """
        return cls(split.read(need_pictures=False), split.drops_invalid)

    @property
    def file(self) -> Path:
        """The same as ``path``."""
        return self.path

    def read_detections(self, path: str | Path) -> Detections:
        """The detections of a COCO results file, without those of dropped classes.

        Raises:
            DataError: as :meth:`Detections.from_json`; an image or a category is not in the annotation file.
        """
        found = Detections.from_json(path, self.image_ids, [*self.category_ids, *self.dropped_ids])
        return found.without(self.dropped_ids) if self.dropped_ids else found

    @classmethod
    def from_targets(
        cls,
        targets: Mapping[int, Target],
        sizes: Mapping[int, tuple[int, int]],
        class_names: Sequence[str],
        category_ids: Sequence[int],
    ) -> GroundTruth:
        """The targets of a detector as ground truth, for data that have no annotation file.

        Args:
            targets, sizes, class_names, category_ids: see :func:`~detector.data.coco_lists.coco_lists`.

        Raises:
            DataError: lists the boxes that are not finite.
        """
        content = coco_lists(targets, sizes, class_names, category_ids)
        return cls(parse_annotations(Path("targets"), content, need_pictures=False))

    def _note(self, subject: str, count: int, treatment: str) -> None:
        if count:
            self.notes.append(f"{subject}: {count}; {treatment}.")

    def names_of(self, image_ids: Sequence[int]) -> list[str]:
        """The file names of these images, "" where the file gives none."""
        return self.file_names[np.searchsorted(self.image_ids, image_ids)].tolist()

    def size_of(self, image_id: int) -> tuple[int, int]:
        """Height and width of an image; 0 where the file gives none."""
        height, width = self.sizes[np.searchsorted(self.image_ids, image_id)].tolist()
        return height, width

    def rows(self, image_ids: Sequence[int]) -> np.ndarray:
        """bool ``[A]``: the boxes of these images."""
        wanted = np.isin(np.array(self.image_ids, dtype=np.int64), np.asarray(image_ids, dtype=np.int64))
        return wanted[self.image]

    def check(self, detections: Detections, image_ids: Sequence[int] | None = None) -> None:
        """Raise :class:`DataError` for detections that pycocotools would misread or silently leave out.

        Args:
            detections: to be scored.
            image_ids: images to be scored, which must be in the file.
        """
        unknown = sorted({int(i) for i in (() if image_ids is None else image_ids)} - set(self.image_ids))
        if unknown:
            raise problem_list(
                f"{self.path}: images to be scored are not in this file", [f"image {i}" for i in unknown]
            )
        checks = (
            (~np.isin(detections.image_id, self.image_ids), "image {image} is not in the annotation file"),
            (~np.isin(detections.category_id, self.category_ids), "category {category} is not in the annotation file"),
            (
                ~(np.abs(detections.boxes_xywh) < LARGEST).all(axis=1),
                "the box {box} (x, y, width, height) is not finite or absurdly large",
            ),
            ((detections.boxes_xywh[:, 2:] < 0).any(axis=1), "the box {box} (x, y, width, height) has a negative size"),
            (~np.isfinite(detections.score), "the score {score} is not finite"),
        )
        problems = []
        for wrong, message in checks:
            for row in np.flatnonzero(wrong).tolist():
                said = message.format(
                    image=detections.image_id[row],
                    category=detections.category_id[row],
                    box=detections.boxes_xywh[row].tolist(),
                    score=detections.score[row],
                )
                problems.append((row, said))
        if problems:
            raise problem_list(
                f"{detections.source or 'detections'}: not usable with the annotations {self.path}",
                [f"detection {row} (from 0): {message}" for row, message in sorted(problems)],
            )


def reading_of(truth: GroundTruth, folder: Path, trained: DataConfig | None = None) -> Reading:
    """How the images of ``truth`` in ``folder`` are read: by the keys of ``trained``, else as the file tells."""
    exif, white = (trained.exif, trained.white) if trained else ("auto", WHITE)
    if exif == "auto":
        exif = find_evidence(Headers(folder, truth.file_names), truth.sizes).exif
    return Reading.of(exif, white)


def some(ids: Sequence[Any], limit: int = 5) -> str:
    """The first few of ``ids``, and how many more there are."""
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(str(i) for i in ids[:limit]) + more
