"""Which backend the user forces: ``ROI_OPS_BACKEND=reference|cpu|cuda`` in the environment, or :func:`use_backend`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("reference", "cpu", "cuda")
VARIABLE = "ROI_OPS_BACKEND"

# What :func:`use_backend` forces in this thread or task: a name, or None for nothing; unset: the environment decides.
_override: ContextVar[str | None] = ContextVar("roi_ops_backend")


def forced() -> str | None:
    """The backend that is forced here, or None."""
    return _override.get(_environment)


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend ("reference", "cpu" or "cuda") in a ``with`` block; None lets the device decide.

    Other threads do not see it. Derivatives of what is computed in the block come from the same backend, wherever
    and whenever they are computed.
    """
    token = _override.set(_check(name, "use_backend"))
    try:
        yield
    finally:
        _override.reset(token)


def _check(name: str | None, source: str) -> str | None:
    if name is not None and name not in NAMES:
        raise ValueError(f"{source}: unknown backend '{name}'; known: {', '.join(NAMES)}")
    return name


_environment = _check(os.environ.get(VARIABLE) or None, VARIABLE)
