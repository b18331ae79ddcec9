"""How long calls take until the device is done, and how much memory this process takes at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], Any]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CPU = torch.device("cpu")


# -------------------------------------------------------------------------------------------------- time
def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def call_ms(call: Call, device: torch.device = CPU) -> float:
    """Milliseconds of one call until ``device`` has finished; the default does not wait for a GPU."""
    synchronize(device)
    begun = time.perf_counter()
    call()
    synchronize(device)
    return (time.perf_counter() - begun) * 1e3


def latencies(call: Call, repeats: int, device: torch.device) -> list[float]:
    """Milliseconds of each of ``repeats`` calls, after one that does not count, until the device has finished."""
    call()
    return [call_ms(call, device) for _ in range(repeats)]


def medians_in_turn(calls: Sequence[Call], repeats: int, device: torch.device = CPU) -> list[float]:
    """Median milliseconds of each call; the calls take turns, so that a slow moment hits all of them.

    Each call is made once before, which does not count.
    """
    for call in calls:
        call()
    times = [[call_ms(call, device) for call in calls] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


# ------------------------------------------------------------------------------------------------ memory
class PeakMemory:
    """Measures in a ``with`` block: ``megabytes`` beyond what was in use before, None where it cannot be told.

    On a GPU PyTorch's allocator counts. On the CPU it is the resident memory of the process, whose peak Linux keeps,
    after freed memory has been given back to the system. Memory that a library keeps for later use does not show, so
    the number is a lower bound.
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
            self._before = resident_mb()
        except OSError:
            self._before = None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is None:
            return
        peak = torch.cuda.max_memory_allocated() / 1e6 if self.device.type == "cuda" else resident_mb("VmHWM")
        self.megabytes = max(peak - self._before, 0.0)


def peak_memory_mb() -> float:
    """The most memory that this process has had, in megabytes: of the GPU if it used one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_mb(field: str = "VmRSS") -> float:
    """Resident memory of this process alone in megabytes, as Linux counts it.

    Args:
        field: ``"VmRSS"``: now; ``"VmHWM"``: the peak.

    Raises:
        OSError: the system does not say.
    """
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"no {field}")
