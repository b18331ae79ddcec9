"""Ctrl-C that a library swallows, and signals that one keeps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def keyboard_interrupt_first() -> Iterator[None]:
    """Raise :class:`KeyboardInterrupt` in place of an error that follows Ctrl-C in the block.

    Lightning imports packages to see which ones there are, and takes an import that Ctrl-C ended for a missing package.
    The next import of the half imported package then fails with an error that says nothing to a user.
    """
    pressed = []

    def handle(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    # Where Ctrl-C is ignored, as in a background job, or handled by others, that stays.
    own = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if own:
        signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def signals_restored(numbers: Sequence[int]) -> Iterator[None]:
    """Afterwards what handles the signals ``numbers`` is what it was before the block; only the main thread may say."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not one of Python's
                signal.signal(number, handler)
