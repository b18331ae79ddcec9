"""Checks that an exported detector finds what the model finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import box_iou

from detector.models.checkpoint import TrainedModel
from detector.words import counted

Found = dict[str, Tensor]  # boxes [N, 4], scores [N] and labels [N] of an image
Runner = Callable[[Tensor], Found]  # runs an exported detector on an image [3, H, W]

BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-5
# Beyond the tolerances, an exported detector may differ from the model by this factor times the rounding error of the
# model, which is its difference between float32 and float64. The model and the exported program each differ from the
# float64 result, in opposite directions at worst: by the rounding error of the model, and by up to twice that with
# onnxruntime's convolutions (measured, docs/export.md). 1 + 2 = 3.
ROUNDING = 3
# Two detections of one label are the same if they overlap at least this much and their scores differ at most this much.
SAME_IOU, SAME_SCORE = 0.9, 0.01


@dataclass
class Parity:
    """Differences between two detectors over some images.

    Attributes:
        images: number of images that were compared.
        detections: number of detections of the model.
        box: largest difference of a coordinate, in pixels.
        score: largest difference of a score.
        unmatched: number of detections that only one of them has.
        rounding: differences of the model between float32 and float64; None if they were not measured.
    """

    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    unmatched: int = 0
    rounding: Parity | None = None

    @property
    def close(self) -> bool:
        """Whether all differences are within the tolerances."""
        return self.unmatched == 0 and self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether all differences are within the tolerances, or within :data:`ROUNDING` times the rounding error."""
        if self.close or self.rounding is None:
            return self.close
        box = max(BOX_TOLERANCE, ROUNDING * self.rounding.box)
        score = max(SCORE_TOLERANCE, ROUNDING * self.rounding.score)
        return self.unmatched <= ROUNDING * self.rounding.unmatched and self.box <= box and self.score <= score

    def __str__(self) -> str:
        verdict = "equal" if self.close else "equal up to rounding" if self.holds else "NOT equal"
        lost = f", {counted(self.unmatched, 'detection')} of one only" if self.unmatched else ""
        own = ""
        if self.rounding:
            lost_too = f" and {self.rounding.unmatched} of them" if self.rounding.unmatched else ""
            own = f"; float32 alone costs {self.rounding.box:.2g} px, {self.rounding.score:.2g}{lost_too}"
        return (
            f"{verdict}: {counted(self.detections, 'detection')} in {counted(self.images, 'image')}, boxes within "
            f"{self.box:.2g} px, "
            f"scores within {self.score:.2g}{lost} (allowed {BOX_TOLERANCE:g} px, {SCORE_TOLERANCE:g}{own})"
        )


def check_parity(module: TrainedModel, images: list[Tensor], runners: dict[str, Runner]) -> dict[str, Parity]:
    """Compare what each of ``runners`` finds with what ``module`` finds, by name.

    Where a difference is outside the tolerances, the model is also compared with itself in float64. ``module`` is
    changed and cannot be used afterwards.
    """
    cuts = module.config.model.head.score_thresh, module.config.model.head.detections_per_image
    with torch.inference_mode():
        expected = [module([image])[0] for image in images]
        found = {name: [run(image) for image in images] for name, run in runners.items()}
        parity = {name: compare(expected, outputs, *cuts) for name, outputs in found.items()}
        if all(result.close for result in parity.values()):
            return parity
        module.double()
        wide = [module([image.double()])[0] for image in images]
    slack = max(SCORE_TOLERANCE, ROUNDING * compare(wide, expected, *cuts).score)
    rounding = compare(wide, expected, *cuts, slack)
    return {
        name: result if result.close else replace(compare(expected, found[name], *cuts, slack), rounding=rounding)
        for name, result in parity.items()
    }


def compare(
    model: Sequence[Found], exported: Sequence[Found], score_thresh: float, limit: int, slack: float = SCORE_TOLERANCE
) -> Parity:
    """Compare the detections of two detectors image by image, in pairs of :func:`match`.

    A detection may be in one list only if its score is within ``slack`` of the score threshold, or of the lowest score
    of a full list.

    Args:
        model: the detections of the model in each image, on the CPU.
        exported: the detections of the exported detector.
        score_thresh: detections have higher scores than this.
        limit: the largest number of detections per image.
        slack: by how much scores may differ.
    """
    result = Parity()
    for mine, other in zip(model, exported, strict=True):
        result.images += 1
        result.detections += len(mine["scores"])
        pairs = match(mine, other)
        for i, j in pairs:
            result.box = max(result.box, float((mine["boxes"][i] - other["boxes"][j]).abs().max()))
            result.score = max(result.score, float((mine["scores"][i] - other["scores"][j]).abs()))
        for found, paired in ((mine, {i for i, _ in pairs}), (other, {j for _, j in pairs})):
            full = len(found["scores"]) == limit
            cut = float(found["scores"].min()) if full else score_thresh
            alone = [score for i, score in enumerate(found["scores"].tolist()) if i not in paired]
            result.unmatched += sum(score > cut + slack for score in alone)
    return result


def match(mine: Found, other: Found) -> list[tuple[int, int]]:
    """Pairs of positions of the detections that are the same in both lists.

    Detections of nearly equal score may be in another order, so rank does not count. Each of ``mine``, highest score
    first, gets the remaining one of ``other`` that overlaps it most and is nearest in score. A pair has one label, an
    IoU of at least :data:`SAME_IOU` and scores within :data:`SAME_SCORE`.
    """
    if not len(mine["scores"]) or not len(other["scores"]):
        return []
    boxes, others = mine["boxes"].double(), other["boxes"].double()
    overlap = box_iou(boxes, others)
    # Rounding changes the overlap of boxes that are hardly wider than the tolerance.
    overlap[(boxes[:, None] - others).abs().amax(2) <= BOX_TOLERANCE] = 1.0
    difference = (mine["scores"][:, None].double() - other["scores"]).abs()
    same = (mine["labels"][:, None] == other["labels"]) & (overlap >= SAME_IOU) & (difference <= SAME_SCORE)
    likeness = (overlap - difference).where(same, -1.0)
    pairs = []
    for i in range(len(likeness)):
        j = int(likeness[i].argmax())
        if likeness[i, j] > -1:
            pairs.append((i, j))
            likeness[:, j] = -1.0
    return pairs
