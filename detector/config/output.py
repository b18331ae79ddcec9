"""What the commands print besides their results, and where."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def command_output() -> Iterator[None]:
    """Inside the block, what the package logs, from level INFO on, is printed to standard error, unless the program has
    said where logs go; and no output fails for a character.

    A terminal or a file that is not UTF-8 gets question marks for the lines of tables. PyTorch's remark that there are
    more loader processes than cores is left out: they mostly wait.
    """
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                undo.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="replace")
        optuna, logger = logging.getLogger("alembic"), logging.getLogger("detector")
        undo.callback(optuna.setLevel, optuna.level)
        optuna.setLevel(logging.WARNING)  # the names of its parts
        if not logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            undo.callback(logger.removeHandler, handler)
            undo.callback(logger.setLevel, logger.level)
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        yield
