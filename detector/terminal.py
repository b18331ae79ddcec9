"""What commands share of the terminal: the style of tables, and a progress bar for work that may take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

PATIENCE = 2.0  # seconds of work that need no progress bar


def titled(title: str) -> Table:
    """An empty table in the style of all of them."""
    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)


@contextmanager
def slow_progress(what: str, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Gives a function that is to be told the share done, 0 to 1; a bar on standard error if that takes seconds.

    Args:
        what: words beside the bar.
        shown: False: no bar at all.
    """
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                   TextColumn("left"), console=Console(stderr=True), disable=not shown)
    task = bar.add_task(what, total=1.0)
    begun = time.monotonic()

    def tell(share: float) -> None:
        bar.update(task, completed=share)
        if not bar.live.is_started and time.monotonic() - begun > PATIENCE:
            bar.start()

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
