"""What commands share of the terminal: the style of tables, and a progress bar for work that may take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

BAR_AFTER = 2.0  # seconds of work that need no progress bar
WIDTH = 140  # columns of what goes to a file or a pipe, which has no width of its own


class Outcome(Protocol):
    """What a command found: a thing that rich can print, and the folder with its files."""

    @property
    def folder(self) -> Path:
        """Where the files are."""


def show(outcome: Outcome) -> None:
    """Print an outcome on standard output, then where its files are."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(outcome)
    files = ", ".join(sorted(path.name for path in outcome.folder.iterdir() if not path.name.startswith(".")))
    console.print(f"\nResults are in {outcome.folder}: {files}", soft_wrap=True, highlight=False, markup=False)


def titled(title: str) -> Table:
    """An empty table in the style of all of them; brackets in the title are text, not markup."""
    return Table(box=box.SIMPLE_HEAD, title=Text(title, style="bold"), title_justify="left", pad_edge=False)


@contextmanager
def slow_progress(what: str, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Gives a function that is to be told the share done, 0 to 1; a bar on standard error if that takes seconds.

    Args:
        what: words beside the bar.
        shown: False: no bar at all.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        disable=not shown,
    )
    task = bar.add_task(what, total=1.0)
    begun = time.monotonic()

    def tell(share: float) -> None:
        bar.update(task, completed=share)
        if not bar.live.is_started and time.monotonic() - begun > BAR_AFTER:
            bar.start()

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()


def image_progress(shown: bool) -> Progress:
    """A progress bar that counts images, with their speed and the time left, on standard error.

    Its tasks have a field ``speed``, a text.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
