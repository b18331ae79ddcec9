"""The measured rows as a table for a terminal and for a file."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from detector.inference.benchmark.timing import Row


def table(rows: list[Row]) -> Table:
    """The rows for a terminal."""
    shown = Table("workload", "measure", "ours, ms", "peer, ms", "ratio", "floor, ms", "peer", box=box.SIMPLE_HEAD)
    for column in shown.columns:
        column.no_wrap = True
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def cells(row: Row) -> list[str]:
    """A row as text; empty where there is nothing to say."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2g}x" if row.ratio < 10 else f"{row.ratio:.0f}x"
    peer, limit = ("" if value is None else f"{value:.3g}" for value in (row.peer, row.floor))
    return [row.workload, row.measure, f"{row.ours:.3g}", peer, ratio, limit, row.peer_name]


def markdown(report: dict[str, Any], rows: list[Row], name: str, inputs: str) -> str:
    """The table with the conditions it was measured under; ``inputs`` describes boxes and maps."""
    machine = f"{report['processor']} ({report['instruction_set']}), {report['threads']} threads"
    if report["gpu"]:
        machine = f"{report['gpu']}, CUDA {report['cuda']}"
    device = "" if name == "roi_ops_cpu" else " device=cuda"
    lines = [
        "# RoI operators: ours against torchvision",
        "",
        f"{machine}, Python {report['python']}, torch {report['torch']}, torchvision {report['torchvision']}, "
        f"{report['date']}.",
        f"Copy bandwidth {report['copy_gb_per_s']} GB/s (read and written). Medians of {report['repeats']} runs, "
        f"in turn in one process. {inputs}",
        "The floor is the bytes that have to move over that bandwidth.",
        "",
        "| workload | measure | ours, ms | peer, ms | ratio | floor, ms | peer |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", f"`python scripts/benchmark.py suite=roi_ops{device}` makes this table and `{name}.json`."]
    if report["curves"]:
        lines += ["", f"![time against the number of RoIs and the sampling ratio]({name}.png)"]
    return "\n".join(lines)
