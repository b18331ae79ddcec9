"""What commands share of the terminal: the style of tables, and a progress bar for work that may take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

REFRESHES = 4  # of a progress bar in a second
BAR_AFTER = 2.0  # seconds of work that need no progress bar
WIDTH = 140  # columns of what goes to a file or a pipe, which has no width of its own


def titled(title: str) -> Table:
    """An empty table in the style of all of them; brackets in the title are text, not markup."""
    return Table(box=box.SIMPLE_HEAD, title=Text(title, style="bold"), title_justify="left", pad_edge=False)


class NotebookProgress(Progress):
    """A progress bar in a notebook. Rich's own needs ipywidgets there, and leaves nothing in a notebook that is stored.

    It shows what a terminal shows, in an output that is replaced as the work goes on; the last state stays.
    """

    shown: Any = None  # the output of the notebook
    changed = 0.0  # when it was replaced last

    def start(self) -> None:
        """Open the output."""
        from IPython.display import display  # who runs a notebook has it

        if self.shown is None and not (self.disable or self.console.quiet):
            self.shown = display(self, display_id=True)

    def refresh(self) -> None:
        """Replace the output, a few times a second at most."""
        if self.shown is not None and time.monotonic() - self.changed > 1 / REFRESHES:
            self.shown.update(self)
            self.changed = time.monotonic()

    def update(self, *args: Any, **fields: Any) -> None:
        """Change a task and show it."""
        super().update(*args, **fields)
        self.refresh()

    def stop(self) -> None:
        """Show the last state."""
        if self.shown is not None:
            self.shown.update(self)
            self.shown = None


def progress(*columns: ProgressColumn, console: Console, **options: Any) -> Progress:
    """Rich's progress bar with these columns and options, also where ``console`` is that of a notebook."""
    kind = NotebookProgress if console.is_jupyter else Progress
    return kind(*columns, console=console, refresh_per_second=REFRESHES, **options)


@contextmanager
def slow_progress(what: str, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Gives a function that is to be told the share done, 0 to 1; a bar on standard error if that takes seconds.

    Args:
        what: words beside the bar.
        shown: False: no bar at all.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    bar = progress(*columns, console=Console(stderr=True), disable=not shown)
    task = bar.add_task(what, total=1.0)
    begun, started = time.monotonic(), False

    def tell(share: float) -> None:
        nonlocal started
        bar.update(task, completed=share)
        if not started and time.monotonic() - begun > BAR_AFTER:
            bar.start()
            started = True

    try:
        yield tell
    finally:
        if started:
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
    return progress(*columns, console=Console(stderr=True), disable=not shown)
