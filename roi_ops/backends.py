"""Which implementation serves a call: the compiled kernels where they work, else the reference."""

from __future__ import annotations

from types import ModuleType

from roi_ops import cpu, cuda, reference
from roi_ops.forcing import NAMES, forced, use_backend

__all__ = ["NAMES", "forced", "instruction_set", "select", "use_backend", "why_not"]

# Forced backends that were found to work: to ask the driver takes longer than to launch a kernel.
_working: set[str] = set()


def why_not(name: str) -> str | None:
    """Why backend ``name`` cannot be used here, or None if it can."""
    if name == "reference":
        return None
    return cpu.why_not() if name == "cpu" else cuda.why_not()


def select(device_type: str) -> ModuleType:
    """The backend module for tensors on a device of this type ("cpu", "cuda", ...).

    Raises:
        RuntimeError: a backend is forced that does not work here or not for this device.
    """
    name = forced()
    if name is None:
        if device_type == "cuda" and cuda.available():
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
    return cuda if name == "cuda" else cpu


def instruction_set() -> str:
    """SIMD instruction set of the CPU kernels, "none" without them."""
    return cpu.instruction_set()
