"""How well the anchors of a model fit the objects of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.config.schema import AnchorConfig, ModelConfig
from detector.models.backbone import anchor_strides
from detector.models.proposals import anchor_sides

OVERLAP = 0.5
"""The IoU that findings on anchors are about: below, the RPN starts from a box that hardly is the object's."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects as the network gets them.

    Attributes:
        boxes: float64 ``[N, 4]``, x1, y1, x2, y2 in pixels of the resized images.
        inputs: float64 ``[N, 2]``, height and width of each box's resized image.
    """

    boxes: np.ndarray
    inputs: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sides(self) -> np.ndarray:
        """float64 ``[N, 2]``: width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def side(self) -> np.ndarray:
        """float64 ``[N]``: the square root of the area."""
        return np.sqrt(self.sides.prod(axis=1))

    @property
    def narrow(self) -> np.ndarray:
        """float64 ``[N]``: the shorter side."""
        return self.sides.min(axis=1)

    @property
    def ratio(self) -> np.ndarray:
        """float64 ``[N]``: height / width."""
        return self.sides[:, 1] / self.sides[:, 0]

    def sample(self, count: int) -> Objects:
        """``count`` of the objects, chosen at random and always the same; all of them if there are no more."""
        if len(self) <= count:
            return self
        rows = np.random.default_rng(0).choice(len(self), count, replace=False)
        return Objects(self.boxes[rows], self.inputs[rows])


def resized_sizes(sizes: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Height and width of images in the input that evaluation gives to the network; both ``[M, 2]``."""
    factor = np.minimum(config.min_size[-1] / sizes.min(axis=1), config.max_size / sizes.max(axis=1))
    return np.floor(sizes * factor[:, None]).clip(min=1)  # cut as torchvision cuts it


def resized_objects(boxes: np.ndarray, sizes: np.ndarray, config: ModelConfig) -> Objects:
    """Objects in the input that evaluation gives to the network.

    Args:
        boxes: float ``[N, 4]``, x1, y1, x2, y2 in pixels of the images.
        sizes: ``[N, 2]``, height and width in pixels of each box's image.
        config: says how images are resized.
    """
    sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    inputs = resized_sizes(sizes, config)
    return Objects(boxes * np.tile(inputs / sizes, 2)[:, [1, 0, 3, 2]], inputs)


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """Anchors and how well they overlap the objects.

    Attributes:
        sizes: side lengths in pixels of the resized image, one list per feature map.
        aspect_ratios: height / width.
        best_iou: float64 ``[N]``, the highest IoU of each object with any anchor at any location.
        matched: an anchor of at least this IoU is positive (``model.rpn.fg_iou_thresh``).
    """

    sizes: list[list[float]]
    aspect_ratios: list[float]
    best_iou: np.ndarray
    matched: float

    def recall(self, threshold: float) -> float:
        """The share of objects that have an anchor of at least this IoU; NaN without objects."""
        return float((self.best_iou >= threshold).mean()) if len(self.best_iou) else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean of the best IoU; NaN without objects."""
        return float(self.best_iou.mean()) if len(self.best_iou) else float("nan")

    @property
    def override(self) -> str:
        """The command-line arguments that choose these anchors."""
        lists = "],[".join(",".join(f"{s:g}" for s in sizes) for sizes in self.sizes)
        ratios = ",".join(f"{r:g}" for r in self.aspect_ratios)
        return f"model.anchors.sizes=[[{lists}]] model.anchors.aspect_ratios=[{ratios}]"


def fit_anchors(objects: Objects, config: ModelConfig) -> AnchorFit:
    """How well the anchors of ``config``, which :func:`~detector.models.faster_rcnn.check_model` accepts, fit."""
    sizes, ratios = config.anchors.sizes, config.anchors.aspect_ratios
    return AnchorFit(sizes, ratios, best_iou(objects, sizes, ratios, anchor_strides(config)), config.rpn.fg_iou_thresh)


def with_anchors(config: ModelConfig, sizes: list[list[float]], ratios: list[float]) -> ModelConfig:
    """``config`` with other anchors."""
    return replace(config, anchors=AnchorConfig(sizes=sizes, aspect_ratios=ratios))


def best_iou(
    objects: Objects, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]
) -> np.ndarray:
    """The highest IoU of each object with any anchor, float64 ``[N]``.

    Anchors are those of torchvision: their centres are multiples of a map's stride inside the image, and half their
    sides are whole pixels. Of all anchors of one shape, the one with the nearest centre in x and y overlaps most.
    """
    boxes, best = objects.boxes, np.zeros(len(objects))
    centre, area = (boxes[:, :2] + boxes[:, 2:]) / 2, objects.sides.prod(axis=1)
    for stride, of_map in zip(strides, sizes, strict=True):
        # Images are padded to multiples of 32 pixels. A map of a larger stride has its number of cells rounded up, and
        # anchors lie a whole number of pixels apart.
        padded = np.ceil(objects.inputs[:, ::-1] / 32) * 32
        cells = np.ceil(padded / stride)
        step = padded // cells
        nearest = np.clip(np.rint(centre / step), 0, cells - 1) * step
        for half in anchor_sides(of_map, ratios).numpy().astype(np.float64) / 2:
            low = np.maximum(nearest - half, boxes[:, :2])
            high = np.minimum(nearest + half, boxes[:, 2:])
            shared = np.clip(high - low, 0, None).prod(axis=1)
            best = np.maximum(best, shared / np.maximum(area + (2 * half).prod() - shared, 1e-9))
    return best
