"""Whether an exported detector finds what the model finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import box_iou

from detector.words import counted

Found = dict[str, Tensor]

BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-5
# Where that is more than the tolerance, an exported detector may differ from the model by so many times what float32
# itself costs the model, which is how far the model is from itself in float64. Two float32 programs are that far from
# float64 each, on different sides at worst, and onnxruntime's convolutions measured up to twice as far as PyTorch's
# (docs/export.md): 1 + 2.
ROUNDING = 3
# Detections of one label are the same one if they overlap so much, and their scores are so close.
SAME_IOU, SAME_SCORE = 0.9, 0.01


@dataclass
class Parity:
    """Differences between two detectors over some images.

    Attributes:
        images: compared.
        detections: those of the model.
        box: largest difference of a coordinate, pixels.
        score: largest difference of a score.
        unmatched: detections that only one of them has, or has with another label or at another place.
        rounding: how the model in float32 differs from itself in float64, where that was looked at.
    """

    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    unmatched: int = 0
    rounding: Parity | None = None

    @property
    def close(self) -> bool:
        """Whether all is within the tolerances."""
        return self.unmatched == 0 and self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether all is within the tolerances, or within :data:`ROUNDING` times what float32 costs."""
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


def compare(
    model: Sequence[Found], exported: Sequence[Found], score_thresh: float, limit: int, slack: float = SCORE_TOLERANCE
) -> Parity:
    """Compare the detections of both image by image, in pairs of :func:`match`.

    A detection whose score is within ``slack`` of the score threshold, or of the end of a full list, may be in one list
    only.

    Args:
        model: ``boxes`` [N, 4], ``scores`` [N] and ``labels`` [N] of each image, on the CPU.
        exported: the same of the exported detector.
        score_thresh: detections have higher scores than this.
        limit: most detections of an image.
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
    """Which detections of two lists are the same: pairs of positions.

    By overlap and score, not by rank: detections of nearly equal score may stand in another order. Each of ``mine``,
    best score first, takes the one that overlaps it most and is nearest in score, of those of its label that
    overlap by :data:`SAME_IOU` and are within :data:`SAME_SCORE`.
    """
    if not len(mine["scores"]) or not len(other["scores"]):
        return []
    boxes, others = mine["boxes"].double(), other["boxes"].double()
    overlap = box_iou(boxes, others)
    # The overlap of boxes that are hardly wider than the tolerance says nothing.
    overlap[(boxes[:, None] - others).abs().amax(2) <= BOX_TOLERANCE] = 1.0
    apart = (mine["scores"][:, None].double() - other["scores"]).abs()
    same = (mine["labels"][:, None] == other["labels"]) & (overlap >= SAME_IOU) & (apart <= SAME_SCORE)
    likeness = (overlap - apart).where(same, -1.0)
    pairs = []
    for i in range(len(likeness)):
        j = int(likeness[i].argmax())
        if likeness[i, j] > -1:
            pairs.append((i, j))
            likeness[:, j] = -1.0
    return pairs


def unpadded(boxes: Tensor, scores: Tensor, labels: Tensor, count: Tensor) -> Found:
    """The detections of a :class:`~detector.export.static.StaticDetector`."""
    n = int(count)
    return {"boxes": boxes[:n], "scores": scores[:n], "labels": labels[:n]}
