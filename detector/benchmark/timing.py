"""How long calls take on a device, in turn, and what the numbers depend on."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision

import roi_ops

Call = Callable[[], Any]

# Cleared before each timed call on a GPU: more than any L2 cache holds, and long enough for the CPU to have queued the
# launches of a short call before its turn comes.
FLUSH_BYTES = 1 << 30


@dataclass
class Row:
    """One line of the table; times in milliseconds, None where there is nothing to measure."""

    workload: str
    measure: str
    ours: float
    peer: float | None
    peer_name: str
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.peer is None else self.peer / self.ours


@dataclass
class Bench:
    """Where and how often is measured; ``bandwidth``: bytes a second of a copy on that device."""

    device: torch.device
    repeats: int
    quick: bool
    bandwidth: float

    def in_turn(self, *calls: Call) -> list[float]:
        """Median time of each call in milliseconds; they take turns, so that a slow moment hits all of them.

        On a GPU: between two events in the stream, after the caches were flushed. That includes the time that the
        device waits for the CPU within a call, but not the CPU's time before its first launch.
        """
        if self.device.type == "cuda":
            return _between_events(calls, self.repeats)
        return host_times(calls, self.repeats)


def host_times(calls: Sequence[Call], repeats: int) -> list[float]:
    """Median time until each call returns, in milliseconds; does not wait for a GPU."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, mine in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call()
            mine.append((time.perf_counter() - begun) * 1e3)
    return [statistics.median(mine) for mine in times]


def latencies(call: Call, repeats: int, device: torch.device) -> list[float]:
    """Milliseconds of each of ``repeats`` calls, after one that does not count, until the device has finished."""
    call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        begun = time.perf_counter()
        call()
        synchronize(device)
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _between_events(calls: Sequence[Call], repeats: int) -> list[float]:
    for call in calls:  # compiles kernels, fills the caching allocator
        for _ in range(3):
            call()
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    events = [[_event_pair() for _ in range(repeats)] for _ in calls]
    for i in range(repeats):
        for call, mine in zip(calls, events, strict=True):
            flush.zero_()
            mine[i][0].record()
            call()
            mine[i][1].record()
    torch.cuda.synchronize()
    return [statistics.median(begin.elapsed_time(end) for begin, end in mine) for mine in events]


def _event_pair() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy moves, read and written, the best of seven: 256 MB, on a GPU 1 GB."""
    on_gpu = device.type == "cuda"
    source = torch.ones((256 if on_gpu else 64) << 20, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(7):
        if on_gpu:
            begin, end = _event_pair()
            begin.record()
            target.copy_(source)
            end.record()
            torch.cuda.synchronize()
            best = min(best, begin.elapsed_time(end) / 1e3)
        else:
            begun = time.perf_counter()
            target.copy_(source)
            best = min(best, time.perf_counter() - begun)
    return 2 * source.numel() * source.element_size() / best


def environment(bench: Bench) -> dict[str, Any]:
    """What the numbers depend on: hardware, versions, date."""
    on_gpu = bench.device.type == "cuda"
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "instruction_set": roi_ops.instruction_set(),
        "gpu": torch.cuda.get_device_name(bench.device) if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "copy_gb_per_s": round(bench.bandwidth / 1e9, 1),
        "repeats": bench.repeats,
    }


def processor() -> str:
    """Name of the processor as Linux tells it, or the platform's word."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
