"""What one call costs on a GPU, told apart: its kernels, its gaps, the CPU's part; syncs and memory of a step.

=========  =============================================================================================
kernels    the kernels' own times, added up by the profiler: no gaps, caches as the call before left them
replay     a replay of the call as a CUDA graph: no CPU work in it, caches flushed
events     between two events around the call, caches flushed: with the gaps in which the GPU waits
host       until the call returns to Python, the GPU idle before
=========  =============================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from detector.benchmark.table import Section
from detector.benchmark.timing import Bench, between_events, host_times
from detector.measure import Call, PeakMemory
from detector.words import three_digits

LONGEST = 6  # kernels that are named
COLUMNS = (
    *("workload", "floor", "ours: kernels", "replay", "events", "host"),
    *("peer: kernels", "events", "host", "ratio", "peer"),
)


@dataclass
class DeviceTimes:
    """Milliseconds of one call; None where there is nothing to measure.

    Attributes:
        kernels, replay, events, host: see the table above; on a CPU ``events`` and ``host`` are the same.
        longest: milliseconds of the longest kernels by name.
        note: why there is no replay.
    """

    events: float
    host: float
    kernels: float | None = None
    replay: float | None = None
    longest: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass
class DeviceRow:
    """A workload: ours, a peer's (None: there is none) and the floor, milliseconds."""

    workload: str
    floor: float | None
    ours: DeviceTimes
    peer: DeviceTimes | None = None
    peer_name: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is, between events."""
        return None if self.peer is None else self.peer.events / self.ours.events


def device_times(bench: Bench, ours: Call, peer: Call | None = None) -> tuple[DeviceTimes, DeviceTimes | None]:
    """Times of a call and of its peer, in turn; only ours is replayed, since torchvision's multi-level pooling waits
    for the GPU, which a capture does not allow."""
    calls = [ours] if peer is None else [ours, peer]
    events, host = bench.in_turn(*calls), host_times(calls, bench.repeats, bench.device)
    found = [DeviceTimes(e, h) for e, h in zip(events, host, strict=True)]
    if bench.device.type == "cuda":
        for times, call in zip(found, calls, strict=True):
            times.kernels, times.longest = kernel_times(call)
        found[0].replay, found[0].note = replay_time(ours, bench.repeats)
    return found[0], found[1] if len(found) > 1 else None


def kernel_times(call: Call, repeats: int = 5) -> tuple[float, dict[str, float]]:
    """Milliseconds of all kernels, copies and fills of a call, and those of the longest by name."""
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    events = profiled.key_averages()
    times = {event.key: event.self_device_time_total / repeats / 1e3 for event in events}
    longest = sorted(times.items(), key=lambda item: -item[1])[:LONGEST]
    return sum(times.values()), {name[:60]: time for name, time in longest if time}


def replay_time(call: Call, repeats: int) -> tuple[float | None, str]:
    """Median milliseconds of a replay of the call, captured on the current stream; or None and why not.

    The current stream must not be the default one, which cannot be captured; a backward pass runs on the stream of
    its forward pass, so that has to have run on the current one too.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            call()
    except Exception as error:  # whatever a kernel or an allocator says during a capture
        torch.cuda.synchronize()
        return None, f"{type(error).__name__}: {error}".split("\n")[0]
    return between_events([graph.replay], repeats)[0], ""


def count_syncs(call: Call) -> int:
    """How often a call waits for the GPU, by PyTorch's own count."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(warning.message) for warning in caught)


def peak_megabytes(call: Call, device: torch.device) -> float | None:
    """The most memory that a call takes beyond what was in use before it."""
    call()
    with PeakMemory(device) as peak:
        call()
    return peak.megabytes


def device_section(rows: Sequence[DeviceRow], title: str = "") -> Section:
    """The rows as a table of milliseconds."""
    return Section(COLUMNS, [cells(row) for row in rows], [record(row) for row in rows], title)


def cells(row: DeviceRow) -> list[str]:
    """A row as text; empty where there is nothing to say."""
    numbers = [row.floor, row.ours.kernels, row.ours.replay, row.ours.events, row.ours.host]
    numbers += [None] * 3 if row.peer is None else [row.peer.kernels, row.peer.events, row.peer.host]
    texts = ["" if number is None else three_digits(number) for number in numbers]
    return [row.workload, *texts, "" if row.ratio is None else f"{row.ratio:.3g}x", row.peer_name]


def record(row: DeviceRow) -> dict[str, Any]:
    """A row as numbers."""
    return {**asdict(row), "ratio": row.ratio}
