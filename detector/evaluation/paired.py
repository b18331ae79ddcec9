"""Two or more runs on the same images: what the later ones have more or less than the first, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation.diagnosis import Diagnosis, diagnose
from detector.evaluation.intervals import RESAMPLES, Interval, Numbers, resample
from detector.evaluation.matches import Matches
from detector.evaluation.metrics import IOU_THRESHOLDS, plain
from detector.exceptions import DataError


@dataclass(frozen=True, eq=False)
class Changes:
    """How a run differs from the baseline in each of I images, at the best thresholds of each and IoU 0.5.

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
    def columns(self) -> dict[str, np.ndarray]:
        """The counts, and their balance, by name."""
        return {**vars(self), "net": self.net}

    @property
    def net(self) -> np.ndarray:
        """Objects won less objects lost and false positives added: above 0 where the run is better."""
        return self.won - self.lost - self.false_after + self.false_before

    @property
    def better(self) -> int:
        """Images in which the run is better."""
        return int((self.net > 0).sum())

    @property
    def worse(self) -> int:
        """Images in which it is worse."""
        return int((self.net < 0).sum())

    def most(self, count: int) -> tuple[list[int], list[int]]:
        """Positions of the up to ``count`` images that became better most, and of those that became worse."""
        better, worse = (np.argsort(-sign * self.net, kind="stable")[:count].tolist() for sign in (1, -1))
        return [i for i in better if self.net[i] > 0], [i for i in worse if self.net[i] < 0]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The runs, and how each but the first differs from the first.

    Attributes:
        names: of the runs, the baseline first.
        runs: the baseline and the others.
        differences: of the other runs, in their order.
        changes: the same, image by image.
    """

    names: list[str]
    runs: list[Diagnosis]
    differences: list[Numbers]
    changes: list[Changes]

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``comparison.json``: plain values, None where there is no ground truth."""
        classes = self.runs[0].matches.class_names
        pair = lambda found: dict(zip(("difference", "low", "high"), plain(found), strict=True))
        return {
            "baseline": self.names[0],
            "resamples": self.runs[0].resamples,
            "runs": [
                {
                    "name": name,
                    "metrics": {metric: plain(found.value) for metric, found in run.metrics.items()},
                    "intervals": {metric: plain(found[1:]) for metric, found in run.metrics.items()},
                    "errors": run.errors.to_dict(),
                }
                for name, run in zip(self.names, self.runs, strict=True)
            ],
            "differences": [
                {
                    "run": name,
                    "metrics": {metric: pair(found) for metric, found in numbers.metrics.items()},
                    "AP_by_iou": {f"{t:.2f}": pair(v) for t, v in zip(IOU_THRESHOLDS, numbers.by_iou, strict=True)},
                    "per_class": {
                        metric: {n: pair(v) for n, v in zip(classes, values, strict=True)}
                        for metric, values in numbers.by_class.items()
                    },
                    "images": {
                        "better": c.better,
                        "worse": c.worse,
                        "objects_won": int(c.won.sum()),
                        "objects_lost": int(c.lost.sum()),
                        "false_before": int(c.false_before.sum()),
                        "false_after": int(c.false_after.sum()),
                    },
                }
                for name, numbers, c in zip(self.names[1:], self.differences, self.changes, strict=True)
            ],
        }

    def by_metric(self) -> Iterator[tuple[str, list[Interval], list[Interval]]]:
        """Name of each of the twelve numbers, its value in each run, and the difference of each run but the first."""
        for name in self.runs[0].metrics:
            yield (
                name,
                [run.metrics[name] for run in self.runs],
                [found.metrics[name] for found in self.differences],
            )

    def by_class(self) -> Iterator[tuple[int, list[Interval], list[Interval]]]:
        """Position of each class, its AP in each run, and the difference of each run but the first."""
        for k in range(len(self.runs[0].matches.class_names)):
            yield (
                k,
                [run.numbers.by_class["AP"][k] for run in self.runs],
                [found.by_class["AP"][k] for found in self.differences],
            )

    def most_changed_classes(self) -> list[int]:
        """Positions of the classes by falling change of AP; those without ground truth last."""
        change = [max(abs(found.value) for found in differences) for _, _, differences in self.by_class()]
        return np.argsort(-np.nan_to_num(change, nan=-1.0), kind="stable").tolist()

    def metric_rows(self) -> list[dict[str, Any]]:
        """One row per metric: the value of each run, and of the others the difference with its interval."""
        return [{"metric": name, **self._row(*found)} for name, *found in self.by_metric()]

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class: its objects, the AP of each run, and the differences with their intervals."""
        m = self.runs[0].matches
        return [
            {
                "category_id": m.category_ids[k],
                "class": m.class_names[k],
                "boxes": m.class_counts(k)["boxes"],
                **self._row(*found),
            }
            for k, *found in self.by_class()
        ]

    def _row(self, values: Sequence[Interval], differences: Sequence[Interval]) -> dict[str, Any]:
        row = {name: plain(value.value) for name, value in zip(self.names, values, strict=True)}
        for name, found in zip(self.names[1:], differences, strict=True):
            row |= zip((f"{name} {part}" for part in ("difference", "low", "high")), plain(found), strict=True)
        return row

    def image_rows(self, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One row per image and run but the first, in the order of the images."""
        m = self.runs[0].matches
        boxes = np.bincount(m.object_image[m.counted[0]], minlength=len(m.image_ids))
        return [
            {
                "run": run,
                "image_id": image,
                "file_name": file_names[i],
                "boxes": int(boxes[i]),
                **{name: int(values[i]) for name, values in c.columns.items()},
            }
            for run, c in zip(self.names[1:], self.changes, strict=True)
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
    share = lambda i: None if progress is None else lambda done: progress((i + done) / len(runs))
    diagnosed = [diagnose(run, weights, share(i)) for i, run in enumerate(runs)]
    base, *others = diagnosed
    return Comparison(
        list(names),
        diagnosed,
        [other.measured.minus(base.measured) for other in others],
        [changes(base, other) for other in others],
    )


def check_paired(runs: Sequence[Matches]) -> None:
    """Raise :class:`DataError` unless all runs have the images, classes and objects of the first."""
    first = runs[0]
    for number, run in enumerate(runs[1:], start=2):
        if run.category_ids != first.category_ids:
            raise DataError(
                f"runs 1 and {number} cannot be paired: their categories differ, {first.category_ids} and "
                f"{run.category_ids}"
            )
        if not np.array_equal(run.image_ids, first.image_ids):
            only = np.setxor1d(run.image_ids, first.image_ids)
            raise DataError(
                f"runs 1 and {number} cannot be paired: they were scored on different images, "
                f"{len(first.image_ids)} and {len(run.image_ids)}, of which {len(only)} are not in both"
            )
        if not np.array_equal(run.object_id, first.object_id):
            raise DataError(f"runs 1 and {number} cannot be paired: their annotations differ")


def changes(base: Diagnosis, other: Diagnosis) -> Changes:
    """How ``other`` differs from ``base``, image by image."""
    count = len(base.matches.image_ids)
    tally = lambda images: np.bincount(images, minlength=count)
    objects = base.matches.object_image
    return Changes(
        tally(objects[other.found & ~base.found]),
        tally(objects[base.found & ~other.found]),
        tally(base.matches.image[base.false]),
        tally(other.matches.image[other.false]),
    )
