"""Two or more runs on the same images: what the later ones have more or less than the first, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation.errors import Errors, find_errors
from detector.evaluation.intervals import RESAMPLES, Interval, Numbers, measure, resample
from detector.evaluation.matches import FALSE, TRUE, Matches
from detector.evaluation.metrics import IOU_THRESHOLDS, plain
from detector.evaluation.thresholds import kept, operating_points
from detector.exceptions import DataError


@dataclass(frozen=True, eq=False)
class Compared:
    """One run.

    Attributes:
        name: how it is called in tables.
        matches: of its detections and the objects.
        kept: bool ``[N]``, detections from the best threshold of their class on.
        found: bool ``[G]``, objects found by one of these at an IoU of 0.5.
        numbers: the COCO numbers with their intervals.
        errors: the breakdown into kinds.
    """

    name: str
    matches: Matches
    kept: np.ndarray
    found: np.ndarray
    numbers: Numbers
    errors: Errors

    @property
    def false(self) -> np.ndarray:
        """bool ``[N]``: false positives that are kept."""
        return self.kept & (self.matches.outcome[0, 0] == FALSE)


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
        runs: the baseline and the others.
        differences: of the other runs, in their order.
        changes: the same, image by image.
        resamples: behind the intervals; 0 for none.
    """

    runs: list[Compared]
    differences: list[Numbers]
    changes: list[Changes]
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """What goes into ``comparison.json``: plain values, None where there is no ground truth."""
        names = self.runs[0].matches.class_names
        pair = lambda found: dict(zip(("difference", "low", "high"), plain(found), strict=True))
        return {
            "baseline": self.runs[0].name,
            "resamples": self.resamples,
            "runs": [
                {
                    "name": run.name,
                    "metrics": {name: plain(found.value) for name, found in run.numbers.metrics.items()},
                    "intervals": {name: plain(found[1:]) for name, found in run.numbers.metrics.items()},
                    "errors": run.errors.to_dict(),
                }
                for run in self.runs
            ],
            "differences": [
                {
                    "run": run.name,
                    "metrics": {name: pair(found) for name, found in numbers.metrics.items()},
                    "AP_by_iou": {f"{t:.2f}": pair(v) for t, v in zip(IOU_THRESHOLDS, numbers.by_iou, strict=True)},
                    "per_class": {
                        metric: {n: pair(v) for n, v in zip(names, values, strict=True)}
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
                for run, numbers, c in zip(self.runs[1:], self.differences, self.changes, strict=True)
            ],
        }

    def by_metric(self) -> Iterator[tuple[str, list[Interval], list[Interval]]]:
        """Name of each of the twelve numbers, its value in each run, and the difference of each run but the first."""
        for name in self.runs[0].numbers.metrics:
            yield (
                name,
                [run.numbers.metrics[name] for run in self.runs],
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
        row = {run.name: plain(value.value) for run, value in zip(self.runs, values, strict=True)}
        for run, found in zip(self.runs[1:], differences, strict=True):
            row |= zip((f"{run.name} {part}" for part in ("difference", "low", "high")), plain(found), strict=True)
        return row

    def image_rows(self, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One row per image and run but the first, in the order of the images."""
        m = self.runs[0].matches
        boxes = np.bincount(m.object_image[m.counted[0]], minlength=len(m.image_ids))
        return [
            {
                "run": run.name,
                "image_id": image,
                "file_name": file_names[i],
                "boxes": int(boxes[i]),
                **{name: int(values[i]) for name, values in c.columns.items()},
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
    share = lambda i: None if progress is None else lambda done: progress((i + done) / len(runs))
    measured = [measure(run, weights, progress=share(i)) for i, run in enumerate(runs)]
    compared = []
    for name, matches, found in zip(names, runs, measured, strict=True):
        keep = kept(matches, operating_points(matches))
        is_found = objects_found(matches, keep)
        compared.append(Compared(name, matches, keep, is_found, found.intervals(), find_errors(matches)))
    return Comparison(
        compared,
        [other.minus(measured[0]) for other in measured[1:]],
        [changes(compared[0], other) for other in compared[1:]],
        resamples,
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


def objects_found(matches: Matches, kept: np.ndarray) -> np.ndarray:
    """bool ``[G]``: the objects that a true positive among the detections ``kept`` matches at an IoU of 0.5."""
    found = np.zeros(len(matches.object_id), dtype=bool)
    hits = kept & (matches.outcome[0, 0] == TRUE)
    found[matches.partner[0, hits]] = True
    return found


def changes(base: Compared, other: Compared) -> Changes:
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
