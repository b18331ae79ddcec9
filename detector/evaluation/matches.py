"""Which detection matches which object, as pycocotools matches them, kept in arrays.

Matching is the slow half of an evaluation and does not depend on which images are counted how often. Kept, it can be
accumulated again for any weighting of the images (:mod:`detector.evaluation.intervals`), and asked why a detection
counts as wrong (:mod:`detector.evaluation.errors`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.metrics import AREAS, COCO_LIMIT, IOU_THRESHOLDS, RECALLS, Accumulated, ClassResult, limits

FALSE, TRUE, IGNORED = 0, 1, 2
"""What a detection counts as: false positive, true positive, or nothing (crowds, areas outside the range)."""
CHUNK = 2**22  # elements of the largest array while matching


@dataclass(frozen=True, eq=False)
class Matches:
    """N detections and G objects of I images and K classes with their matches, for A = 4 area ranges, T = 10 IoUs.

    Detections are sorted by class, then by falling score, ties by image and by their order in it: the order in which
    pycocotools accumulates them. Those beyond the ``limit`` best of their image and class are left out.

    Attributes:
        image_ids: int64 ``[I]``, sorted.
        category_ids: the K category ids, sorted.
        class_names: their names.
        limit: detections counted for each image and class.
        given: int64 ``[K]``, detections of each class, those beyond the limit included.
        row: int64 ``[N]``, position of the detection among those given to :func:`match`.
        image: int32 ``[N]``, position in ``image_ids``.
        label: int32 ``[N]``, position in ``category_ids``.
        rank: int32 ``[N]``, 0 for the best of its image and class.
        score: float64 ``[N]``.
        boxes_xywh: float64 ``[N, 4]`` in pixels.
        area: float64 ``[N]``, see :class:`~detector.evaluation.detections.Detections`.
        outcome: uint8 ``[A, T, N]``: :data:`FALSE`, :data:`TRUE` or :data:`IGNORED`.
        partner: int32 ``[T, N]``, the object matched without regard to areas, crowds included; -1: none.
        object_id: int64 ``[G]``, annotation ids; objects are sorted by class, then image.
        object_image: int32 ``[G]``.
        object_label: int32 ``[G]``.
        object_boxes: float64 ``[G, 4]``, x, y, width, height in pixels.
        object_area: float64 ``[G]``.
        crowd: bool ``[G]``.
        counted: bool ``[A, G]``: objects that are to be found, in each area range.
    """

    image_ids: np.ndarray
    category_ids: list[int]
    class_names: list[str]
    limit: int
    given: np.ndarray
    row: np.ndarray
    image: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    boxes_xywh: np.ndarray
    area: np.ndarray
    outcome: np.ndarray
    partner: np.ndarray
    object_id: np.ndarray
    object_image: np.ndarray
    object_label: np.ndarray
    object_boxes: np.ndarray
    object_area: np.ndarray
    crowd: np.ndarray
    counted: np.ndarray

    @cached_property
    def detections_of(self) -> list[slice]:
        """The detections of each class."""
        return _slices(self.label, len(self.category_ids))

    @cached_property
    def objects_of(self) -> list[slice]:
        """The objects of each class."""
        return _slices(self.object_label, len(self.category_ids))

    @cached_property
    def found_by(self) -> np.ndarray:
        """int32 ``[T, G]``: the detection that matches each object without regard to areas, -1: none or a crowd."""
        found = np.full((len(IOU_THRESHOLDS), len(self.object_id)), -1, dtype=np.int32)
        for t, partner in enumerate(self.partner):
            hit = np.flatnonzero(partner >= 0)
            found[t, partner[hit]] = hit
        found[:, self.crowd] = -1
        return found

    @cached_property
    def by_image(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The detections of each image, best first, and its objects."""
        images = np.arange(len(self.image_ids) + 1)
        rows, objects = np.lexsort((-self.score, self.image)), np.argsort(self.object_image, kind="stable")
        edges = np.searchsorted(self.image[rows], images)
        object_edges = np.searchsorted(self.object_image[objects], images)
        return list(zip(np.split(rows, edges[1:-1]), np.split(objects, object_edges[1:-1]), strict=True))[: images[-1]]

    def overlaps(self, rows: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """IoU of detections with objects, crowds as such, by pycocotools: float64 ``[rows, objects]``."""
        if not len(rows) or not len(objects):
            return np.zeros((len(rows), len(objects)))
        crowd = self.crowd[objects].astype(np.uint8)
        return mask.iou(self.boxes_xywh[rows], self.object_boxes[objects], crowd)

    def class_counts(self, k: int) -> dict[str, Any]:
        """Objects of class ``k`` without crowds, images that have one, and detections given."""
        objects = self.objects_of[k]
        images = self.object_image[objects][self.counted[0, objects]]
        return {"boxes": len(images), "images": len(np.unique(images)), "detections": int(self.given[k])}

    def accumulated(self) -> Accumulated:
        """Precision and recall as pycocotools accumulates them, to the bit."""
        counts = limits(self.limit)
        shape = (len(self.category_ids), len(AREAS), len(counts))
        precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), *shape), -1.0)
        recall = np.full((len(IOU_THRESHOLDS), *shape), -1.0)
        for k, (rows, objects) in enumerate(zip(self.detections_of, self.objects_of, strict=True)):
            for a in range(len(AREAS)):
                positives = int(self.counted[a, objects].sum())
                for m, limit in enumerate(counts if positives else ()):
                    outcome = self.outcome[a, :, rows][:, self.rank[rows] < limit]
                    precision[:, :, k, a, m], recall[:, k, a, m] = precision_recall(outcome, positives)
        return Accumulated(precision, recall)

    def class_results(self, found: Accumulated) -> list[ClassResult]:
        """The numbers ``found`` of each class, with its counts."""
        values = found.by_class()
        rows = zip(self.category_ids, self.class_names, values["AP"], values["AP50"], values["AR100"], strict=True)
        return [ClassResult(*row, **self.class_counts(k)) for k, row in enumerate(rows)]


def _slices(labels: np.ndarray, classes: int) -> list[slice]:
    edges = np.searchsorted(labels, np.arange(classes + 1))
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def precision_recall(outcome: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at the 101 recalls, and the highest recall, of the detections of one class.

    Args:
        outcome: uint8 ``[T, n]`` of detections by falling score.
        positives: objects to be found, at least 1.

    Returns:
        float64 ``[T, 101]`` and ``[T]``.
    """
    true = np.cumsum(outcome == TRUE, axis=1).astype(np.float64)
    false = np.cumsum(outcome == FALSE, axis=1).astype(np.float64)
    interpolated = np.zeros((len(outcome), len(RECALLS)))
    if not outcome.shape[1]:
        return interpolated, np.zeros(len(outcome))
    recall = true / positives
    precision = true / (false + true + np.spacing(1))
    # The precision at a recall is the best at this recall or a higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for t in range(len(outcome)):
        position = np.searchsorted(recall[t], RECALLS, side="left")
        reached = position < outcome.shape[1]
        interpolated[t, reached] = precision[t, position[reached]]
    return interpolated, recall[:, -1]


def match(
    truth: GroundTruth, detections: Detections, image_ids: Sequence[int] | None = None, max_detections: int = COCO_LIMIT
) -> Matches:
    """Match detections to objects as ``COCOeval.evaluateImg`` does, for all classes, area ranges and IoU thresholds.

    Args:
        truth: the annotations.
        detections: of these and maybe other images.
        image_ids: images to be scored; None: all.
        max_detections: detections counted for each image and class, best first.

    Raises:
        DataError: a detection names an image or category that ``truth`` does not have, or is not finite.
    """
    truth.check(detections, image_ids)
    everything = np.array(truth.image_ids, dtype=np.int64)
    ids = everything if image_ids is None else np.unique(np.asarray(image_ids, dtype=np.int64))
    objects = np.flatnonzero(truth.rows(ids.tolist()))
    position = np.searchsorted(ids, everything[truth.image[objects]])
    order = np.lexsort((position, truth.label[objects]))  # stable: objects of a pair stay in the order of the file
    objects, object_image = objects[order], position[order]
    object_label = truth.label[objects]
    crowd, area = truth.iscrowd[objects], truth.area[objects]

    rows = np.flatnonzero(np.isin(detections.image_id, ids))
    image = np.searchsorted(ids, detections.image_id[rows])
    label = np.searchsorted(np.array(truth.category_ids, dtype=np.int64), detections.category_id[rows])
    given = np.bincount(label, minlength=len(truth.category_ids))
    score = detections.score[rows]
    order = np.lexsort((-score, image, label))
    rank = _rank(label[order] * len(ids) + image[order])
    order, rank = order[rank < max_detections], rank[rank < max_detections]
    again = np.lexsort((rank, image[order], -score[order], label[order]))
    order, rank = order[again], rank[again]
    rows, image, label, score = rows[order], image[order], label[order], score[order]
    boxes, size = detections.boxes_xywh[rows], detections.area[rows]

    bounds = np.array(list(AREAS.values()))
    counted = ~crowd & (area >= bounds[:, :1]) & (area <= bounds[:, 1:])
    outside = (size < bounds[:, :1]) | (size > bounds[:, 1:])
    # Unmatched until shown otherwise.
    outcome = np.repeat(np.where(outside, IGNORED, FALSE).astype(np.uint8)[:, None], len(IOU_THRESHOLDS), axis=1)
    as_int = lambda values: values.astype(np.int32)
    matches = Matches(
        ids,
        truth.category_ids,
        truth.class_names,
        max_detections,
        given,
        rows,
        as_int(image),
        as_int(label),
        as_int(rank),
        score,
        boxes,
        size,
        outcome,
        np.full((len(IOU_THRESHOLDS), len(rows)), -1, dtype=np.int32),
        truth.ids[objects],
        as_int(object_image),
        as_int(object_label),
        truth.boxes_xywh[objects],
        area,
        crowd,
        counted,
    )
    for group in _pairs(label * len(ids) + image, rank, object_label * len(ids) + object_image):
        _match_group(group, matches)
    return matches


def _rank(keys: np.ndarray) -> np.ndarray:
    """Position of each element, from 0, in its run of equal keys."""
    if not len(keys):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))


@dataclass
class _Group:
    """P pairs of an image and a class with up to D detections and G objects each; -1 fills up."""

    detections: np.ndarray  # int64 [P, D], by rank; pairs with more detections come first
    objects: np.ndarray  # int64 [P, G], the last of the file first


def _pairs(detection_keys: np.ndarray, rank: np.ndarray, object_keys: np.ndarray) -> Iterator[_Group]:
    """The pairs that have detections and objects, in groups of like size."""
    by_pair = np.lexsort((rank, detection_keys))
    keys, first, counts = np.unique(detection_keys[by_pair], return_index=True, return_counts=True)
    object_pairs, object_first, object_counts = np.unique(object_keys, return_index=True, return_counts=True)
    both, mine, theirs = np.intersect1d(keys, object_pairs, assume_unique=True, return_indices=True)
    if not len(both):
        return
    first, counts = first[mine], counts[mine]
    object_first, object_counts = object_first[theirs], object_counts[theirs]
    # Powers of two: at most half of a padded array is padding.
    width = np.ceil(np.log2(np.maximum(object_counts, 1))).astype(int)
    for w in np.unique(width):
        chosen = np.flatnonzero(width == w)
        chosen = chosen[np.argsort(-counts[chosen], kind="stable")]
        step = max(1, CHUNK // (len(AREAS) * len(IOU_THRESHOLDS) * 2**w))
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            columns = np.arange(counts[part].max())
            found = np.where(
                columns < counts[part, None], by_pair[np.minimum(first[part, None] + columns, len(by_pair) - 1)], -1
            )
            backwards = np.arange(object_counts[part].max())
            last = (object_first + object_counts)[part, None] - 1 - backwards
            yield _Group(found, np.where(backwards < object_counts[part, None], last, -1))


def _match_group(group: _Group, matches: Matches) -> None:
    """Match the pairs of a group rank by rank, all pairs, areas and thresholds at once.

    A detection takes the free object of highest IoU, of equal ones the last in the file; objects that are ignored
    (crowds, other areas) only if there is no other. Crowds are never used up. Writes ``outcome`` and ``partner``.
    """
    there = group.objects >= 0  # [P, G]
    is_crowd = matches.crowd[group.objects] & there
    ignored = ~matches.counted[:, group.objects]  # [A, P, G]
    # pycocotools wants a match to reach min(t, 1 - 1e-10).
    threshold = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None, None]
    free = np.broadcast_to(there, (len(AREAS), len(IOU_THRESHOLDS), *there.shape)).copy()
    overlaps = np.zeros((*group.detections.shape, group.objects.shape[1]))  # [P, D, G]
    for pair, (found, objects) in enumerate(zip(group.detections, group.objects, strict=True)):
        found, objects = found[found >= 0], objects[objects >= 0]
        overlaps[pair, : len(found), : len(objects)] = matches.overlaps(found, objects)
    for d in range(group.detections.shape[1]):
        active = int((group.detections[:, d] >= 0).sum())  # a prefix
        overlap = overlaps[:active, d]  # [p, G]
        open_ = free[:, :, :active] & (overlap >= threshold)
        if not open_.any():
            continue
        wanted = open_ & ~ignored[:, None, :active]
        best = np.where(wanted, overlap, -1.0).argmax(axis=-1)  # [A, T, p]; the first of equal ones
        normal = wanted.any(axis=-1)
        second = np.where(open_, overlap, -1.0).argmax(axis=-1)
        hit = open_.any(axis=-1)
        best = np.where(normal, best, second)
        a, t, p = np.nonzero(hit)
        g = best[a, t, p]
        free[a, t, p, g] = is_crowd[p, g]
        row, which = group.detections[p, d], group.objects[p, g]
        matches.outcome[a, t, row] = np.where(normal[a, t, p], TRUE, IGNORED)
        everywhere = a == 0
        matches.partner[t[everywhere], row[everywhere]] = which[everywhere]
