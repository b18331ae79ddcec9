"""The data doctor: what is in a data set, what is wrong with it, and how well the model's anchors fit it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.config.schema import DataConfig, InspectConfig, ModelConfig
from detector.config.targets import word_of
from detector.data.annotations import read_annotations
from detector.data.left_out import check_dropped
from detector.data.splits import Split, find_split, has_split, is_own
from detector.exceptions import ConfigError
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.anchor_fit import OVERLAP, AnchorFit
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
        anchors: how they fit the training boxes, without crowd regions; None without training boxes.
        model: the configuration that they belong to.
        white: the value of 16-bit files that is white.
    """

    splits: list[ExaminedSplit]
    class_names: list[str]
    exif: list[str]
    twins: list[Twins]
    anchors: AnchorStudy | None
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
            "train_side": quantiles(self.anchors.objects.side) if self.anchors else {},
            "train_height_by_width": quantiles(self.anchors.objects.ratio) if self.anchors else {},
            "anchors": {name: fit_dict(fit) for name, fit in self.anchors.fits.items()} if self.anchors else {},
            "same_images": [
                {"first": pair(t.first), "second": pair(t.second), "same_file": t.kind == "file"}
                for t in self.twins
                if t.copy
            ],
            "nearly_alike_images": [[pair(t.first), pair(t.second)] for t in self.twins if not t.copy],
        }


def quantiles(values: np.ndarray) -> dict[str, float]:
    """The quantiles of ``values``."""
    return {f"{q:g}": value for q, value in zip(QUANTILES, np.quantile(values, QUANTILES).tolist(), strict=True)}


def fit_dict(fit: AnchorFit) -> dict[str, Any]:
    """The fit of anchors as JSON holds it."""
    reached = {"recall_50": fit.recall(OVERLAP), "recall_matched": fit.recall(fit.matched), "matched_iou": fit.matched}
    sizes = {"sizes": fit.sizes, "aspect_ratios": fit.aspect_ratios}
    return {**sizes, **reached, "mean_iou": fit.mean_iou, "arguments": fit.override}


def splits_of(data: DataConfig) -> list[Split]:
    """The training split and, if there is one, the validation split.

    Raises:
        ConfigError: the data set is one of the user's own.
        DataError: there is no training file.
    """
    if is_own(data):
        raise ConfigError(
            f"data.name: {word_of(data.name)}: inspect_data looks into annotation files and image files only. Training "
            "checks boxes, labels and images of such a data set itself: debug=fast ends soon after that."
        )
    return [find_split(data, name) for name in ("train", "val") if name == "train" or has_split(data, name)]


def examine(
    config: InspectConfig, splits: Sequence[Split], progress: Callable[[float], object] = lambda share: None
) -> Examination:
    """Read the splits, look into their images, and hold the anchors against the boxes.

    Raises:
        DataError: a file or folder is missing, or is no annotation file at all.
    """
    dropped = config.data.drop_categories
    reads = []
    for split in splits:
        with split.naming_keys():
            reads.append(read_annotations(split.annotations, strict=False, drop_categories=dropped))
    check_dropped(dropped, reads, "data.drop_categories")
    found, exif, twins = examine_splits(config, splits, reads, progress)
    names = {c: n for s in reversed(found) for c, n in zip(s.read.category_ids, s.read.class_names, strict=True)}
    train = found[0]
    used = ~train.crowd
    sizes = train.read.sizes[train.image[used]]
    return Examination(
        splits=found,
        class_names=list(dict.fromkeys(names[c] for c in sorted(names))),
        exif=exif,
        twins=twins,
        anchors=AnchorStudy(train.boxes[used], sizes, config.model) if used.any() else None,
        model=config.model,
        white=config.data.white,
    )
