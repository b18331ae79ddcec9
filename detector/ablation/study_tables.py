"""The tables of a study's report, as text: what Markdown, LaTeX and HTML show alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.ablation.diagnostics import EVALUATED
from detector.ablation.paired_differences import ALPHA, MOST_SEEDS, POWER, limited_by_images, seeds_needed
from detector.ablation.study_analysis import Analysis
from detector.evaluation.intervals import Interval
from detector.words import counted, three_digits

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
BY_SIZE = SHOWN[:-1]


@dataclass
class ReportTable:
    """A table of texts with what a reader has to know about it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: Sequence[str] = ()


def tables(analysis: Analysis, diagnostics: dict[str, Any]) -> list[ReportTable]:
    """All tables that have something to show, in the order of the report."""
    found = [results(analysis), differences(analysis), by_size(analysis), costs(analysis), seeds(analysis),
             published(analysis), *operators(diagnostics)]  # fmt: skip
    return [table for table in found if table.rows]


def with_context(
    analysis: Analysis, title: str, header: Iterable[str], rows: list[list[str]], notes: Sequence[str]
) -> ReportTable:
    """A table whose rows begin with their context. If the study has one factor, there is no context to show."""
    others = [factor for factor in analysis.study.factors if factor != analysis.study.compare]
    if others:
        return ReportTable(title, [", ".join(others), *header], rows, notes)
    return ReportTable(title, list(header), [cells for _, *cells in rows], notes)


def results(analysis: Analysis) -> ReportTable:
    """Mean and standard deviation over seeds of each level."""
    rows = []
    for context, level, cells in analysis.finished():
        numbers = [spread(list(analysis.values(context, level, name).values())) for name in SHOWN]
        rows.append([context, level, str(len(cells)), *numbers])
    note = "Points of AP (0 to 100): mean over seeds ± standard deviation between seeds."
    return with_context(analysis, "Results", [analysis.study.compare, "seeds", *SHOWN], rows, [note])


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "n/a"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def bounds(found: Interval, digits: int = 2) -> str:
    """The bounds of an interval of a difference."""
    return "" if math.isnan(found.low) else f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def differences(analysis: Analysis) -> ReportTable:
    """The differences that the study judges, with the three intervals."""
    rows = []
    for c in analysis.judged:
        d = c.difference
        if d is not None:
            p = "" if math.isnan(c.p) else f"{c.p:.2g}" if c.p >= 0.0001 else "< 0.0001"
            verdict = "real" if c.real else "not resolved"
            intervals = map(bounds, d.intervals.values())
            rows.append([c.context, c.name, c.metric, str(d.seeds), f"{d.mean:+.2f}", *intervals, p, verdict])
    notes = [
        "Paired differences in points, with 95 % intervals. Over seeds: what other seeds would give on these "
        "validation images (Student's t). Over images: what these trained weights would give on other images "
        "(bootstrap). Over both: what other seeds would give on other images; the verdict is about this.",
        f"p: over both, after Holm's correction for the {counted(len(analysis.judged), 'difference')} that this study "
        f"judges: if none were real, one of them would be called real in at most {ALPHA:.0%} of such studies. An "
        "interval that excludes 0 is of one difference alone and not corrected.",
    ]
    header = ["difference", "number", "seeds", "mean", "over seeds", "over images", "over both", "p", "verdict"]
    return with_context(analysis, "Differences", header, rows, notes)


def by_size(analysis: Analysis) -> ReportTable:
    """Differences by the size of the objects, not judged."""
    rows = []
    for context, level in analysis.pairs:
        compared = {c.metric: c for c in analysis.described if (c.context, c.level) == (context, level)}
        found = [compared[name].difference for name in BY_SIZE]
        if any(found):
            cells = [f"{d.mean:+.1f} {bounds(d.over_both, 1)}".rstrip() if d else "n/a" for d in found]
            rows.append([context, compared["AP"].name, *cells])
    note = "Points, with 95 % intervals over seeds and images, not corrected: for reading, not for claims."
    title = "Differences by overlap and by size of the objects"
    return with_context(analysis, title, ["difference", *BY_SIZE], rows, [note])


COSTS = {
    "forward_ms": ("forward, ms", "operator: one training step's proposals"),
    "backward_ms": ("backward, ms", "operator: one training step's proposals, to the feature maps"),
    "images_per_second": ("training, images/s", "whole training steps, loading included"),
    "inference_ms": ("inference, ms", "per image, loading not counted"),
    "peak_memory_mb": ("peak memory, MB", "of the process; of the GPU if there was one"),
}


def costs(analysis: Analysis) -> ReportTable:
    """The costs of each level: medians over its runs."""
    rows = []
    for context, level, cells in analysis.finished():
        records = [{**cell.record, **cell.record["costs"]} for cell in cells]
        known = [[r[name] for r in records if r.get(name) is not None] for name in COSTS]
        medians = [three_digits(statistics.median(values)) if values else "n/a" for values in known]
        devices = sorted({f"{r['device']}, {counted(r['threads'], 'thread')}" for r in records})
        rows.append([context, level, *medians, "; ".join(devices)])
    meanings = "; ".join(f"{short}: {meaning}" for short, meaning in COSTS.values())
    note = f"Medians over the runs. {meanings}. Runs that shared the machine slowed each other down."
    header = [analysis.study.compare, *(short for short, _ in COSTS.values()), "device"]
    return with_context(analysis, "Costs", header, rows, [note])


def seeds(analysis: Analysis) -> ReportTable:
    """Seeds needed to resolve differences of given sizes, with the spread that was found."""
    rows = []
    effects, alpha = analysis.study.config.effects, ALPHA / max(len(analysis.judged), 1)
    for c in analysis.judged:
        if c.difference is None or c.difference.seeds < 2:
            continue
        cells = []
        for effect in effects:
            needed = seeds_needed(effect, c.difference.components, alpha)
            limited = limited_by_images(effect, c.difference.components, alpha)
            cells.append(str(needed) if needed else "more images" if limited else f"> {MOST_SEEDS}")
        rows.append([c.context, c.name, c.metric, *cells])
    note = (f"Seeds with which a true difference of that size is called real in {POWER:.0%} of studies, at the "
            "corrected level, on as many images as here. From the spread of these runs, so rough if they are few. "
            "\"more images\": no number of seeds is enough on this validation set.")  # fmt: skip
    sizes = [counted(effect, "point") for effect in effects]
    return with_context(analysis, "Seeds needed", ["difference", "number", *sizes], rows, [note])


def published(analysis: Analysis) -> ReportTable:
    """What others have reported, from the study's configuration."""
    entries = analysis.study.config.published
    header = list(dict.fromkeys(key for entry in entries for key in entry))
    return ReportTable("Published results, for comparison", header,
                 [[str(entry.get(key, "")) for key in header] for entry in entries],
                 ["Other data and other models: compare directions and orders of magnitude."])  # fmt: skip


RAMP = (
    "On a map that rises by 1 per cell the pooled values tell which positions an operator pools from. Offset: from the "
    "centre of a bin; training compensates an offset that is the same for all boxes; a maximum has the value at the "
    "far side of its bin. Error of a shift: if a box moves by a fraction of a cell, the values should change by as "
    "much; root mean square of the difference. 0 is exact."
)
JITTER = (
    "At the true boxes, which move with the image. Pooled features: length of the change relative to their length; "
    "score: mean absolute change of the true class's softmax score. The backbone contributes to both."
)


def operators(found: dict[str, Any]) -> list[ReportTable]:
    """The diagnostics of the operators."""
    number = lambda value, digits=1: "n/a" if value is None else f"{value:.{digits}f}"
    shown = []
    if found.get("ramp"):
        rows = [[level, number(r["offset"], 3), number(r["shift_error"], 3)] for level, r in found["ramp"].items()]
        header = ["operator", "offset, cells", "error of a shift, cells"]
        shown.append(ReportTable("Operators on a linear ramp", header, rows, [RAMP]))
    for context, result in found.get("contexts", {}).items():
        where = f" at {context}" if context else ""
        swap, truth, jitter = result["swap"], result["truth"], result["jitter"]
        rows = [[a, *(number(swap[a].get(b)) for b in swap), number(truth[a])] for a in swap]
        header = ["trained with", *(f"tested with {b}" for b in swap), "own operator, true boxes as proposals"]
        note = f"AP in points of the weights of seed {result['seed']}, on at most {EVALUATED} validation images."
        shown.append(ReportTable(f"Operators exchanged after training{where}", header, rows, [note]))
        kinds = (("pooled", "pooled features"), ("score", "score"))
        rows = [[a, text, *(number(v, 3) for v in jitter[a][key])] for a in swap for key, text in kinds]
        header = ["operator", "change of", *(f"{shift:g} px" for shift in found["shifts"])]
        shown.append(ReportTable(f"Jitter under small shifts of the image{where}", header, rows, [JITTER]))
    return shown
