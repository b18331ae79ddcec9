"""The workloads of a suite, one after the other, until somebody has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.progress import track

from detector.words import counted

T = TypeVar("T")


def until_stopped(
    cases: Sequence[Callable[[], T]], name: str, progress_bar: bool, show: Callable[[T], str] | None = None
) -> tuple[list[T], str]:
    """Run the cases. Ctrl-C, or SIGINT from whoever has no more time, keeps what has been measured.

    Args:
        cases: each is built and run in its turn, so that only one is in memory.
        name: of the suite, beside the progress bar.
        progress_bar: without it each result is printed at once, where ``show`` makes a line of it.
        show: one line for a result.

    Returns:
        The results, and a sentence that says how many are missing, with a space before it; "" if none is.

    Raises:
        KeyboardInterrupt: before the first result.
    """
    found: list[T] = []
    try:
        for case in track(cases, name, disable=not progress_bar):
            found.append(case())
            if show is not None and not progress_bar:
                print(show(found[-1]), flush=True)
    except KeyboardInterrupt:
        if not found:
            raise
        return found, f" Stopped after {len(found)} of {counted(len(cases), 'workload')}."
    return found, ""
