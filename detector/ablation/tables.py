"""The tables of a study's report, as text: what Markdown, LaTeX and HTML show alike."""

from __future__ import annotations

import math
import statistics as summary
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.ablation import statistics
from detector.ablation.analysis import Analysis
from detector.ablation.statistics import ALPHA
from detector.evaluation.intervals import Interval
from detector.words import counted, three_digits

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
NOTHING = ""


@dataclass
class Table:
    """A table of texts with what a reader has to know about it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def tables(analysis: Analysis, diagnostics: dict[str, Any] | None) -> list[Table]:
    """All tables that have something to show, in the order of the report."""
    found = [results(analysis), judged(analysis), by_size(analysis), costs(analysis), seeds(analysis),
             published(analysis), *operators(diagnostics or {})]  # fmt: skip
    return [table for table in found if table.rows]


def where(analysis: Analysis, context: str) -> list[str]:
    """The first cells of a row: the context, if there is one."""
    return [context] if analysis.study.contexts != [""] else []


def head(analysis: Analysis) -> list[str]:
    """Their header: the other factors."""
    others = [factor for factor in analysis.study.factors if factor != analysis.study.compare]
    return [", ".join(others)] if others else []


def results(analysis: Analysis) -> Table:
    """Mean and standard deviation over seeds of each arm."""
    rows = []
    for context in analysis.study.contexts:
        for level in analysis.levels:
            count = len(analysis.of(context, level))
            if count:
                cells = [spread(list(analysis.values(context, level, name).values())) for name in SHOWN]
                rows.append([*where(analysis, context), level, str(count), *cells])
    return Table("Results", [*head(analysis), analysis.study.compare, "seeds", *SHOWN], rows,
                 ["Points of AP (0 to 100): mean over seeds ± standard deviation between seeds."])  # fmt: skip


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "n/a"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def bounds(found: Interval, digits: int = 2) -> str:
    """The bounds of an interval of a difference."""
    return NOTHING if math.isnan(found.low) else f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def judged(analysis: Analysis) -> Table:
    """The differences that the study judges, with the three intervals."""
    rows = []
    for c in analysis.judged:
        if c.found is not None:
            p = NOTHING if math.isnan(c.p) else f"{c.p:.2g}" if c.p >= 0.0001 else "< 0.0001"
            rows.append([*where(analysis, c.context), f"{c.level} - {c.baseline}", c.metric, str(c.found.seeds),
                         f"{c.found.mean:+.2f}", bounds(c.found.over_seeds), bounds(c.found.over_images),
                         bounds(c.found.over_both), p, "real" if c.real else "not resolved"])  # fmt: skip
    notes = [
        "Paired differences in points, with 95 % intervals. Over seeds: what other seeds would give on these "
        "validation images (Student's t). Over images: what these trained weights would give on other images "
        "(bootstrap). Over both: what other seeds would give on other images; the verdict is about this.",
        f"p: over both, after Holm's correction for the {counted(len(analysis.judged), 'difference')} that this study "
        f"judges: if none were real, one of them would be called real in at most {ALPHA:.0%} of such studies. An "
        "interval that excludes 0 is of one difference alone and not corrected.",
    ]
    header = [*head(analysis), "difference", "number", "seeds", "mean", "over seeds", "over images", "over both", "p",
              "verdict"]  # fmt: skip
    return Table("Differences", header, rows, notes)


def by_size(analysis: Analysis) -> Table:
    """Differences by the size of the objects, not judged."""
    rows = []
    for context, level in analysis.pairs:
        found = {c.metric: c.found for c in analysis.described if (c.context, c.level) == (context, level)}
        if any(found.values()):
            cells = ["n/a" if (d := found[name]) is None else f"{d.mean:+.1f} {bounds(d.over_both, 1)}".rstrip()
                     for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")]  # fmt: skip
            rows.append([*where(analysis, context), f"{level} - {analysis.study.baseline}", *cells])
    header = [*head(analysis), "difference", "AP", "AP50", "AP75", "APs", "APm", "APl"]
    note = "Points, with 95 % intervals over seeds and images, not corrected: for reading, not for claims."
    return Table("Differences by overlap and by size of the objects", header, rows, [note])


COSTS = {
    "forward_ms": ("forward, ms", "operator: one training step's proposals"),
    "backward_ms": ("backward, ms", "operator: one training step's proposals, to the feature maps"),
    "images_per_second": ("training, images/s", "whole training steps, loading included"),
    "inference_ms": ("inference, ms", "one image, loading apart"),
    "peak_memory_mb": ("peak memory, MB", "of the process; of the GPU if there was one"),
}


def costs(analysis: Analysis) -> Table:
    """What each arm costs: medians over its runs."""
    rows = []
    for context in analysis.study.contexts:
        for level in analysis.levels:
            records = [cell.record for cell in analysis.of(context, level).values() if cell.record]
            if records:
                cells = []
                for name in COSTS:
                    values = [{**r, **r["costs"]}.get(name) for r in records]
                    known = [v for v in values if v is not None]
                    cells.append(three_digits(summary.median(known)) if known else "n/a")
                devices = sorted({f"{r['device']}, {counted(r['threads'], 'thread')}" for r in records})
                rows.append([*where(analysis, context), level, *cells, "; ".join(devices)])
    told = "; ".join(f"{short}: {what}" for short, what in COSTS.values())
    note = f"Medians over the runs. {told}. Runs that shared the machine slowed each other down."
    header = [*head(analysis), analysis.study.compare, *(short for short, _ in COSTS.values()), "device"]
    return Table("Costs", header, rows, [note])


def seeds(analysis: Analysis) -> Table:
    """Seeds needed to resolve differences of given sizes, with the spread that was found."""
    rows = []
    alpha = ALPHA / max(len(analysis.judged), 1)
    for c in analysis.judged:
        if c.found is None or c.found.seeds < 2:
            continue
        cells = []
        for effect in analysis.study.config.effects:
            needed = statistics.seeds_needed(effect, c.found.components, alpha)
            limited = statistics.limited_by_images(effect, c.found.components, alpha)
            cells.append(str(needed) if needed else "more images" if limited else f"> {statistics.MOST_SEEDS}")
        rows.append([*where(analysis, c.context), f"{c.level} - {c.baseline}", c.metric, *cells])
    note = (f"Seeds with which a true difference of that size is called real in {statistics.POWER:.0%} of studies, at "
            "the corrected level, on as many images as here. From the spread of these runs, so rough if they are few. "
            "\"more images\": no number of seeds is enough on this validation set.")  # fmt: skip
    sizes = [counted(effect, "point") for effect in analysis.study.config.effects]
    return Table("Seeds needed", [*head(analysis), "difference", "number", *sizes], rows, [note])


def published(analysis: Analysis) -> Table:
    """What others have reported, as the study's configuration tells it."""
    entries = analysis.study.config.published
    header = list(dict.fromkeys(key for entry in entries for key in entry))
    return Table("Published results, for comparison", header,
                 [[str(entry.get(key, NOTHING)) for key in header] for entry in entries],
                 ["Other data and other models: compare directions and orders of magnitude."])  # fmt: skip


RAMP = (
    "A map that rises by 1 a cell tells where an operator looks. Offset: from the centre of a bin; one that is the "
    "same for all boxes is learned away; a maximum looks at the far side of its bin. Error of a shift: a box that "
    "moves by a fraction of a cell should move the result as much; root mean square of the rest. 0 is exact."
)
JITTER = (
    "At the true boxes, which move with the image. Pooled features: length of the change relative to theirs; score: "
    "mean absolute change of the true class's softmax score. The backbone has its part in both."
)


def operators(found: dict[str, Any]) -> list[Table]:
    """The diagnostics of the operators."""
    number = lambda value, digits=1: "n/a" if value is None else f"{value:.{digits}f}"
    shown = []
    if found.get("ramp"):
        rows = [[level, number(r["offset"], 3), number(r["shift_error"], 3)] for level, r in found["ramp"].items()]
        header = ["operator", "offset, cells", "error of a shift, cells"]
        shown.append(Table("Operators on a linear ramp", header, rows, [RAMP]))
    for context, result in found.get("contexts", {}).items():
        place = f" at {context}" if context else ""
        swap, truth, jitter = result["swap"], result["truth"], result["jitter"]
        levels = list(swap)
        rows = [[a, *(number(swap[a].get(b)) for b in levels), number(truth[a])] for a in levels]
        header = ["trained with", *(f"tested with {b}" for b in levels), "own operator, true boxes as proposals"]
        note = f"AP in points of the weights of seed {result['seed']}, on the first 200 validation images at most."
        shown.append(Table(f"Operators exchanged after training{place}", header, rows, [note]))
        kinds = (("pooled", "pooled features"), ("score", "score"))
        rows = [[a, what, *(number(v, 3) for v in jitter[a][key])] for a in levels for key, what in kinds]
        header = ["operator", "change of", *(f"{shift:g} px" for shift in found["shifts"])]
        shown.append(Table(f"Jitter under small shifts of the image{place}", header, rows, [JITTER]))
    return shown
