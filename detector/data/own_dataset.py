"""A data set of the user's own, made by the class or function that ``data.name`` names."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.config.targets import build
from detector.data.annotations import Annotations, parse_annotations
from detector.data.coco import DetectionDataset, Target
from detector.data.coco_lists import coco_lists
from detector.data.own_transforms import as_image, as_tensor, kinds_in, told, what_is_wrong
from detector.exceptions import ConfigError, DataError
from detector.words import counted

logger = logging.getLogger(__name__)

KEY = "data.name"


class OwnData:
    """One split of a data set of the user's own.

    Its class is called with ``split`` and the arguments of the node. What it makes has ``class_names``, ``len()``, and
    items (image, target): the image is uint8 or float32 [3, H, W], RGB in 0..255 or 0..1; the target has ``boxes``
    [N, 4] as x1, y1, x2, y2 in pixels and ``labels`` [N] in 1..K, and may have ``image_id`` (else the index), ``area``
    and ``iscrowd`` [N]. ``category_ids`` is optional. An item is the same whenever it is asked for: random changes
    belong to ``augment.transforms``. All items are read once for their boxes and sizes; with ``target(index)`` and
    ``sizes`` (height and width of each image) that takes no images.

    Args:
        node: with ``_target_``.
        split: "train" or "val".
        workers: processes that read.
    """

    def __init__(self, node: Mapping[str, Any], split: str, workers: int) -> None:
        self.node, self.split, self.workers = node, split, workers
        self.name = f"{node['_target_']} ({split})"
        self._annotations: dict[tuple[str, ...], Annotations] = {}  # by the classes left out

    @cached_property
    def items(self) -> Any:
        """What the user's class makes.

        Raises:
            ConfigError: it cannot be made, or is no such data set.
        """
        made = build(self.node, KEY, split=self.split)
        where = f"{KEY}: {self.node['_target_']}: what it makes for split={self.split!r}"
        if lacking := [name for name in ("__len__", "__getitem__", "class_names") if not hasattr(made, name)]:
            raise ConfigError(f"{where} has no {' and no '.join(lacking)}")
        names = list(made.class_names)
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ConfigError(f"{where} has class_names {names}; they must be different texts")
        if len(getattr(made, "category_ids", names)) != len(names):
            raise ConfigError(f"{where} has {len(names)} class_names and {len(made.category_ids)} category_ids")
        return made

    def annotations(self, drop_categories: Sequence[str] = ()) -> Annotations:
        """The boxes of all items, as if they were of a file.

        Raises:
            ConfigError: see :attr:`items`; an item draws random numbers.
            DataError: an item cannot be read, or is not as it must be.
        """
        dropped = tuple(drop_categories)
        if dropped not in self._annotations:
            self._check_draws()
            self._annotations[dropped] = parse_annotations(Path(self.name), self._lists(), drop_categories=dropped)
        return self._annotations[dropped]

    def digest(self, drop_categories: Sequence[str] = ()) -> str:
        """Of the annotations, those of ``drop_categories`` left out."""
        read = self.annotations(drop_categories)
        digest = hashlib.sha256(repr((read.class_names, read.category_ids)).encode())
        for column in (read.image_ids, read.sizes, read.image, read.label, read.boxes_xywh, read.area, read.iscrowd):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]

    def _lists(self) -> dict[str, list[Any]]:
        targets: dict[int, Target] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for index, (size, target) in enumerate(self._read()):
            number = int(target.get("image_id", index))
            if number in targets:
                raise DataError(f"{self.name}: item {index} has the image_id {number} of an item before it")
            targets[number], sizes[number] = target, size
        names = list(self.items.class_names)
        categories = [int(i) for i in getattr(self.items, "category_ids", range(1, len(names) + 1))]
        return coco_lists(targets, sizes, names, categories, [f"{self.split}[{i}]" for i in range(len(targets))])

    def _read(self) -> Iterator[tuple[tuple[int, int], Target]]:
        """(height, width) and target of each item."""
        items = self.items
        if hasattr(items, "target") and hasattr(items, "sizes"):
            for index in range(len(items)):
                height, width = items.sizes[index]
                yield (int(height), int(width)), self._checked(index, None, items.target(index))
            return
        logger.info("data    reading %s of %s for their boxes and sizes; with target(index) and sizes it would take no "
                    "images", counted(len(items), "item"), self.name)  # fmt: skip
        loader = DataLoader(_Targets(self), batch_size=None, num_workers=self.workers)
        for content in loader:
            if isinstance(content, DataError):
                raise content
            yield content

    def item(self, index: int) -> tuple[Tensor, Target]:
        """The image as float32 [3, H, W] in 0..1, and the target.

        Raises:
            DataError: the user's code fails, or returns anything else.
        """
        where = f"{KEY}: {self.name}: item {index}"
        try:
            given = self.items[index]
        except Exception as error:  # whatever the user's code comes up with
            raise DataError(f"{where}: {told(error)}") from None
        try:
            image, target = given
            image = as_image(image)
        except Exception as error:
            raise DataError(f"{where} is {kinds_in(given)}, and must be an image and a target: {told(error)}") from None
        return image, self._checked(index, image, target)

    def _checked(self, index: int, image: Tensor | None, target: Any) -> Target:
        """The target with plain tensors; ``image`` is float32 [3, H, W] unless it is not looked at."""
        classes = len(self.items.class_names)
        try:
            boxes, labels = as_tensor(target["boxes"], 4), as_tensor(target["labels"])
            others = {key: as_tensor(target[key]) for key in ("area", "iscrowd") if key in target}
            others |= {"image_id": torch.tensor(int(target["image_id"]))} if "image_id" in target else {}
        except Exception as error:
            raise DataError(f"{self.name}: item {index}: {told(error)}. Its target must have boxes [N, 4] and labels "
                            "[N].") from None  # fmt: skip
        problem = what_is_wrong(torch.zeros(3, 1, 1) if image is None else image, boxes, labels)
        if wrong := [label for label in labels.tolist() if not 1 <= label <= classes]:
            problem = problem or f"the label {wrong[0]}; labels are 1..{classes}, in the order of class_names"
        for key in ("area", "iscrowd"):
            if key in others and len(others[key]) != len(boxes):
                problem = problem or f"{len(boxes)} boxes and {len(others[key])} numbers in {key}"
        if problem:
            raise DataError(f"{self.name}: item {index} has {problem}")
        return {"boxes": boxes, "labels": labels.long(), **others}

    def _check_draws(self) -> None:
        """Refuse a data set that draws: an item's boxes would be others than those that were read."""
        states = lambda: (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
        before = states()
        if len(self.items):
            self.item(0)
        if states() != before:
            raise ConfigError(
                f"{KEY}: {self.name}: item 0 draws random numbers; an item has to be the same whenever it is asked "
                "for. Random changes belong to augment.transforms, where they follow the seed."
            )


class _Targets(Dataset[Any]):
    """(height, width) and target of each item, or the :class:`DataError`; what loader processes hand over."""

    def __init__(self, data: OwnData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.items)

    def __getitem__(self, index: int) -> Any:
        try:
            image, target = self.data.item(index)
            return (image.shape[-2], image.shape[-1]), target
        except DataError as error:
            return error


class OwnDataset(DetectionDataset):
    """The items of an :class:`OwnData`, with the boxes that were read from it.

    Args:
        data: the split.
        read: what :meth:`OwnData.annotations` gives.
        on_invalid, keep_empty: as of :class:`~detector.data.coco.CocoDataset`.
    """

    def __init__(self, data: OwnData, read: Annotations, on_invalid: str, keep_empty: bool) -> None:
        super().__init__(read, None, on_invalid)
        self.data = data
        self.rows = np.arange(len(self))
        if not keep_empty:
            self.keep(np.flatnonzero(self.box_counts))

    def keep(self, rows: np.ndarray) -> None:
        """Keep the images at the positions ``rows`` only."""
        super().keep(rows)
        self.rows = self.rows[rows]

    def name_of(self, index: int) -> str:
        """The item that image ``index`` is."""
        return f"item {self.rows[index]} of {self.data.name}"

    def image(self, index: int) -> Tensor:
        """Image ``index``, float32 [3, H, W] in 0..1.

        Raises:
            DataError: it cannot be read, or its size is not the one that it had.
        """
        image, _ = self.data.item(int(self.rows[index]))
        height, width = self.table.sizes[index].tolist()
        if image.shape[-2:] != (height, width):
            raise DataError(f"{self.name_of(index)} is {image.shape[-1]} x {image.shape[-2]} pixels (width x height); "
                            f"it was, or sizes says, {width} x {height}")  # fmt: skip
        return image
