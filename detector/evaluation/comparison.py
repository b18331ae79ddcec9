"""Two or more runs on the same images: what the later ones have more or less than the first, and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation import curves
from detector.evaluation.analysis import plain
from detector.evaluation.cocoeval import IOU_THRESHOLDS
from detector.evaluation.errors import KINDS, Errors, find_errors
from detector.evaluation.matches import FALSE, TRUE, Matches
from detector.evaluation.significance import (
    RESAMPLES,
    SHARE,
    Difference,
    Interval,
    check_paired,
    difference,
    interval,
    replicate,
    resample,
)


@dataclass(frozen=True, eq=False)
class Compared:
    """One run.

    Attributes:
        name: how it is called in tables.
        matches: of its detections and the objects.
        kept: bool ``[N]``, detections from the best threshold of their class on.
        found: bool ``[G]``, objects found by one of these at an IoU of 0.5.
        metrics: the twelve COCO numbers with their intervals.
        by_class: AP of each class.
        errors: the breakdown into kinds.
    """

    name: str
    matches: Matches
    kept: np.ndarray
    found: np.ndarray
    metrics: dict[str, Interval]
    by_class: list[Interval]
    errors: Errors

    @property
    def false(self) -> np.ndarray:
        """bool ``[N]``: false positives that are kept."""
        return self.kept & (self.matches.outcome[0, 0] == FALSE)


@dataclass(frozen=True, eq=False)
class Changes:
    """What a run does otherwise than the baseline in each of I images, at the best thresholds of each and IoU 0.5.

    Attributes:
        won: int64 ``[I]``, objects that it finds and the baseline does not.
        lost: objects that the baseline finds and it does not.
        false_before: false positives of the baseline.
        false_after: false positives of the run.
    """

    won: np.ndarray
    lost: np.ndarray
    false_before: np.ndarray
    false_after: np.ndarray

    @property
    def net(self) -> np.ndarray:
        """Objects won less objects lost and false positives added: above 0 where the run is better."""
        return self.won - self.lost - self.false_after + self.false_before

    def most(self, count: int) -> tuple[list[int], list[int]]:
        """Positions of the up to ``count`` images that became better most, and of those that became worse."""
        order = np.argsort(-self.net, kind="stable")
        better = [i for i in order[:count].tolist() if self.net[i] > 0]
        backwards = np.argsort(self.net, kind="stable")
        return better, [i for i in backwards[:count].tolist() if self.net[i] < 0]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The runs, and how each but the first differs from the first.

    Attributes:
        runs: the baseline and the others.
        differences: of the other runs, in their order.
        changes: the same, image by image.
        resamples: behind the intervals; 0 for none.
    """

    runs: list[Compared]
    differences: list[Difference]
    changes: list[Changes]
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``comparison.json``: plain values, None where there is no ground truth."""
        names = self.runs[0].matches.class_names
        pair = lambda found: {"difference": plain(found.value), "low": plain(found.low), "high": plain(found.high)}
        return {
            "baseline": self.runs[0].name,
            "resamples": self.resamples,
            "runs": [
                {
                    "name": run.name,
                    "metrics": {name: plain(found.value) for name, found in run.metrics.items()},
                    "intervals": {name: plain(found[1:]) for name, found in run.metrics.items()},
                    "errors": {
                        "AP50": run.errors.ap50,
                        "cost": run.errors.cost,
                        "count": dict(zip(KINDS, run.errors.counts.sum(axis=0).tolist(), strict=True)),
                    },
                }
                for run in self.runs
            ],
            "differences": [
                {
                    "run": run.name,
                    "metrics": {name: pair(found) for name, found in found_.metrics.items()},
                    "AP_by_iou": {f"{t:.2f}": pair(v) for t, v in zip(IOU_THRESHOLDS, found_.by_iou, strict=True)},
                    "per_class": {
                        metric: {n: pair(v) for n, v in zip(names, values, strict=True)}
                        for metric, values in found_.by_class.items()
                    },
                    "images": {
                        "better": int((c.net > 0).sum()),
                        "worse": int((c.net < 0).sum()),
                        "objects_won": int(c.won.sum()),
                        "objects_lost": int(c.lost.sum()),
                        "false_before": int(c.false_before.sum()),
                        "false_after": int(c.false_after.sum()),
                    },
                }
                for run, found_, c in zip(self.runs[1:], self.differences, self.changes, strict=True)
            ],
        }

    def metric_rows(self) -> list[dict[str, Any]]:
        """One row a metric: the value of each run, and of the others the difference with its interval."""
        return [
            {
                "metric": name,
                **self._row([run.metrics[name] for run in self.runs], [d.metrics[name] for d in self.differences]),
            }
            for name in self.runs[0].metrics
        ]

    def class_rows(self) -> list[dict[str, Any]]:
        """One row a class: its objects, the AP of each run, and the differences with their intervals."""
        m = self.runs[0].matches
        return [
            {
                "category_id": category,
                "class": name,
                "boxes": int(m.counted[0, m.objects_of[k]].sum()),
                **self._row([run.by_class[k] for run in self.runs], [d.by_class["AP"][k] for d in self.differences]),
            }
            for k, (category, name) in enumerate(zip(m.category_ids, m.class_names, strict=True))
        ]

    def _row(self, values: Sequence[Interval], differences: Sequence[Interval]) -> dict[str, Any]:
        row = {run.name: plain(value.value) for run, value in zip(self.runs, values, strict=True)}
        for run, found in zip(self.runs[1:], differences, strict=True):
            row |= {
                f"{run.name} difference": plain(found.value),
                f"{run.name} low": plain(found.low),
                f"{run.name} high": plain(found.high),
            }
        return row

    def image_rows(self, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One row an image and run but the first, in the order of the images."""
        m = self.runs[0].matches
        boxes = np.bincount(m.object_image[m.counted[0]], minlength=len(m.image_ids))
        return [
            {
                "run": run.name,
                "image_id": image,
                "file_name": file_names[i],
                "boxes": int(boxes[i]),
                "won": int(c.won[i]),
                "lost": int(c.lost[i]),
                "false_before": int(c.false_before[i]),
                "false_after": int(c.false_after[i]),
                "net": int(c.net[i]),
            }
            for run, c in zip(self.runs[1:], self.changes, strict=True)
            for i, image in enumerate(m.image_ids.tolist())
        ]


def compare(
    names: Sequence[str],
    runs: Sequence[Matches],
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> Comparison:
    """Compare runs with the first of them.

    Args:
        names: of the runs.
        runs: two or more, scored on the same images and classes.
        resamples: of the images, the same for all runs; 0: no intervals.
        seed: of the resamples.
        progress: told the share of the resampling that is done.

    Raises:
        DataError: the runs were not scored on the same images and classes.
    """
    check_paired(runs)
    weights = resample(len(runs[0].image_ids), resamples, seed)
    ones = np.ones((1, weights.shape[1]))
    share = lambda i: None if progress is None else lambda done: progress((i + done) / len(runs))
    samples = [replicate(run, weights, share(i)) for i, run in enumerate(runs)]
    points = [replicate(run, ones) for run in runs]
    compared = []
    for name, matches, found in zip(names, runs, samples, strict=True):
        precision = matches.accumulated()
        metrics, replicated, classes = precision.metrics(), found.metrics(), found.by_class()["AP"]
        ap = precision.precision[:, :, :, 0, -1]
        values = [float(ap[:, :, k].mean()) if ap[0, 0, k] >= 0 else None for k in range(len(matches.category_ids))]
        kept = curves.kept(matches, curves.operating_points(matches))
        compared.append(
            Compared(
                name,
                matches,
                kept,
                objects_found(matches, kept),
                {metric: interval(metrics[metric], replicated[metric], possible=SHARE) for metric in metrics},
                [interval(value, classes[k], possible=SHARE) for k, value in enumerate(values)],
                find_errors(matches),
            )
        )
    return Comparison(
        compared,
        [difference(samples[0], other, points[0], point) for other, point in zip(samples[1:], points[1:], strict=True)],
        [changes(compared[0], other) for other in compared[1:]],
        resamples,
    )


def objects_found(matches: Matches, kept: np.ndarray) -> np.ndarray:
    """bool ``[G]``: the objects that a true positive among the detections ``kept`` matches at an IoU of 0.5."""
    found = np.zeros(len(matches.object_id), dtype=bool)
    hits = kept & (matches.outcome[0, 0] == TRUE)
    found[matches.partner[0, hits]] = True
    return found


def changes(base: Compared, other: Compared) -> Changes:
    """What ``other`` does otherwise than ``base``, image by image."""
    count = len(base.matches.image_ids)
    tally = lambda images: np.bincount(images, minlength=count)
    objects = base.matches.object_image
    return Changes(
        tally(objects[other.found & ~base.found]),
        tally(objects[base.found & ~other.found]),
        tally(base.matches.image[base.false]),
        tally(other.matches.image[other.false]),
    )
