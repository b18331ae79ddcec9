"""Whether an exported detector finds what the model finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Found = dict[str, Tensor]

BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-5
# An exported detector may differ from the model by so many times what float32 itself costs, where that is more than the
# tolerance: a photograph that is made much smaller, for instance, comes out of every library's resize with other last
# digits, and boxes are scaled up again.
ROUNDING = 5


@dataclass
class Parity:
    """Differences between two detectors over some images.

    Attributes:
        images: compared.
        detections: those of the model.
        box: largest difference of a coordinate, pixels.
        score: largest difference of a score.
        unmatched: detections that only one of them has, or has with another label.
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
        return self.unmatched == 0 and self.box <= box and self.score <= score

    def __str__(self) -> str:
        verdict = "equal" if self.close else "equal up to rounding" if self.holds else "NOT equal"
        lost = f", {self.unmatched} detections of one only" if self.unmatched else ""
        own = self.rounding and f"; float32 alone costs {self.rounding.box:.2g} px and {self.rounding.score:.2g}"
        return (f"{verdict}: {self.detections} detections in {self.images} images, boxes within {self.box:.2g} px, "
                f"scores within {self.score:.2g}{lost} (allowed {BOX_TOLERANCE:g} px, {SCORE_TOLERANCE:g}{own or ''})")


def compare(model: Sequence[Found], exported: Sequence[Found], score_thresh: float, limit: int) -> Parity:
    """Match the detections of both image by image, each with the nearest of its label.

    Detections of nearly equal score may stand in another order, and one at the score threshold, or at the end of a full
    list, within the tolerance, may be in one list only.

    Args:
        model: ``boxes`` [N, 4], ``scores`` [N] and ``labels`` [N] of each image, on the CPU.
        exported: the same of the exported detector.
        score_thresh: detections have higher scores than this.
        limit: most detections of an image.
    """
    result = Parity()
    for mine, other in zip(model, exported, strict=True):
        result.images += 1
        result.detections += len(mine["scores"])
        left = list(range(len(other["scores"])))
        lost = []
        for i, (box, score, label) in enumerate(zip(mine["boxes"], mine["scores"], mine["labels"], strict=True)):
            near = [j for j in left if other["labels"][j] == label]
            if not near:
                lost.append((mine, i))
                continue
            boxes = (other["boxes"][near] - box).abs().amax(1)
            scores = (other["scores"][near] - score).abs()
            best = int((boxes / BOX_TOLERANCE + scores / SCORE_TOLERANCE).argmin())
            if boxes[best] > 1 or scores[best] > 0.01:  # another object
                lost.append((mine, i))
                continue
            result.box = max(result.box, float(boxes[best]))
            result.score = max(result.score, float(scores[best]))
            left.remove(near[best])
        lost += [(other, j) for j in left]
        for found, i in lost:
            cut = float(found["scores"].min()) if len(found["scores"]) == limit else score_thresh
            result.unmatched += bool(found["scores"][i] > cut + SCORE_TOLERANCE)
    return result


def unpadded(boxes: Tensor, scores: Tensor, labels: Tensor, count: Tensor) -> Found:
    """The detections of a :class:`~detector.inference.export.static.StaticDetector`."""
    n = int(count)
    return {"boxes": boxes[:n], "scores": scores[:n], "labels": labels[:n]}
