"""The workloads of a GPU: one image of 800 x 1088 pixels, four levels of 256 channels, 1000 RoIs or 512 in training.

Two peers: torchvision as it is, and under ``torch.use_deterministic_algorithms``, where it computes RoIAlign in
Python. Reduced precision is compared with what autocast makes of torchvision's operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from torch import Tensor

import roi_ops
from detector.benchmark import cpu_suite
from detector.benchmark.timing import Bench, Call, Row
from detector.benchmark.workloads import Scene
from detector.config.defaults import default
from detector.config.schema import ModelConfig, RoiConfig
from detector.models.faster_rcnn import build_model

INPUTS = "1000 RoIs (backward: 512) of one 800 x 1088 image, C = 256, 7 x 7 bins, L2 flushed before each run."
Case = Callable[[Bench], Row]
DETERMINISTIC = "torchvision, deterministic"


def cases(bench: Bench) -> list[Case]:
    """The workloads; each is built when its turn comes, so that only one is in memory."""
    count, fewer, wide = (100, 50, 64) if bench.quick else (1000, 512, 256)
    scene = Scene((800, 1088), 1, bench.device)

    def forward(name: str, channels_last: bool, dtype: torch.dtype = torch.float32) -> Case:
        def measure(bench: Bench) -> Row:
            maps, boxes = scene.pyramid(wide, channels_last, dtype), scene.proposals(count)
            mine, peer = (scene.forward(pooler, maps, boxes) for pooler in poolers(maps))
            if dtype != torch.float32:
                peer = under_autocast(peer, bench.device, dtype)
            a, b = bench.in_turn(mine, peer)
            peer_name = "torchvision" if dtype == torch.float32 else "torchvision, autocast"
            return Row(name, "forward", a, b, peer_name, scene.floor(maps, boxes, bench.bandwidth))

        return measure

    def backward(name: str, channels_last: bool, is_deterministic: bool) -> Case:
        def measure(bench: Bench) -> Row:
            maps, boxes = scene.pyramid(wide, channels_last), scene.proposals(fewer)
            ours, theirs = poolers(maps)
            mine = scene.backward(ours, maps, boxes)
            with deterministic(is_deterministic):
                peer = scene.backward(theirs, maps, boxes)
            if is_deterministic:
                peer = deterministically(peer)
            a, b = bench.in_turn(mine, peer)
            floor = scene.floor(maps, boxes, bench.bandwidth, forward=False, backward=True)
            return Row(name, "backward", a, b, DETERMINISTIC if is_deterministic else "torchvision", floor)

        return measure

    def adaptive(bench: Bench) -> Row:
        maps, boxes = scene.pyramid(wide), scene.proposals(count)
        mine, peer = (scene.forward(pooler, maps, boxes) for pooler in poolers(maps, 0))
        a, b = bench.in_turn(mine, peer)
        return Row("adaptive sampling", "forward", a, b, "torchvision", scene.floor(maps, boxes, bench.bandwidth))

    return [
        forward("channels_last", True),
        forward("contiguous", False),
        forward("channels_last, bfloat16", True, torch.bfloat16),
        forward("channels_last, float16", True, torch.float16),
        adaptive,
        backward("channels_last", True, False),
        backward("contiguous", False, False),
        backward("channels_last", True, True),
        lambda bench: cpu_suite.pool(bench, scene, count, wide),
        cpu_suite.overhead,
        training_step,
    ]


def poolers(maps: dict[str, Tensor], ratio: int = 2) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours and torchvision's, 7 x 7 bins."""
    names = list(maps)
    return roi_ops.MultiScaleRoIAlign(names, 7, ratio), torchvision.ops.MultiScaleRoIAlign(names, 7, ratio)


def under_autocast(call: Call, device: torch.device, dtype: torch.dtype) -> Call:
    """The call under autocast, which computes torchvision's RoIAlign in float32 and casts it back."""

    def wrapped() -> None:
        with torch.autocast(device.type, dtype=dtype):
            call()

    return wrapped


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


def deterministically(call: Call) -> Call:
    """The call with deterministic algorithms."""

    def wrapped() -> None:
        with deterministic(True):
            call()

    return wrapped


def training_step(bench: Bench) -> Row:
    """One optimiser-less training step of ``model=fpn``, 8 images of 800 pixels in bfloat16."""
    side, batch = (128, 2) if bench.quick else (800, 8)
    scene = Scene((side, side), batch, bench.device)
    images = [torch.rand(3, side, side, device=bench.device) for _ in range(batch)]
    targets = [
        {"boxes": b + torch.tensor([0.0, 0, 4, 4], device=b.device), "labels": torch.ones(len(b), dtype=torch.int64)}
        for b in scene.proposals(8 * batch)
    ]
    targets = [{key: value.to(bench.device) for key, value in target.items()} for target in targets]
    calls = []
    for kind in ("align", "torchvision_align"):
        torch.manual_seed(0)
        model = build_model(
            default(ModelConfig, name="fpn", min_size=[side]), default(RoiConfig, kind=kind), num_classes=2
        )
        model.to(bench.device, memory_format=torch.channels_last)

        def step(model: torch.nn.Module = model) -> None:
            torch.manual_seed(1)
            with torch.autocast(bench.device.type, dtype=torch.bfloat16):
                losses = model(images, targets)
            sum(losses.values()).backward()
            model.zero_grad()

        calls.append(step)
    a, b = bench.in_turn(*calls)
    name = f"training step, model=fpn, {batch} x {side} px, bfloat16"
    return Row(name, "forward + backward", a, b, "roi=torchvision_align")


def curves(bench: Bench) -> dict[str, dict[str, list[float]]]:
    """Forward times against the number of RoIs and against the sampling ratio."""
    return cpu_suite.curves(bench, Scene((800, 1088), 1, bench.device))
