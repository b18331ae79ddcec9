"""The workloads of the CPU: two images of 800 x 1216 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor

import roi_ops
from detector.benchmark.detector_step import PEER, DetectorStep
from detector.benchmark.timing import Bench, Row, host_times
from detector.benchmark.workloads import SCALES, Scene, with_indices
from detector.config.defaults import default
from detector.config.schema import ModelConfig

INPUTS = (
    "1024 RoIs of two 800 x 1216 images, 7 x 7 bins, float32 unless said otherwise. Ours takes the memory of large "
    "results from results that are gone, as it does in training (`roi_ops/cpu/memory.py`); torchvision's gets new "
    "pages each time."
)
Case = Callable[[Bench], Row]
SCENE = Scene()


def cases(bench: Bench) -> list[Case]:
    """The workloads; each is built when its turn comes, so that only one is in memory."""
    count, wide, deep = (128, 64, 64) if bench.quick else (1024, 256, 1280)
    scene = SCENE

    def align(name: str, make: Callable[[], dict[str, Tensor]], both: bool, **ours: Any) -> Case:
        def measure(bench: Bench) -> Row:
            maps, boxes = make(), scene.proposals(count)
            wrap = scene.both if both else scene.forward
            mine = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2, **ours)
            peer = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, 2)
            a, b = bench.in_turn(wrap(mine, maps, boxes), wrap(peer, maps, boxes))
            floor = scene.floor(maps, boxes, bench.bandwidth, backward=both)
            return Row(name, "forward + backward" if both else "forward", a, b, "torchvision", floor)

        return measure

    def adaptive(bench: Bench) -> Row:
        maps, boxes = scene.pyramid(wide), scene.proposals(count)
        two, many = (roi_ops.MultiScaleRoIAlign(list(maps), 7, ratio) for ratio in (2, 0))
        a, b = bench.in_turn(scene.forward(many, maps, boxes), scene.forward(two, maps, boxes))
        floor = scene.floor(maps, boxes, bench.bandwidth)
        return Row("A, adaptive sampling", "forward", a, b, "ours at sampling 2", floor)

    def bfloat16(bench: Bench) -> Row:
        maps, boxes = scene.pyramid(wide, dtype=torch.bfloat16), scene.proposals(count)
        (a,) = bench.in_turn(scene.forward(roi_ops.MultiScaleRoIAlign(list(maps), 7, 2), maps, boxes))
        return Row("A, bfloat16", "forward", a, None, "torchvision raises", scene.floor(maps, boxes, bench.bandwidth))

    return [
        align("A: 4 levels, channels_last", lambda: scene.pyramid(wide), False),
        align("A: 4 levels, channels_last", lambda: scene.pyramid(wide), True),
        align("A, contiguous", lambda: scene.pyramid(wide, channels_last=False), False),
        align("A, contiguous", lambda: scene.pyramid(wide, channels_last=False), True),
        align("B: stride 32, 1280 channels", lambda: scene.single(deep, 32), False),
        align("B: stride 32, 1280 channels", lambda: scene.single(deep, 32), True),
        adaptive,
        bfloat16,
        lambda bench: pool(bench, scene, count, wide),
        overhead,
        training_step,
    ]


def pool(bench: Bench, scene: Scene, count: int, channels: int) -> Row:
    """RoIPool on one map of stride 16, forward and backward."""
    maps, boxes = scene.single(channels, 16), with_indices(scene.proposals(count))
    grad = torch.randn(count, channels, 7, 7, device=boxes.device)
    f = maps["0"]
    mine = lambda: torch.autograd.grad(roi_ops.roi_pool(f, boxes, 7, 1 / 16), f, grad)
    peer = lambda: torch.autograd.grad(torchvision.ops.roi_pool(f, boxes, 7, 1 / 16), f, grad)
    a, b = bench.in_turn(mine, peer)
    return Row("RoIPool, stride 16, channels_last", "forward + backward", a, b, "torchvision")


def overhead(bench: Bench) -> Row:
    """What the CPU takes for a call on tensors so small that nothing else counts."""
    maps = [torch.randn(1, 1, 8 >> i, 8 >> i, device=bench.device) for i in range(4)]
    boxes = torch.tensor([[0.0, 1, 1, 9, 9]], device=bench.device)
    calls = 50  # so few that their launches fit into the queue of a GPU, and the CPU never waits for it
    mine = lambda: [roi_ops.multiscale_roi_align(maps, boxes, 1, SCALES, 2) for _ in range(calls)]
    peer_module = torchvision.ops.MultiScaleRoIAlign(list("0123"), 1, 2)
    named = dict(zip("0123", maps, strict=True))
    peer = lambda: [peer_module(named, [boxes[:, 1:]], [(32, 32)]) for _ in range(calls)]
    a, b = host_times([mine, peer], bench.repeats, bench.device)
    return Row("one call on tiny tensors", "forward, CPU time", a / calls, b / calls, "torchvision")


def training_step(bench: Bench) -> Row:
    """Losses and gradients of ``model=c5``, 2 images of 256 pixels, against torchvision's pooler."""
    side = 64 if bench.quick else 256
    config = default(ModelConfig, name="c5", min_size=[side], norm="frozen")
    config.anchors.sizes = [[32, 64, 128, 256, 512]]
    a, b = bench.in_turn(*DetectorStep(config, side, 2, bench.device).calls())
    return Row("training step, model=c5, 2 x 256 px", "forward + backward", a, b, PEER)


def curves(bench: Bench, scene: Scene = SCENE) -> dict[str, dict[str, list[float]]]:
    """Forward times against the number of RoIs and against the sampling ratio, on the pyramid."""
    maps = scene.pyramid()
    found: dict[str, dict[str, list[float]]] = {}
    for axis, values in (("RoIs", [16, 64, 256, 1024, 2048]), ("sampling ratio", [1, 2, 3, 4, 6])):
        lines: dict[str, list[float]] = {"x": [float(v) for v in values], "ours": [], "torchvision": []}
        for value in values:
            boxes = scene.proposals(value if axis == "RoIs" else 1024)
            ratio = 2 if axis == "RoIs" else value
            mine = roi_ops.MultiScaleRoIAlign(list(maps), 7, ratio)
            peer = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, ratio)
            short = Bench(bench.device, min(bench.repeats, 5), bench.quick, bench.bandwidth)
            a, b = short.in_turn(scene.forward(mine, maps, boxes), scene.forward(peer, maps, boxes))
            lines["ours"].append(a)
            lines["torchvision"].append(b)
        found[axis] = lines
    return found
