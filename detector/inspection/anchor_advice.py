"""How many objects the anchors of a configuration reach, which they miss, and what reaches more, in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from detector.config.schema import ModelConfig
from detector.inspection.anchor_fit import OVERLAP, AnchorFit, Objects, fit_anchors, resized_objects
from detector.inspection.anchor_search import MEASURED, propose_anchors
from detector.models.backbone import anchor_strides

ENOUGH = 2 / 3  # share of the objects with an anchor of IoU OVERLAP below which training says so
BETTER = 0.02  # something else is proposed if it reaches so much more of the objects
LARGER = 2  # factor of the input size that is tried
TELLING = 0.5  # an extent tells which objects are missed if the shares on its two sides differ by so much

# Words for the objects beyond a limit, whether beyond is below (-1) or above (1) it, and what is limited.
EXTENTS: tuple[tuple[str, int, Callable[[Objects], np.ndarray]], ...] = (
    ("narrower than {:g} pixels", -1, lambda o: o.narrow),
    ("larger than {0:g} x {0:g} pixels", 1, lambda o: o.side),
    ("more than {:g} times as long as wide", 1, lambda o: np.maximum(o.ratio, 1 / o.ratio)),
)


class Option(NamedTuple):
    """Something that reaches more objects: a name, how it fits, and the arguments that choose it."""

    name: str
    fit: AnchorFit
    arguments: str


@dataclass(frozen=True, eq=False)
class AnchorStudy:
    """How anchors fit the training boxes.

    Attributes:
        boxes: float ``[N, 4]``, x1, y1, x2, y2 in pixels of the images; at least one.
        sizes: ``[N, 2]``, height and width in pixels of each box's image.
        model: accepted by :func:`~detector.models.faster_rcnn.check_model`.
    """

    boxes: np.ndarray
    sizes: np.ndarray
    model: ModelConfig

    @cached_property
    def objects(self) -> Objects:
        """The boxes in the network's input."""
        return resized_objects(self.boxes, self.sizes, self.model)

    @cached_property
    def configured(self) -> AnchorFit:
        """The fit of the anchors of ``model``."""
        return fit_anchors(self.objects, self.model)

    @cached_property
    def proposed(self) -> AnchorFit:
        """The fit of the best anchors that were found."""
        return propose_anchors(self.objects, self.model)

    @property
    def fits(self) -> dict[str, AnchorFit]:
        """Both by name."""
        return {"configured": self.configured, "proposed": self.proposed}

    @property
    def thresholds(self) -> list[float]:
        """The IoUs that are spoken of: 0.5, and that from which the RPN learns an anchor as an object."""
        return [OVERLAP, *({self.configured.matched} - {OVERLAP})]

    @property
    def enough(self) -> bool:
        """Whether two thirds of the objects have an anchor of IoU 0.5."""
        return self.configured.recall(OVERLAP) >= ENOUGH

    def finding(self) -> str:
        """How many objects the configured anchors reach, and which they miss."""
        parts = [f"{self.configured.recall(iou):.0%} one of {iou:g}" for iou in self.thresholds[1:]]
        first = f"{self.configured.recall(self.thresholds[0]):.0%} of the training boxes have an anchor of IoU"
        return f"{', '.join([f'{first} {self.thresholds[0]:g} or more', *parts])}. {self.missed()}"

    def missed(self) -> str:
        """Which objects have no anchor of IoU 0.5, by the extent that tells it best."""
        missed, best, said = self.configured.best_iou < OVERLAP, TELLING, ""
        for words, sign, measure in EXTENTS if missed.any() and not missed.all() else ():
            extent = measure(self.objects)
            # Two digits, rounded so that the missed objects stay beyond it.
            limit = sign * two_digits_below(telling_limit(sign * extent, missed))
            beyond = sign * extent > sign * limit
            index = float(beyond[missed].mean() - beyond[~missed].mean())
            if index > best and not beyond.all():
                shares = f"{missed[beyond].mean():.0%} of those {words.format(limit)}, {missed[~beyond].mean():.0%}"
                best, said = index, f"Without one of {OVERLAP:g} are {shares} of the others"
        low, high = (f"{side:.0f}" for side in np.quantile(self.objects.side, (0.1, 0.9)))
        sizes = [size for of_map in self.configured.sizes for size in of_map]
        strides = ", ".join(map(str, anchor_strides(self.model)))
        return said or (
            f"Most of them have sides of {low if low == high else f'{low} to {high}'} pixels in the network's input, "
            f"the anchors of {min(sizes):g} to {max(sizes):g} on maps of stride {strides}"
        )

    def options(self) -> list[Option]:
        """What reaches more objects: other anchors, a larger input, or both if neither is enough. The best is first;
        anchors are before an input that is hardly better, as it takes four times the arithmetic."""
        anchors = Option("Other anchors", self.proposed, self.proposed.override)
        gained = lambda option, than, iou: option.fit.recall(iou) >= than.recall(iou) + BETTER
        found = [anchors] if any(gained(anchors, self.configured, iou) for iou in self.thresholds) else []
        if self.enough:
            return found
        model = self.model
        larger = replace(model, min_size=[LARGER * side for side in model.min_size], max_size=LARGER * model.max_size)
        objects = resized_objects(self.boxes, self.sizes, larger).sample(MEASURED)
        arguments = f"model.min_size=[{','.join(map(str, larger.min_size))}] model.max_size={larger.max_size}"
        enlarged = Option("Twice the input size", fit_anchors(objects, larger), arguments)
        if gained(enlarged, self.configured, OVERLAP):
            first = gained(enlarged, self.proposed, OVERLAP) and self.proposed.recall(OVERLAP) < ENOUGH
            found.insert(0 if first else len(found), enlarged)
        if all(option.fit.recall(OVERLAP) < ENOUGH for option in found):
            fit = propose_anchors(objects, larger)
            both = Option("Twice the input size with other anchors", fit, f"{arguments} {fit.override}")
            if all(gained(both, option.fit, OVERLAP) for option in (*found, Option("", self.configured, ""))):
                found.insert(0, both)
        return found

    def advice(self) -> list[str]:
        """What the doctor says; nothing if enough is reached and nothing reaches more."""
        said = [] if self.enough else [f"{self.finding()}."]
        for name, fit, arguments in self.options():
            shares = [f"{fit.recall(t):.0%} instead of {self.configured.recall(t):.0%}" for t in self.thresholds]
            first = f"{shares[0]} of the training boxes have an anchor of IoU {self.thresholds[0]:g} or more"
            others = [f", {share} one of {t:g}" for share, t in zip(shares[1:], self.thresholds[1:], strict=True)]
            said.append(f"{name} would fit better: {first}{''.join(others)}, with {arguments}")
        return said


def telling_limit(values: np.ndarray, missed: np.ndarray) -> float:
    """The limit that best parts the ``missed`` objects, which have larger values, from the others.

    The highest difference of two shares: of the missed objects above the limit, and of the others above it (Youden's
    index). The limit lies half-way between two values.
    """
    order = np.argsort(-values, kind="stable")
    values, missed = values[order], missed[order]
    hits, alarms = np.cumsum(missed) / max(missed.sum(), 1), np.cumsum(~missed) / max((~missed).sum(), 1)
    index = (hits - alarms)[:-1]
    index[values[:-1] == values[1:]] = -1
    best = int(index.argmax()) if len(index) else 0
    return float(values[best : best + 2].mean())


def two_digits_below(value: float) -> float:
    """``value`` with two digits at most and none behind the first decimal, rounded down."""
    unit = max(10.0 ** (math.floor(math.log10(abs(value))) - 1), 0.1) if value else 1.0
    return math.floor(value / unit) * unit
