"""Why detections are wrong and objects are not found, and what each kind of error costs.

The kinds are those of TIDE (Bolya, Foley, Hays, Hoffman: TIDE: A General Toolbox for Identifying Object Detection
Errors, ECCV 2020, sections 2.2 and 2.3), decided in the order of the authors' code (github.com/dbolya/tide). With
t_f = 0.5 and t_b = 0.1, a false positive is

============== ============================================================================================
localisation   t_b <= IoU < t_f with an object of its class
classification IoU >= t_f with an object of another class
duplicate      IoU >= t_f with an object of its class that a better detection has found
background     IoU < t_b with every object
both           what is left: t_b <= IoU < t_f with an object of another class
============== ============================================================================================

and an object is missed if no detection finds it and no localisation or classification error is about it. The cost of a
kind is the AP (at t_f) that is won if an oracle corrects all errors of it: it gives the best of the localisation and
classification errors about an object that is not found the right box or class, takes all other false positives of
the kind away, and takes missed objects out of the count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation.matches import FALSE, IGNORED, TRUE, Matches, precision_recall
from detector.evaluation.metrics import mean_known

FOREGROUND, BACKGROUND = 0.5, 0.1  # t_f, t_b
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, NOTHING, MISSED = range(len(KINDS))
NO_ERROR = -1


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of one run at an IoU of 0.5; N and G as in :class:`Matches`.

    Attributes:
        kind: int8 ``[N]``, position in :data:`KINDS` of a false positive; -1 for other detections.
        about: int32 ``[N]``, the object that a false positive is about; -1 for background and for no error.
        missed: bool ``[G]``.
        ap50: AP at an IoU of 0.5 with all errors; None without ground truth.
        cost: AP at 0.5 that correcting each kind would win, by its name.
        counts: int64 ``[K, 6]``, errors by class (of the detection, or the missed object) and kind.
    """

    kind: np.ndarray
    about: np.ndarray
    missed: np.ndarray
    ap50: float | None
    cost: dict[str, float]
    counts: np.ndarray

    @property
    def total(self) -> dict[str, int]:
        """Errors of each kind in all classes."""
        return dict(zip(KINDS, self.counts.sum(axis=0).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """AP at 0.5 and, by kind, what errors cost and how many there are."""
        return {"AP50": self.ap50, "cost": self.cost, "count": self.total}


def find_errors(matches: Matches) -> Errors:
    """Sort the false positives and the objects that are not found into the kinds of TIDE."""
    same, same_object, other, other_object = best_overlaps(matches)
    false = matches.outcome[0, 0] == FALSE
    kind = np.full(len(false), BOTH, dtype=np.int8)
    # The last condition that holds here is the first of the list.
    kind[np.maximum(same, other) < BACKGROUND] = NOTHING
    kind[same >= FOREGROUND] = DUPLICATE
    kind[other >= FOREGROUND] = CLASSIFICATION
    kind[(same >= BACKGROUND) & (same < FOREGROUND)] = LOCALISATION
    kind[~false] = NO_ERROR
    about = np.where(np.isin(kind, (CLASSIFICATION, BOTH)), other_object, same_object)
    about[(kind == NOTHING) | ~false] = -1

    found = matches.found_by[0] >= 0
    fixable = np.isin(kind, (CLASSIFICATION, LOCALISATION))
    fixable[fixable] = ~found[about[fixable]]
    missed = ~found & ~matches.crowd
    missed[about[fixable]] = False
    counts = np.zeros((len(matches.category_ids), len(KINDS)), dtype=np.int64)
    np.add.at(counts, (matches.label[false], kind[false]), 1)
    np.add.at(counts, (matches.object_label[missed], MISSED), 1)
    ap50, cost = _costs(matches, kind, about, fixable, missed)
    return Errors(kind, about.astype(np.int32), missed, ap50, cost, counts)


def best_overlaps(matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each detection the highest IoU with an object of its class and which, and the same for other classes.

    Crowds are no objects here. float64 and int64 ``[N]``; IoU 0 and object -1 where there is none.
    """
    count = len(matches.score)
    same, other = np.zeros(count), np.zeros(count)
    same_object, other_object = np.full(count, -1), np.full(count, -1)
    for rows, objects in matches.by_image:
        objects = objects[~matches.crowd[objects]]
        if not len(objects) or not len(rows):
            continue
        overlaps = matches.overlaps(rows, objects)
        alike = matches.label[rows, None] == matches.object_label[objects]
        for values, best, which in ((overlaps * alike, same, same_object), (overlaps * ~alike, other, other_object)):
            top = values.argmax(axis=1)
            best[rows] = values[np.arange(len(rows)), top]
            which[rows] = np.where(best[rows] > 0, objects[top], -1)
    return same, same_object, other, other_object


def _costs(
    matches: Matches, kind: np.ndarray, about: np.ndarray, fixable: np.ndarray, missed: np.ndarray
) -> tuple[float | None, dict[str, float]]:
    """AP at 0.5, and what correcting the errors of each kind would add to it."""
    positives = np.bincount(matches.object_label[matches.counted[0]], minlength=len(matches.category_ids))
    outcome, label = matches.outcome[0, 0], matches.label
    whole = _mean_ap(matches.score, outcome, label, positives, positives > 0)
    # The best detection about an object is corrected, the others about it are taken away.
    winner = np.zeros(len(kind), dtype=bool)
    candidates = np.flatnonzero(fixable)
    candidates = candidates[np.argsort(-matches.score[candidates], kind="stable")]
    winner[candidates[np.unique(about[candidates], return_index=True)[1]]] = True
    cost = {}
    for number, name in enumerate(KINDS):
        if number == MISSED:
            left = positives - np.bincount(matches.object_label[missed], minlength=len(positives))
            fixed = _mean_ap(matches.score, outcome, label, left, positives > 0)
        else:
            wrong = kind == number
            right = wrong & winner
            keep = ~wrong | right
            new_outcome = np.where(right, TRUE, outcome)
            new_label = label.copy()
            new_label[right] = matches.object_label[about[right]]
            fixed = _mean_ap(matches.score[keep], new_outcome[keep], new_label[keep], positives, positives > 0)
        cost[name] = max((fixed or 0.0) - (whole or 0.0), 0.0)
    return whole, cost


def _mean_ap(
    score: np.ndarray, outcome: np.ndarray, label: np.ndarray, positives: np.ndarray, classes: np.ndarray
) -> float | None:
    """Mean AP of the classes ``classes`` (bool ``[K]``); None if there is none.

    A class that has no objects any more counts 0 with detections and not at all without, as in the authors' code.
    """
    order = np.lexsort((-score, label))  # stable
    edges = np.searchsorted(label[order], np.arange(len(positives) + 1))
    values = np.full(len(positives), -1.0)
    for k in np.flatnonzero(classes):
        rows = order[edges[k] : edges[k + 1]]
        if positives[k]:
            values[k] = precision_recall(outcome[None, rows], int(positives[k]))[0].mean()
        elif (outcome[rows] != IGNORED).any():
            values[k] = 0.0
    return mean_known(values)
