"""The most memory that a piece of work takes at one time."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures in a ``with`` block: ``megabytes`` beyond what was in use before, None where it cannot be told.

    On a GPU PyTorch's allocator counts. On the CPU it is the process's resident memory, as Linux keeps its peak, after
    what was freed before has been given back; memory that a library keeps to itself does not show, so it is a lower
    bound.
    """

    megabytes: float | None = None

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> PeakMemory:
        self._before: float | None
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 1e6
            return self
        with contextlib.suppress(AttributeError, OSError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)
        try:
            CLEAR.write_text("5")  # the peak starts anew from what is resident now
            self._before = resident("VmRSS")
        except OSError:
            self._before = None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is None:
            return
        peak = torch.cuda.max_memory_allocated() / 1e6 if self.device.type == "cuda" else resident("VmHWM")
        self.megabytes = max(peak - self._before, 0.0)


def resident(field: str) -> float:
    """A line of Linux's account of this process, megabytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"no {field}")
