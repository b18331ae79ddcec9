"""The report of an evaluation: one HTML file that needs nothing else, neither a network nor a folder beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from detector.evaluation.analysis import Analysis
from detector.evaluation.coco import CocoResult
from detector.evaluation.findings import MEANING, findings
from detector.evaluation.gallery import TEXT, data_uri, make_gallery
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.tables import AREA_MEANING, METRIC_MEANING
from detector.files import replacing
from detector.plots.figure import DPI
from detector.words import counted


def write_report(
    out: str | Path,
    result: CocoResult,
    analysis: Analysis,
    truth: GroundTruth,
    plots: Mapping[str, Path],
    meta: Mapping[str, Any],
    images: Path | None = None,
    gallery: int = 6,
) -> None:
    """Write the report.

    Args:
        out: the HTML file.
        result: the numbers.
        analysis: what is behind them.
        truth: the annotations.
        plots: PNG files by name, as :func:`detector.evaluation.plot_evaluation.plot_analysis` returns them.
        meta: what was evaluated: ``inputs`` by name, and ``date``.
        images: folder of the images, for the gallery; None: boxes only.
        gallery: images for each kind of error.
    """
    with replacing(out) as temporary:
        temporary.write_text(
            environment()
            .get_template("report.html")
            .render(
                result=result,
                analysis=analysis,
                findings=findings(analysis),
                rows=analysis.class_rows(),
                metrics=[(name, *METRIC_MEANING[name]) for name in METRIC_MEANING],
                areas=AREA_MEANING,
                meaning=MEANING,
                meta=meta,
                text=TEXT,
                has_images=images is not None,
                plots={name: embedded(path) for name, path in plots.items()},
                **make_gallery(analysis, truth, images, gallery),
            ),
            encoding="utf-8",
        )


def embedded(path: Path) -> tuple[str, int]:
    """A plot as a URI, and its width in a browser's pixels, 96 to an inch: words are then of one size in all plots."""
    with Image.open(path) as picture:
        width = round(picture.width * 96 / DPI)
    return data_uri("image/png", path.read_bytes()), width


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
