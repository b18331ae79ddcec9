"""What an analysis says in words: which errors cost most, where they are, and what usually helps."""

from __future__ import annotations

import numpy as np

from detector.evaluation.analysis import Analysis
from detector.evaluation.curves import SIDES
from detector.evaluation.errors import BOTH, CLASSIFICATION, KINDS, LOCALISATION, MISSED

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
    "missed": "See recall by size, and the anchors that scripts/inspect_data.py proposes; small objects need a larger "
              "input (model.min_size) or smaller anchors.",
}
WORTH = 0.005  # AP50 below which an error is not worth a sentence
ENOUGH = 20  # objects that a size must have to be spoken of


def findings(analysis: Analysis) -> list[str]:
    """Sentences, the most costly errors first."""
    if analysis.errors.ap50 is None:
        return ["There is no ground truth in these images: nothing can be said."]
    said = _costs(analysis) + _sizes(analysis) + _overlap(analysis) + _scores(analysis)
    return said or ["No kind of error costs more than a rounding error of AP50."]


def _costs(analysis: Analysis) -> list[str]:
    """The kinds of error that cost most, the classes they are in, and what helps."""
    errors, names = analysis.errors, analysis.matches.class_names
    said = []
    for kind, cost in sorted(errors.cost.items(), key=lambda item: -item[1]):
        if cost < WORTH:
            continue
        number = KINDS.index(kind)
        counts = errors.counts[:, number]
        top = int(counts.argmax())
        what = "objects" if number == MISSED else "detections"
        where = f", {counts[top]:,} of them {names[top]}" if len(names) > 1 else ""
        pair = _most_confused(analysis) if number in (CLASSIFICATION, BOTH) else ""
        subject = "Missed objects" if number == MISSED else f"{kind.capitalize()} errors"
        said.append(f"{subject} cost {cost:.3f} of AP50 ({counts.sum():,} {what}{where}): "
                    f"{MEANING[kind]}.{pair} {ADVICE[kind]}")
    return said


def _most_confused(analysis: Analysis) -> str:
    """The two classes that are taken for each other most often."""
    table = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(table, 0)
    if not table.size or not table.max():
        return ""
    true, taken = np.unravel_index(table.argmax(), table.shape)
    names = analysis.matches.class_names
    return f" Most often {names[true]} is taken for {names[taken]} ({table.max():,} times)."


def _sizes(analysis: Analysis) -> list[str]:
    """The size of object that is found least, if it is far behind."""
    counts, recall = analysis.side_counts, analysis.side_recall[:, 0]
    usable = np.flatnonzero(counts >= ENOUGH)
    if len(usable) < 2:
        return []
    worst = usable[recall[usable].argmin()]
    rest = usable[usable != worst]
    others = float((recall[rest] * counts[rest]).sum() / counts[rest].sum())
    if others - recall[worst] < 0.1:
        return []
    size = f"{SIDES[worst]:g} to {SIDES[worst + 1]:g}" if np.isfinite(SIDES[worst + 1]) else f"{SIDES[worst]:g} or more"
    return [f"Of the {counts[worst]:,} objects of a side of {size} pixels {recall[worst]:.0%} are found at any score, "
            f"of the others {others:.0%}. Larger inputs and smaller anchors help small objects; large ones need "
            "anchors of their size."]


def _overlap(analysis: Analysis) -> list[str]:
    """Whether AP falls fast with the overlap that is demanded."""
    ap50, ap75 = analysis.metrics["AP50"].value, analysis.metrics["AP75"].value
    if ap50 < 0.1 or ap75 >= 0.6 * ap50:
        return []
    loose = int((analysis.errors.kind == LOCALISATION).sum())
    return [f"AP falls from {ap50:.3f} at IoU 0.50 to {ap75:.3f} at 0.75: objects are found, but their boxes are not "
            f"exact ({loose:,} further detections do not even reach 0.50)."]


def _scores(analysis: Analysis) -> list[str]:
    """Whether scores can be read as probabilities."""
    found = analysis.calibration
    if found.error is None or found.error < 0.1:
        return []
    known = found.count > 0
    gap = np.average(found.score[known] - found.precision[known], weights=found.count[known])
    return [f"Scores are not probabilities: on average they are {abs(gap):.2f} too {'high' if gap > 0 else 'low'} "
            f"(expected calibration error {found.error:.3f}). Rank by them, but choose thresholds from the table."]
