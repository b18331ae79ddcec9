"""How long calls take on a device: medians, the calls in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detector.measure import CPU, Call, call_ms, medians_in_turn, synchronize

# Written before each timed call on a GPU: more than any L2 cache holds.
FLUSH_BYTES = 1 << 30
# Three flushes take about a millisecond, in which the CPU queues the launches of the call: without that head start
# the time between events would be the CPU's.
FLUSHES = 3


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
    """Where and how often is measured; ``bandwidth``: bytes per second of a copy on that device."""

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
            return between_events(calls, self.repeats)
        return medians_in_turn(calls, self.repeats)


def host_times(calls: Sequence[Call], repeats: int, device: torch.device = CPU) -> list[float]:
    """Median milliseconds until each call returns, ``device`` idle before; the calls take turns.

    Each call is made once before, which does not count.
    """
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, mine in zip(calls, times, strict=True):
            synchronize(device)
            mine.append(call_ms(call))
    return [statistics.median(mine) for mine in times]


def between_events(calls: Sequence[Call], repeats: int) -> list[float]:
    """Median milliseconds of each call from its first kernel to its last, caches flushed; the calls take turns."""
    for call in calls:  # compiles kernels, fills the caching allocator
        for _ in range(3):
            call()
    flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    events = [[event_pair() for _ in range(repeats)] for _ in calls]
    for i in range(repeats):
        for call, mine in zip(calls, events, strict=True):
            for _ in range(FLUSHES):
                flushed.zero_()
            mine[i][0].record()
            call()
            mine[i][1].record()
            torch.cuda.synchronize()
    return [statistics.median(begin.elapsed_time(end) for begin, end in mine) for mine in events]


def event_pair() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Two events that keep their times."""
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy moves, read and written, the best of seven: 256 MB, on a GPU 1 GB."""
    on_gpu = device.type == "cuda"
    source = torch.ones((256 if on_gpu else 64) << 20, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(7):
        if on_gpu:
            begin, end = event_pair()
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
