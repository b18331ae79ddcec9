"""The RoI operators on a GPU: one image of 800 x 1088 pixels, four levels of 256 channels, 1000 RoIs or 512 in
training; and a training batch of eight such images, its RoIs crowded on few objects.

Two peers: torchvision as it is, and under ``torch.use_deterministic_algorithms``, where it computes RoIAlign in
Python. Reduced precision is compared with what autocast makes of torchvision's operator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import roi_ops
from detector.benchmark import cpu_suite
from detector.benchmark.cases import until_stopped
from detector.benchmark.device_times import COLUMNS, DeviceRow, DeviceTimes, cells, device_section, device_times
from detector.benchmark.table import Measured
from detector.benchmark.timing import Bench
from detector.benchmark.workloads import Scene, autocast, with_indices
from detector.config.schema import BenchmarkConfig
from detector.measure import Call

INPUTS = (
    "1000 RoIs (backward: 512) of one 800 x 1088 image, maps of strides 4 to 32 with 256 channels, 7 x 7 bins, "
    "sampling 2; 8 x 512: a training batch of eight images, three quarters of the RoIs around six objects per image. "
    "Milliseconds, medians, in turn. Kernels: their times added up by the profiler. Replay: of a CUDA graph. Events: "
    "between two events around the call, the gaps included. Host: until the call returns. The caches are flushed "
    "three times before each replay and each call between events, so that the CPU is ahead of the GPU. The floor is "
    "the bytes that have to move over the copy bandwidth; the ratio is of the times between events."
)
DETERMINISTIC = "torchvision, deterministic"
Case = Callable[[], DeviceRow]


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """The table, and forward times against the number of RoIs and against the sampling ratio."""
    measured = table(bench, config.progress_bar)
    if not config.quick:
        measured.curves = cpu_suite.curves(bench, Scene((800, 1088), 1, bench.device))
    return measured


def table(bench: Bench, progress_bar: bool) -> Measured:
    """All workloads; those that were done, if it is stopped."""
    stream: Any = contextlib.nullcontext()
    if bench.device.type == "cuda":  # the default stream cannot be captured
        stream = torch.cuda.stream(torch.cuda.Stream())
    if not progress_bar:
        print(" | ".join(COLUMNS))
    with stream:
        found, note = until_stopped(cases(bench), "roi_ops", progress_bar, lambda row: " | ".join(cells(row)))
    inputs = "Small sizes, in which nothing is fast, to try it out." if bench.quick else INPUTS
    return Measured("RoI operators on a GPU", inputs + note, [device_section(found)])


@dataclass(frozen=True)
class Sizes:
    """How much there is to do: the scene, its RoIs and the channels of its maps."""

    scene: Scene
    rois: int
    channels: int


@dataclass(frozen=True)
class Align:
    """RoIAlign on a pyramid, ours and torchvision's.

    Attributes:
        is_backward: the gradient of the features, else the forward pass.
        layout: "channels_last" or "contiguous".
        dtype: of the features.
        ratio: samples per bin and axis; 0: adaptive.
        is_deterministic: the peer under ``torch.use_deterministic_algorithms``.
        is_crowded: three quarters of the RoIs are around six objects per image.
    """

    is_backward: bool
    layout: str = "channels_last"
    dtype: torch.dtype = torch.float32
    ratio: int = 2
    is_deterministic: bool = False
    is_crowded: bool = False

    def measure(self, bench: Bench, sizes: Sizes) -> DeviceRow:
        """Both on the same maps and boxes."""
        scene = sizes.scene
        maps = scene.pyramid(sizes.channels, self.layout == "channels_last", self.dtype)
        boxes = scene.crowded(sizes.rois) if self.is_crowded else scene.proposals(sizes.rois)
        ours, theirs = poolers(maps, self.ratio)
        call = scene.backward if self.is_backward else scene.forward
        with self._as_the_peer(bench.device):
            peer = call(theirs, maps, boxes)
        mine = call(ours, maps, boxes)
        floor = scene.floor(maps, boxes, bench.bandwidth, forward=not self.is_backward, backward=self.is_backward)
        times = device_times(bench, mine, self._within(peer, bench.device))
        return DeviceRow(self.name(sizes), floor, *times, self.peer_name())

    def name(self, sizes: Sizes) -> str:
        """Of the row."""
        per_image = sizes.rois // sizes.scene.images
        rois = f"{sizes.scene.images} x {per_image}" if sizes.scene.images > 1 else f"{per_image}"
        words = ["backward" if self.is_backward else "forward", rois, str(self.dtype).removeprefix("torch.")]
        return " ".join([*words, self.layout, *(["adaptive"] if self.ratio == 0 else [])])

    def peer_name(self) -> str:
        """The peer, and what it runs under."""
        if self.is_deterministic:
            return DETERMINISTIC
        return "torchvision" if self.dtype == torch.float32 else "torchvision, autocast"

    @contextmanager
    def _as_the_peer(self, device: torch.device) -> Iterator[None]:
        with autocast(device, self.dtype), deterministic(self.is_deterministic):
            yield

    def _within(self, call: Call, device: torch.device) -> Call:
        """The call under autocast, which computes torchvision's RoIAlign in float32 and casts it back; or with
        deterministic algorithms."""

        def wrapped() -> None:
            with self._as_the_peer(device):
                call()

        return wrapped if self.is_deterministic or self.dtype != torch.float32 else call


def cases(bench: Bench) -> list[Case]:
    """The workloads, the most wanted first."""
    many, few, channels = (100, 50, 64) if bench.quick else (1000, 512, 256)
    scene = Scene((160, 224) if bench.quick else (800, 1088), 1, bench.device)
    forward, backward = Sizes(scene, many, channels), Sizes(scene, few, channels)
    training = Sizes(replace(scene, images=2 if bench.quick else 8), few * (2 if bench.quick else 8), channels)
    half = torch.bfloat16
    aligns = [
        (Align(False), forward),
        (Align(True), backward),
        (Align(False, dtype=half), forward),
        (Align(True, dtype=half), backward),
        (Align(True, is_crowded=True), training),
        (Align(True, dtype=half, is_crowded=True), training),
        (Align(False, "contiguous"), forward),
        (Align(True, "contiguous"), backward),
        (Align(False, "contiguous", half), forward),
        (Align(True, "contiguous", half), backward),
        (Align(False, dtype=torch.float16), forward),
        (Align(False, ratio=0), forward),
    ]
    others: list[Case] = [
        lambda: prroi(bench, forward, False),
        lambda: prroi(bench, backward, True),
        lambda: pool(bench, forward, False),
        lambda: pool(bench, backward, True),
        lambda: overhead(bench),
        lambda: Align(True, is_deterministic=True).measure(bench, backward),
    ]
    return [*(lambda align=align, sizes=sizes: align.measure(bench, sizes) for align, sizes in aligns), *others]


def prroi(bench: Bench, sizes: Sizes, is_backward: bool) -> DeviceRow:
    """PrRoIPool on the pyramid; torchvision has none."""
    maps, boxes = sizes.scene.pyramid(sizes.channels), sizes.scene.proposals(sizes.rois)
    call = sizes.scene.backward if is_backward else sizes.scene.forward
    times = device_times(bench, call(roi_ops.MultiScalePrRoIPool(list(maps), 7), maps, boxes))
    return DeviceRow(f"{'backward' if is_backward else 'forward'} {sizes.rois} float32 PrRoIPool", None, *times)


def pool(bench: Bench, sizes: Sizes, is_backward: bool) -> DeviceRow:
    """RoIPool on one map of stride 16."""
    f = sizes.scene.single(sizes.channels, 16)["0"]
    boxes = with_indices(sizes.scene.proposals(sizes.rois))
    calls: list[Call] = []
    for operator in (roi_ops.roi_pool, torchvision.ops.roi_pool):
        if is_backward:
            out = operator(f, boxes, 7, 1 / 16)
            grad = torch.randn(out.shape, device=out.device)
            calls.append(lambda out=out, grad=grad: torch.autograd.grad(out, f, grad, retain_graph=True))  # type: ignore[misc]
        else:
            calls.append(lambda operator=operator: operator(f.detach(), boxes, 7, 1 / 16))  # type: ignore[misc]
    name = f"{'backward' if is_backward else 'forward'} {sizes.rois} float32 RoIPool, stride 16"
    return DeviceRow(name, None, *device_times(bench, *calls), "torchvision")


def overhead(bench: Bench) -> DeviceRow:
    """What the CPU takes for a call on tensors so small that nothing else counts."""
    row = cpu_suite.overhead(bench)
    assert row.peer is not None
    ours, peer = (DeviceTimes(time, time) for time in (row.ours, row.peer))
    return DeviceRow("one call on tiny tensors, CPU time", None, ours, peer, row.peer_name)


def poolers(maps: dict[str, Tensor], ratio: int = 2) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, 7 x 7 bins."""
    names = list(maps)
    return roi_ops.MultiScaleRoIAlign(names, 7, ratio), torchvision.ops.MultiScaleRoIAlign(names, 7, ratio)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """``torch.use_deterministic_algorithms`` for a while, without its filling of new memory, which is no work."""
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled
