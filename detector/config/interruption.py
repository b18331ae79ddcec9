"""Ctrl-C that a library swallows."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_after_ctrl_c_are_its() -> Iterator[None]:
    """Raise :class:`KeyboardInterrupt` in place of an error of the block after Ctrl-C.

    Lightning asks by trial imports which packages there are, and takes one that Ctrl-C ended for one that is missing;
    what is half imported then fails at its next import with an error of its own, which says nothing to a user.
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
