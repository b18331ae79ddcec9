"""What a diagnosis says in words: which errors cost most, where they are, and what usually helps."""

from __future__ import annotations

import numpy as np

from detector.config.commands import command
from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.errors import CLASSIFICATION, KINDS, LOCALISATION, MISSED
from detector.evaluation.matches import TRUE
from detector.evaluation.slices import SIDES
from detector.words import counted

MEANING = {
    "classification": "the box is right (IoU 0.5 or more), the class is wrong",
    "localisation": "the class is right, the box overlaps its object too little (IoU 0.1 to 0.5)",
    "both": "the class is wrong and the box overlaps its object too little",
    "duplicate": "a second detection of an object that a better one has found",
    "background": "there is nothing (IoU below 0.1 with every object)",
    "missed": "no detection finds the object, and no wrong class or box is about it",
}
ADVICE = {
    "classification": "Compare the classes in the gallery: labels may be inconsistent, or the classes need more "
    "examples or more pixels (model.min_size).",
    "localisation": "Boxes get better with a longer training, a larger input (model.min_size) and a finer level to "
    "pool from; where labels are loose, AP at high IoU cannot rise.",
    "both": "Look at them in the gallery: often parts of objects, or several objects in one box.",
    "duplicate": "A lower model.head.nms_thresh removes more of them; objects that do overlap then suffer.",
    "background": "Look at them in the gallery: objects without a label are errors of the data. Otherwise more images "
    "without objects, or more proposals in the loss (model.head.batch_size_per_image).",
    "missed": f"See recall by size, and the anchors that `{command('inspect_data')}` "
    "proposes; small objects need a larger input (model.min_size) or smaller anchors.",
}
EXACT = (
    "A finer map to pool from (model=fpn, and there a larger roi.canonical_scale) and a larger input (model.min_size) "
    "make boxes more exact; labels that are loose cannot be matched closely."
)
WORTH = 0.005  # AP50 below which an error is not worth a sentence
ENOUGH = 20  # objects that a size or a class must have to be spoken of
MANY = 0.2  # share of an error's cases in one class from which that is worth saying
STEEP = 0.6  # AP75 as a share of AP50 below which boxes count as inexact
NAMED = 3  # classes that a sentence names


def findings(diagnosis: Diagnosis) -> list[str]:
    """Sentences, the most costly errors first."""
    if diagnosis.errors.ap50 is None:
        return ["There is no ground truth in these images: nothing can be said."]
    said = _nothing_found(diagnosis) or _costs(diagnosis) + _overlap(diagnosis) + _sizes(diagnosis) + _scores(diagnosis)
    if any("model." in sentence for sentence in said):
        said.append(f"The keys named here are those of `{command('train')}`: they count in the next training.")
    return said or ["No kind of error costs more than a rounding error of AP50."]


def _nothing_found(diagnosis: Diagnosis) -> list[str]:
    """What to look at first where there is no true positive at all: errors then cost nothing, as nothing is won."""
    if (diagnosis.matches.outcome[0, 0] == TRUE).any():
        return []
    if not len(diagnosis.matches.score):
        return [
            "There is no detection in these images. Has the detector been trained, and is its score threshold "
            "(score_thresh) low enough?"
        ]
    return [
        "No detection matches an object of its class at IoU 0.5. Are image and category ids those of the "
        "annotations, and boxes x, y, width, height in pixels of the original images? If so, the detector has "
        "learned nothing yet."
    ]


def _costs(diagnosis: Diagnosis) -> list[str]:
    """The kinds of error that cost most, the classes they are in, and what helps."""
    errors, names = diagnosis.errors, diagnosis.matches.class_names
    said = []
    for kind, cost in sorted(errors.cost.items(), key=lambda item: -item[1]):
        if cost < WORTH:
            continue
        number = KINDS.index(kind)
        counts = errors.counts[:, number]
        top = int(counts.argmax())
        what = "object" if number == MISSED else "detection"
        most = len(names) > 1 and counts[top] >= MANY * counts.sum()
        where = f", {counts[top]:,} of them {names[top]}" if most else ""
        pair = _most_confused(diagnosis) if number == CLASSIFICATION else ""
        named = {"missed": "Missed objects", "both": "Errors of class and box"}
        subject = named.get(kind, f"{kind.capitalize()} errors")
        said.append(
            f"{subject} cost {cost:.3f} of AP50 ({counted(counts.sum(), what)}{where}): "
            f"{MEANING[kind]}.{pair} {ADVICE[kind]}"
        )
    return said


def _most_confused(diagnosis: Diagnosis) -> str:
    """The two classes that are taken for each other most often."""
    table = diagnosis.confusion[:-1, :-1].copy()
    np.fill_diagonal(table, 0)
    if table.max(initial=0) < 2:
        return ""
    true, taken = np.unravel_index(table.argmax(), table.shape)
    names = diagnosis.matches.class_names
    return f" Most often {names[true]} is taken for {names[taken]} ({table.max():,} times)."


def _sizes(diagnosis: Diagnosis) -> list[str]:
    """The size of object that is found least, or found with the least exact boxes, if it is far behind."""
    return _worst_size(diagnosis, 0, "found at any score") or _worst_size(
        diagnosis, 5, "found with a box of IoU 0.75 or more"
    )


def _worst_size(diagnosis: Diagnosis, t: int, found: str) -> list[str]:
    """The size with the lowest recall at the IoU threshold of number ``t``, in words."""
    counts, recall = diagnosis.by_side.objects, diagnosis.by_side.recall[:, t]
    usable = np.flatnonzero(counts >= ENOUGH)
    if len(usable) < 2:
        return []
    worst = usable[recall[usable].argmin()]
    rest = usable[usable != worst]
    others = float((recall[rest] * counts[rest]).sum() / counts[rest].sum())
    if others - recall[worst] < 0.1:
        return []
    size = f"{SIDES[worst]:g} to {SIDES[worst + 1]:g}" if np.isfinite(SIDES[worst + 1]) else f"{SIDES[worst]:g} or more"
    return [
        f"Of the {counts[worst]:,} objects of a side of {size} pixels {recall[worst]:.0%} are {found}, "
        f"of the others {others:.0%}. Larger inputs and smaller anchors help small objects; large ones need "
        "anchors of their size."
    ]


def _overlap(diagnosis: Diagnosis) -> list[str]:
    """Whether AP falls fast with the overlap that is demanded, in all or in some classes."""
    ap50, ap75 = diagnosis.metrics["AP50"].value, diagnosis.metrics["AP75"].value
    if ap50 < 0.1:
        return []
    fall = f"AP falls from {ap50:.3f} at IoU 0.50 to {ap75:.3f} at 0.75"
    rows = [
        row
        for row in diagnosis.class_rows()
        if row["boxes"] >= ENOUGH and row["AP50"] >= 0.1 and row["AP75"] < STEEP * row["AP50"]
    ]
    rows.sort(key=lambda row: row["AP75"] - row["AP50"])
    worst = ", ".join(f"{row['class']} {row['AP50']:.3f} to {row['AP75']:.3f}" for row in rows[:NAMED])
    if ap75 < STEEP * ap50:
        loose = int((diagnosis.errors.kind == LOCALISATION).sum())
        classes = f" The steepest: {worst}." if worst and len(diagnosis.matches.class_names) > 1 else ""
        further = counted(loose, "further detection does", "further detections do")
        return [
            f"{fall}: objects are found, but their boxes are not exact ({further} not even reach 0.50).{classes} "
            f"{EXACT}"
        ]
    return (
        [
            f"{fall}, and more steeply in some classes: {worst}. There objects are found, but their boxes are not "
            f"exact. {EXACT}"
        ]
        if worst
        else []
    )


def _scores(diagnosis: Diagnosis) -> list[str]:
    """Whether scores can be read as probabilities."""
    found, scores = diagnosis.calibration, diagnosis.matches.score
    if found.error is None:
        return []
    if scores.min() < 0 or scores.max() > 1:
        return [
            f"Scores are not probabilities: they go from {scores.min():.3g} to {scores.max():.3g}. Choose "
            "thresholds from the table."
        ]
    if found.error < 0.1:
        return []
    known = found.count > 0
    gap = np.average(found.score[known] - found.precision[known], weights=found.count[known])
    return [
        f"Scores are not probabilities: on average they are {abs(gap):.2f} too {'high' if gap > 0 else 'low'} "
        f"(expected calibration error {found.error:.3f}). Rank by them, but choose thresholds from the table."
    ]
