"""The report of a study: Markdown, HTML, LaTeX, CSV and plots, from whatever runs there are."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from detector.ablation.cells import Cell, describe
from detector.ablation.diagnostics import stored_diagnostics
from detector.ablation.plot_study import plot_study
from detector.ablation.study import Study
from detector.ablation.study_analysis import Analysis
from detector.ablation.study_tables import tables
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.result_tables import write_csv
from detector.files import replacing
from detector.words import counted

FOLDER = "report"
TEXTS = ("report.md", "report.html", "report.tex")
CAPTIONS = {
    "dots": "Each dot is a run, each line a seed, each bar the mean of a level.",
    "ap_by_iou": "AP by the IoU threshold, and its difference to the baseline with intervals over seeds and images.",
    "ap_by_size": "AP by the size of the objects; dots are runs.",
}


def write_report(study: Study, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write the report of the runs that are finished, and name the others; return its folder.

    The folder holds ``report.md``, ``report.html`` (which needs no other file), ``report.tex`` (tables only),
    ``runs.csv``, ``differences.csv`` and the plots.

    Args:
        study: as it is on disk.
        say: prints a sentence: the verdicts.

    Raises:
        DataError: runs cannot be paired, or a file of a run is damaged.
    """
    analysis = Analysis(study)
    folder = study.folder / FOLDER
    pictures = plot_study(analysis, folder) if study.finished() else {}
    content = {
        "title": study.config.title or f"Study {study.config.name}",
        "state": state(analysis),
        "judged": analysis.judged,
        "tables": tables(analysis, stored_diagnostics(study)),
        "pictures": pictures,
        "captions": CAPTIONS,
        "date": datetime.date.today().isoformat(),
    }
    for name in TEXTS:
        with replacing(folder / name) as temporary:
            temporary.write_text(render(name, content), encoding="utf-8")
    write_csv(folder / "runs.csv", runs(analysis))
    write_csv(folder / "differences.csv", differences(analysis))
    for comparison in analysis.judged:
        say(comparison.sentence)
    return folder


def state(analysis: Analysis) -> list[str]:
    """Whether the study is complete, and what is not done by name; then what else to know."""
    study = analysis.study
    finished, failed, missing = study.finished(), study.failed(), study.missing()
    seeds = f"seed{'s'[: len(study.config.seeds) > 1]} {', '.join(map(str, study.config.seeds))}"
    lines = [f"{len(finished)} of {len(study.cells)} runs are finished ({seeds}): the study is "
             f"{'complete' if len(finished) == len(study.cells) else 'NOT complete'}."]  # fmt: skip
    for cell in failed:
        reason = cell.failure
        lines.append(f"Failed, {counted(reason.get('attempts', 1), 'time')}: {cell.label} ({cell.name}): "
                     f"{reason.get('exit')}; {(reason.get('log') or [''])[-1]}")  # fmt: skip
    if missing:
        lines.append("Missing: " + "; ".join(f"{cell.label} ({cell.name})" for cell in missing))
    if finished:
        one, minutes = finished[0].record, round(sum(cell.record["seconds"] for cell in finished) / 60)
        lines.append(f"Scored on {counted(one['images'], 'validation image')} with {counted(one['boxes'], 'object')} "
                     f"after {one['best_step']} of {counted(one['steps'], 'optimiser step')}; torch "
                     f"{one['versions']['torch']}, revision {one['git'] or 'unknown'}; {counted(minutes, 'minute')} of "
                     "training in all.")  # fmt: skip
    return lines + foreign_classes(finished) + analysis.warnings()


def foreign_classes(cells: Sequence[Cell]) -> list[str]:
    """A sentence for each class from elsewhere that a configuration names: at which key, and in which levels."""
    levels: dict[tuple[str, str], dict[str, None]] = {}
    for cell in cells:
        for place in cell.record.get("classes", {}).items():
            levels.setdefault(place, {})[describe(cell.levels)] = None
    return [
        f"{key} is {target}, from outside this project, in {'; '.join(of)}." for (key, target), of in levels.items()
    ]


# ------------------------------------------------------------------------------------------------ formats
def render(name: str, content: dict[str, Any]) -> str:
    """The report in one of the formats :data:`TEXTS`, by its template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("detector.ablation", "templates"),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda path: base64.b64encode(path.read_bytes()).decode()
    environment.filters["latex"] = latex
    return environment.get_template(name).render(content)


def latex(text: str) -> str:
    """Text for LaTeX."""
    symbols = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
               "<": "$<$", ">": "$>$"}  # fmt: skip
    return re.sub(r"[\\~^±<>&%$#_{}]", lambda m: symbols.get(m[0], "\\" + m[0]), text)


def runs(analysis: Analysis) -> list[dict[str, Any]]:
    """One row per finished run: factors, seed, all numbers in points, costs, hash."""
    rows = []
    for cell in analysis.study.finished():
        record = cell.record
        rows.append({
            **cell.levels,
            "seed": cell.seed,
            **{name: analysis.number(cell, name) for name in METRIC_NAMES},
            "images_per_second": record["images_per_second"],
            **record["costs"],
            "seconds": record["seconds"],
            "hash": record["hash"],
            "revision": record["git"],
        })  # fmt: skip
    return rows


def differences(analysis: Analysis) -> list[dict[str, Any]]:
    """One row per difference, all twelve numbers: estimate, intervals, corrected p-value where it is judged."""
    corrected = {(c.context, c.level, c.metric): (c.p, c.verdict) for c in analysis.judged}
    rows = []
    for c in analysis.described:
        d = c.difference
        if d is not None:
            p, verdict = corrected.get((c.context, c.level, c.metric), (None, None))
            ends = {f"{over}_{end}": getattr(i, end) for over, i in d.intervals.items() for end in ("low", "high")}
            rows.append({"context": c.context, "level": c.level, "baseline": c.baseline, "number": c.metric,
                         "seeds": d.seeds, "mean": d.mean, **ends, "p": d.p, "p_corrected": p,
                         "verdict": verdict})  # fmt: skip
    return rows
