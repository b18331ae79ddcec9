"""The report of an evaluation: one HTML file that needs nothing else, neither a network nor a folder beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.findings import MEANING, findings
from detector.evaluation.gallery import TEXT, Gallery
from detector.evaluation.metrics import COCO_LIMIT, METRICS
from detector.evaluation.result_tables import AREA_MEANING
from detector.evaluation.scoring import CocoResult
from detector.files import replacing
from detector.plots.embedded import embedded
from detector.words import counted


def write_report(
    out: str | Path,
    result: CocoResult,
    diagnosis: Diagnosis,
    plots: Mapping[str, Path],
    gallery: Gallery,
    meta: Mapping[str, Any],
) -> None:
    """Write the report.

    Args:
        out: the HTML file.
        result: the numbers.
        diagnosis: what is behind them.
        plots: PNG files by name, as :func:`detector.evaluation.plot_evaluation.plot_diagnosis` returns them.
        gallery: the images with the worst errors of each kind.
        meta: what was evaluated: ``inputs`` by name, and ``date``.
    """
    with replacing(out) as temporary:
        temporary.write_text(
            environment()
            .get_template("report.html")
            .render(
                result=result,
                diagnosis=diagnosis,
                findings=findings(diagnosis),
                rows=diagnosis.class_rows(),
                metrics=METRICS,
                coco_limit=COCO_LIMIT,
                areas=AREA_MEANING,
                meaning=MEANING,
                meta=meta,
                text=TEXT,
                gallery=gallery,
                plots={name: embedded(path) for name, path in plots.items()},
            ),
            encoding="utf-8",
        )


def environment() -> jinja2.Environment:
    """The templates of this package; everything that is filled in is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("detector.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["counted"] = counted
    made.filters["number"] = lambda value, digits=3: "" if value is None or value != value else f"{value:.{digits}f}"
    return made
