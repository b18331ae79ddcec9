"""What a suite measured, as tables for a terminal and for a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from detector.benchmark.timing import Row
from detector.words import counted, three_digits

COMPARED = ("workload", "measure", "ours, ms", "peer, ms", "ratio", "floor, ms", "peer")


@dataclass
class Section:
    """A table.

    Attributes:
        columns: their headings.
        rows: cells as text.
        records: the same rows as numbers, for JSON.
        title: above the table, if there are several.
    """

    columns: Sequence[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    title: str = ""


@dataclass
class Measured:
    """All that a suite measured.

    Attributes:
        title: what was measured.
        inputs: on what; a sentence or two.
        sections: the tables.
        curves: lines for a plot, see :func:`detector.benchmark.plot_benchmark.plot_benchmark`.
        is_timed: or counted, which does not depend on the machine.
    """

    title: str
    inputs: str
    sections: list[Section]
    curves: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    is_timed: bool = True


def compared(rows: Sequence[Row]) -> Section:
    """Ours beside a peer; without the column of floors if there is none."""
    whole = [cells(row) for row in rows]
    kept = [i for i, name in enumerate(COMPARED) if name != "floor, ms" or any(row[i] for row in whole)]
    records = [{**asdict(row), "ratio": row.ratio} for row in rows]
    return Section([COMPARED[i] for i in kept], [[row[i] for i in kept] for row in whole], records)


def cells(row: Row) -> list[str]:
    """A row as text; empty where there is nothing to say."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2g}x" if row.ratio < 10 else f"{row.ratio:.0f}x"
    peer, limit = ("" if value is None else three_digits(value) for value in (row.peer, row.floor))
    return [row.workload, row.measure, three_digits(row.ours), peer, ratio, limit, row.peer_name]


def tables(measured: Measured) -> list[Group]:
    """The tables for a terminal, each with its title."""
    found = []
    for section in measured.sections:
        shown = Table(*section.columns, box=box.SIMPLE_HEAD)
        for column in shown.columns:
            column.no_wrap = True
        for row in section.rows:
            shown.add_row(*row)
        found.append(Group(*([section.title] if section.title else []), shown))
    return found


def markdown(environment: Mapping[str, Any], measured: Measured, name: str, command: str) -> str:
    """The tables with the conditions they were measured under.

    Args:
        environment: see :func:`detector.benchmark.environment.environment`.
        measured: the numbers.
        name: of the files, without ending.
        command: what measures it again.
    """
    threads = counted(environment["threads"], "thread")
    machine = f"{environment['processor']} ({environment['instruction_set']}), {threads}"
    if environment["gpu"]:
        machine = f"{environment['gpu']}, driver {environment['driver']}, CUDA {environment['cuda']}"
    runs = (
        f"Copy bandwidth {environment['copy_gb_per_s']} GB/s (read and written). {environment['repeats']} timed runs "
        f"of each call, in one process. "
    )
    lines = [
        f"# {measured.title}",
        "",
        f"{machine}, Python {environment['python']}, torch {environment['torch']}, "
        f"torchvision {environment['torchvision']}, {environment['date']}.",
        f"{runs if measured.is_timed else ''}{measured.inputs}",
    ]
    for section in measured.sections:
        lines += ["", *([f"## {section.title}", ""] if section.title else [])]
        lines += [f"| {' | '.join(section.columns)} |", "|" + "---|" * len(section.columns)]
        lines += [f"| {' | '.join(row)} |" for row in section.rows]
    lines += ["", f"`{command}` makes this file and `{name}.json`."]
    if measured.curves:
        lines += ["", f"![time against the number of RoIs and the sampling ratio]({name}.png)"]
    return "\n".join(lines)
