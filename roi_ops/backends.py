"""Which implementation serves a call: the compiled kernels where they work, else the reference.

``ROI_OPS_BACKEND=reference|cpu|cuda`` in the environment, or :func:`use_backend`, forces one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from roi_ops import cpu, reference

NAMES = ("reference", "cpu", "cuda")
VARIABLE = "ROI_OPS_BACKEND"

# What :func:`use_backend` forces in this thread or task: a name, or None for nothing; unset: the environment decides.
_override: ContextVar[str | None] = ContextVar("roi_ops_backend")
# Forced backends that were found to work: to ask the driver takes longer than to launch a kernel.
_working: set[str] = set()


def why_not(name: str) -> str | None:
    """Why backend ``name`` cannot be used here, or None if it can."""
    if name == "reference":
        return None
    if name == "cpu":
        return cpu.why_not()
    return importlib.import_module("roi_ops.cuda").why_not()


def select(device_type: str) -> ModuleType:
    """The backend module for tensors on a device of this type ("cpu", "cuda", ...).

    Raises:
        RuntimeError: a backend is forced that does not work here or not for this device.
        ValueError: ``ROI_OPS_BACKEND`` names no backend.
    """
    name = forced()
    if name is None:
        if device_type == "cuda" and (cuda := importlib.import_module("roi_ops.cuda")).available():
            return cuda
        return cpu if device_type == "cpu" and cpu.available() else reference
    if name == "reference":
        return reference
    if name not in _working:
        reason = why_not(name)
        if reason is not None:
            raise RuntimeError(f"the roi_ops backend '{name}' is forced but does not work here: {reason}")
        _working.add(name)
    if name != device_type:
        raise RuntimeError(f"the roi_ops backend '{name}' is forced but the tensors are on '{device_type}'")
    return importlib.import_module("roi_ops.cuda") if name == "cuda" else cpu


def forced() -> str | None:
    """The backend that is forced here, or None."""
    return _override.get(_environment)


def instruction_set() -> str:
    """SIMD instruction set of the CPU kernels, "none" without them."""
    return cpu.instruction_set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend ("reference", "cpu" or "cuda") in a ``with`` block; None lets the device decide.

    Other threads do not see it. Derivatives of what is computed in the block come from the same backend, wherever
    and whenever they are.
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
