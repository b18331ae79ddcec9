"""The report of a study: Markdown, HTML, LaTeX, CSV and plots, from whatever runs there are."""

from __future__ import annotations

import base64
import csv
import datetime
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2

from detector.ablation import diagnostics
from detector.ablation.analysis import Analysis
from detector.ablation.plot_study import plot_study
from detector.ablation.study import METRICS, Study
from detector.ablation.tables import Table, tables
from detector.files import replacing
from detector.words import counted

FOLDER = "report"
CAPTIONS = {
    "dots": "Each dot is a run, each line a seed, each bar the mean of an arm.",
    "ap_by_iou": "AP by the overlap that is demanded, and its difference to the baseline with intervals over seeds and "
    "images.",
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
    shown = tables(analysis, diagnostics.load(study))
    pictures = plot_study(analysis, folder) if study.finished() else {}
    texts = {
        "report.md": markdown(analysis, shown, pictures), "report.html": html(analysis, shown, pictures),
        "report.tex": latex(shown),
    }  # fmt: skip
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_csv(folder / "runs.csv", *runs(analysis))
    write_csv(folder / "differences.csv", *differences(analysis))
    for sentence in sentences(analysis):
        say(sentence)
    return folder


def title(study: Study) -> str:
    """Heading of the report."""
    return study.config.title or f"Study {study.config.name}"


def sentences(analysis: Analysis) -> list[str]:
    """The verdicts, one a difference."""
    return [comparison.sentence for comparison in analysis.judged]


def state(analysis: Analysis) -> list[str]:
    """Whether the study is complete, and what is not done by name; then what else to know."""
    study = analysis.study
    finished, failed, missing = study.finished(), study.failed(), study.missing()
    seeds = f"seed{'s'[: len(study.config.seeds) > 1]} {', '.join(map(str, study.config.seeds))}"
    lines = [f"{len(finished)} of {len(study.cells)} runs are finished ({seeds}): the study is "
             f"{'complete' if len(finished) == len(study.cells) else 'NOT complete'}."]  # fmt: skip
    for cell in failed:
        reason = cell.failure or {}
        lines.append(f"Failed, {counted(reason.get('attempts', 1), 'time')}: {cell.label} ({cell.name}): "
                     f"{reason.get('exit')}; {(reason.get('log') or [''])[-1]}")  # fmt: skip
    if missing:
        lines.append("Missing: " + "; ".join(f"{cell.label} ({cell.name})" for cell in missing))
    records = [cell.record for cell in finished if cell.record]
    if records:
        one, minutes = records[0], round(sum(r["seconds"] for r in records) / 60)
        lines.append(f"Scored on {counted(one['images'], 'validation image')} with {counted(one['boxes'], 'object')} "
                     f"after {one['best_step']} of {counted(one['steps'], 'optimiser step')}; torch "
                     f"{one['versions']['torch']}, revision {one['git'] or 'unknown'}; {counted(minutes, 'minute')} of "
                     "training in all.")  # fmt: skip
    return lines + analysis.warnings()


# ------------------------------------------------------------------------------------------------ formats
def markdown(analysis: Analysis, shown: Sequence[Table], pictures: dict[str, Path]) -> str:
    """The report as Markdown with the plots beside it."""
    cell = lambda text: text.replace("|", r"\|")
    lines = [f"# {title(analysis.study)}", "", *(f"- {line}" for line in state(analysis)), "", "## What it says", ""]
    lines += [f"- {sentence}" for sentence in sentences(analysis)]
    for table in shown:
        lines += ["", f"## {table.title}", "", "| " + " | ".join(map(cell, table.header)) + " |",
                  "|" + "---|" * len(table.header)]  # fmt: skip
        lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
        for note in table.notes:
            lines += ["", note]
    for name, path in pictures.items():
        lines += ["", f"![{CAPTIONS[name]}]({path.name})", "", CAPTIONS[name]]
    return "\n".join([*lines, "", f"Made on {datetime.date.today().isoformat()}.", ""])


def html(analysis: Analysis, shown: Sequence[Table], pictures: dict[str, Path]) -> str:
    """The report as one HTML file that needs nothing else."""
    templates = jinja2.PackageLoader("detector.ablation", "templates")
    environment = jinja2.Environment(loader=templates, autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    coded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()}
    return environment.get_template("report.html").render(
        title=title(analysis.study), state=state(analysis), judged=analysis.judged, tables=shown, pictures=coded,
        captions=CAPTIONS, date=datetime.date.today().isoformat(),
    )  # fmt: skip


def latex(shown: Sequence[Table]) -> str:
    r"""The tables for a paper: each a ``tabular`` of the ``booktabs`` package with its caption."""
    parts = ["% \\usepackage{booktabs}"]
    for table in shown:
        columns = "l" + "r" * (len(table.header) - 1)
        rows = [" & ".join(map(escaped, row)) + r" \\" for row in (table.header, *table.rows)]
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{escaped(table.title)}. {escaped(' '.join(table.notes))}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule",
            r"\end{tabular}", r"\end{table}"]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text for LaTeX."""
    symbols = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
               "<": "$<$", ">": "$>$"}  # fmt: skip
    return re.sub(r"[\\~^±<>&%$#_{}]", lambda m: symbols.get(m[0], "\\" + m[0]), text)


def runs(analysis: Analysis) -> tuple[list[str], list[list[object]]]:
    """One row a finished run: factors, seed, all numbers in points, costs, hash."""
    costs = ("forward_ms", "backward_ms", "inference_ms", "peak_memory_mb")
    header = [*analysis.study.factors, "seed", *METRICS, "images_per_second", *costs, "seconds", "hash", "revision"]
    rows: list[list[object]] = []
    for cell in analysis.study.finished():
        record = cell.record or {}
        rows.append([*cell.arm.values(), cell.seed, *(analysis.number(cell, name) for name in METRICS),
                     record["images_per_second"], *(record["costs"].get(name) for name in costs), record["seconds"],
                     record["hash"], record["git"]])  # fmt: skip
    return header, rows


def differences(analysis: Analysis) -> tuple[list[str], list[list[object]]]:
    """One row a difference, all twelve numbers: estimate, intervals, corrected p-value where it is judged."""
    header = ["context", "level", "baseline", "number", "seeds", "mean"]
    header += [f"{over}_{end}" for over in ("seeds", "images", "both") for end in ("low", "high")]
    header += ["p", "p_corrected", "verdict"]
    corrected = {(c.context, c.level, c.metric): c for c in analysis.judged}
    rows: list[list[object]] = []
    for c in analysis.described:
        if c.found is not None:
            verdict = corrected.get((c.context, c.level, c.metric))
            ends = [end for found in (c.found.over_seeds, c.found.over_images, c.found.over_both) for end in found[1:]]
            rows.append([c.context, c.level, c.baseline, c.metric, c.found.seeds, c.found.mean, *ends, c.found.p,
                         *((verdict.p, verdict.verdict) if verdict else ("", ""))])  # fmt: skip
    return header, rows


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file under a temporary name and rename it; floats at full precision."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
