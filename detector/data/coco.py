"""Detection data as a PyTorch data set: COCO-style annotation files with their images, and what is like them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detector.data.annotation_table import Table, read_table
from detector.data.annotations import Annotations, read_annotations
from detector.data.images import SHOWN, WHITE, Reading, read_image
from detector.data.orientation import NO_EVIDENCE, Evidence, Headers, find_evidence
from detector.data.problems import Problem

Target = dict[str, Tensor]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class DetectionDataset(Dataset[tuple[Tensor, Target]], ABC):
    """Images and the boxes of a table of annotations.

    Item i is ``(image, target)``: the image is float32 [3, H, W], RGB in 0..1; the target holds

    ========= ================ ==========================================================
    boxes     float32 [N, 4]   x1, y1, x2, y2 in pixels, inside the image; N may be 0
    labels    int64 [N]        1..K; label k is category ``category_ids[k - 1]``
    image_id  int64 []         the image's id in the file
    area      float32 [N]      the file's area in pixels, times the share that clipping left
    iscrowd   int64 [N]        1 for a crowd region or what is marked ``ignore``; only ``keep_crowd`` leaves them in
    ========= ================ ==========================================================

    Args:
        read: annotations.
        images: folder that their file names are relative to; None: there are no files.
        on_invalid: "error": raise, listing the problems. "drop": leave out the annotation (or the image whose file is
            missing). "clip": the same, but clip a box that is partly outside its image.

    Attributes:
        annotations: where the annotations are from.
        table: the annotations that are used.
        problems: what ``on_invalid`` left out or clipped.
        exif: how pictures that EXIF turns are read where the size in their entry does not tell: "apply": turned;
            "ignore": as they are stored; "auto", at first: as the other entries tell (:attr:`evidence`), else turned.
        evidence: what the entries tell about such pictures.
        reading: how image files are read.
    """

    keep_crowd = False
    reading = SHOWN
    exif = "auto"
    evidence = NO_EVIDENCE

    def __init__(self, read: Annotations, images: Path | None, on_invalid: str) -> None:
        if on_invalid not in ("error", "drop", "clip"):
            raise ValueError(f"on_invalid must be 'error', 'drop' or 'clip', not {on_invalid!r}")
        self.annotations, self.images = read.file, images
        self.table: Table
        self.problems: list[Problem]
        self.table, self.problems = read_table(read, images, on_invalid)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Image ``index``, float32 [3, H, W] in 0..1."""

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What image ``index`` is called in messages."""

    def keep(self, rows: np.ndarray) -> None:
        """Keep the images at the positions ``rows`` only."""
        self.table = self.table.select(rows)

    @property
    def class_names(self) -> list[str]:
        """Name of label i + 1 at position i."""
        return self.table.class_names

    @property
    def category_ids(self) -> list[int]:
        """Category id in the file of label i + 1 at position i, ascending."""
        return self.table.category_ids

    @cached_property
    def image_ids(self) -> list[int]:
        """Id in the file of each image."""
        return self.table.image_ids.tolist()

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image in pixels."""
        return [(h, w) for h, w in self.table.sizes.tolist()]

    @property
    def used(self) -> np.ndarray:
        """bool [A]: the annotations that targets hold, crowd regions only with ``keep_crowd``."""
        return np.ones(len(self.table.iscrowd), dtype=bool) if self.keep_crowd else self.table.iscrowd == 0

    @property
    def box_counts(self) -> np.ndarray:
        """int64 [M]: number of boxes of each image."""
        return np.diff(np.concatenate([[0], np.cumsum(self.used)])[self.table.first])

    @property
    def class_counts(self) -> list[int]:
        """Number of boxes of each class."""
        return np.bincount(self.table.labels[self.used] - 1, minlength=len(self.class_names)).tolist()

    def target(self, index: int) -> Target:
        """The target of item ``index``, without reading its image and without the transform."""
        table = self.table
        rows = np.arange(table.first[index], table.first[index + 1])
        if not self.keep_crowd:
            rows = rows[table.iscrowd[rows] == 0]
        return {
            "boxes": torch.from_numpy(table.boxes[rows]),
            "labels": torch.from_numpy(table.labels[rows]),
            "image_id": torch.tensor(int(table.image_ids[index])),
            "area": torch.from_numpy(table.area[rows]),
            "iscrowd": torch.from_numpy(table.iscrowd[rows].astype(np.int64)),
        }

    def __len__(self) -> int:
        return len(self.table.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.image(index % len(self)), self.target(index % len(self))


class CocoDataset(DetectionDataset):
    """Images and boxes of one COCO annotation file.

    A box that leaves its image by at most one pixel is clipped without a word; everything else that is wrong with
    the file is a :class:`Problem`, and ``on_invalid`` says what becomes of it.

    Args:
        annotations: COCO annotation JSON, or what is read from one, without some of its classes, say
            (:func:`~detector.data.annotations.read_annotations`).
        images: folder that its file names are relative to.
        on_invalid: "error": raise, listing the problems. "drop": leave out the annotation (or the image whose file is
            missing). "clip": the same, but clip a box that is partly outside its image.
        keep_empty: keep images that have no box.
        keep_crowd: keep crowd regions, and annotations marked ``ignore``, in the targets; detectors are not trained on
            them.
        transform: applied to every item.

    Attributes:
        white: the value of 16-bit files that is white.

    Raises:
        DataError: a missing file or folder, a malformed file, or problems with ``on_invalid="error"``; from an item: a
            damaged image or one whose size is not the one in the file.
    """

    def __init__(
        self,
        annotations: str | Path | Annotations,
        images: str | Path,
        *,
        on_invalid: str = "error",
        keep_empty: bool = True,
        keep_crowd: bool = False,
        transform: Transform | None = None,
    ) -> None:
        read = annotations if isinstance(annotations, Annotations) else read_annotations(Path(annotations).expanduser())
        self.images: Path = Path(images).expanduser()
        super().__init__(read, self.images, on_invalid)
        self.keep_crowd = keep_crowd
        self.transform = transform
        self.white = WHITE
        self._entries = self.table  # images without a box tell as much as others
        if not keep_empty:
            self.keep(np.flatnonzero(self.box_counts))

    @cached_property
    def evidence(self) -> Evidence:  # type: ignore[override]
        """What the file tells about pictures that EXIF turns; it is looked for once."""
        return find_evidence(Headers(self.images, self._entries.file_names), self._entries.sizes)

    @property
    def reading(self) -> Reading:  # type: ignore[override]
        """How the image files are read."""
        return Reading.of(self.evidence.exif if self.exif == "auto" else self.exif, self.white)

    def file_path(self, index: int) -> Path:
        """The image file of item ``index``."""
        return self.images / str(self.table.file_names[index])

    def name_of(self, index: int) -> str:
        """The image file of item ``index``."""
        return str(self.file_path(index))

    def image(self, index: int) -> Tensor:
        """Image ``index``, float32 [3, H, W], RGB in 0..1.

        Raises:
            DataError: its file is damaged, or its size is not the one in the annotation file.
        """
        height, width = self.table.sizes[index].tolist()
        return read_image(self.file_path(index), (height, width), str(self.annotations), self.reading)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        sample = super().__getitem__(index)
        return self.transform(*sample) if self.transform else sample
