"""Which implementation serves a call: the compiled kernels where they work, else the reference.

``ROI_OPS_BACKEND=reference|cpu|cuda`` in the environment, or :func:`use_backend`, forces one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from roi_ops import cpu, reference

NAMES = ("reference", "cpu", "cuda")
VARIABLE = "ROI_OPS_BACKEND"

_forced: str | None = None


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
    name = _forced
    if name is None:
        if device_type == "cuda" and (cuda := importlib.import_module("roi_ops.cuda")).available():
            return cuda
        return cpu if device_type == "cpu" and cpu.available() else reference
    if name == "reference":
        return reference
    reason = why_not(name)
    if reason is not None:
        raise RuntimeError(f"the roi_ops backend '{name}' is forced but does not work here: {reason}")
    if name != device_type:
        raise RuntimeError(f"the roi_ops backend '{name}' is forced but the tensors are on '{device_type}'")
    return importlib.import_module("roi_ops.cuda") if name == "cuda" else cpu


def forced() -> str | None:
    """The backend that is forced, or None."""
    return _forced


def instruction_set() -> str:
    """SIMD instruction set of the CPU kernels, "none" without them."""
    return cpu.instruction_set()


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend ("reference", "cpu" or "cuda") in a ``with`` block; None lets the device decide."""
    global _forced
    previous, _forced = _forced, _check(name, "use_backend")
    try:
        yield
    finally:
        _forced = previous


def _check(name: str | None, source: str) -> str | None:
    if name is not None and name not in NAMES:
        raise ValueError(f"{source}: unknown backend '{name}'; known: {', '.join(NAMES)}")
    return name


_forced = _check(os.environ.get(VARIABLE) or None, VARIABLE)
