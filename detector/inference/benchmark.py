"""Measured speed of the RoI operators against torchvision's: both in one process, in turn, medians and ratios.

The table says for each workload how long ours and torchvision's take, their ratio, and the floor: the bytes that
have to move (output written, touched feature pixels read, each once) over the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich import box
from rich.progress import track
from rich.table import Table
from torch import Tensor

import roi_ops
from detector.config import BenchmarkConfig, ModelConfig, RoiConfig
from detector.files import replacing
from detector.models.faster_rcnn import build_model
from detector.plots import plot_benchmark

STRIDES = (4, 8, 16, 32)
SCALES = [1 / stride for stride in STRIDES]
IMAGE = (800, 1216)
Call = Callable[[], Any]


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


def run(config: BenchmarkConfig) -> tuple[list[Row], Path]:
    """Measure the suite, write ``NAME.json``, ``NAME.md`` and ``NAME.png`` and return the rows and the folder."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    repeats = 3 if config.quick else config.repeats
    bandwidth = copy_bandwidth()
    rows: list[Row] = []
    cases = roi_cases(config.quick)
    for case in track(cases, description="roi_ops", disable=not config.progress_bar):
        rows.append(case(repeats, bandwidth))
    curves = {} if config.quick else scaling_curves(repeats)
    folder = Path(config.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    results = [{**asdict(row), "ratio": row.ratio} for row in rows]
    report = {**environment(bandwidth, repeats), "rows": results, "curves": curves}
    name = f"roi_ops_{config.device}"
    for suffix, text in ((".json", json.dumps(report, indent=2)), (".md", markdown(report, rows, name))):
        with replacing(folder / f"{name}{suffix}") as temporary:
            temporary.write_text(text + "\n")
    if curves:
        plot_benchmark(curves, folder / f"{name}.png")
    return rows, folder


# ------------------------------------------------------------------------------------------- measuring
def in_turn(calls: Sequence[Call], repeats: int) -> list[float]:
    """Median time of each call in milliseconds; the calls take turns, so that a slow moment hits all of them."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, mine in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call()
            mine.append((time.perf_counter() - begun) * 1e3)
    return [statistics.median(mine) for mine in times]


def copy_bandwidth() -> float:
    """Bytes a second that a copy of a 256 MB tensor moves, read and written, the best of seven."""
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(7):
        begun = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - begun)
    return 2 * source.numel() * source.element_size() / best


def environment(bandwidth: float, repeats: int) -> dict[str, Any]:
    """What the numbers depend on: hardware, versions, date."""
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "instruction_set": roi_ops.instruction_set(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "copy_gb_per_s": round(bandwidth / 1e9, 1),
        "repeats": repeats,
    }


def processor() -> str:
    """Name of the processor as Linux tells it, or the platform's word."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --------------------------------------------------------------------------------------------- workloads
def proposals(count: int, seed: int = 0, images: int = 2) -> list[Tensor]:
    """A mix of proposals: sides log-uniform in 16..512 pixels, aspect 1/2..2, inside an 800 x 1216 image."""
    generator = torch.Generator().manual_seed(seed)
    side = 16 * 32 ** torch.rand(count, generator=generator)
    aspect = 2 ** (torch.rand(count, generator=generator) * 2 - 1)
    size = torch.stack([side * aspect.sqrt(), side / aspect.sqrt()], 1)
    limit = torch.tensor([IMAGE[1], IMAGE[0]], dtype=torch.float32)
    size = torch.minimum(size, limit)
    low = torch.rand(count, 2, generator=generator) * (limit - size)
    return list(torch.cat([low, low + size], 1).chunk(images))


def pyramid(channels: int = 256, channels_last: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Four random maps of two images, strides 4 to 32, that want gradients."""
    maps = {}
    for i, stride in enumerate(STRIDES):
        f = torch.randn(2, channels, IMAGE[0] // stride, IMAGE[1] // stride).to(dtype)
        maps[str(i)] = (f.to(memory_format=torch.channels_last) if channels_last else f).requires_grad_()
    return maps


def single(channels: int, stride: int) -> dict[str, Tensor]:
    """One random channels_last map of two images."""
    f = torch.randn(2, channels, IMAGE[0] // stride, IMAGE[1] // stride)
    return {"0": f.to(memory_format=torch.channels_last).requires_grad_()}


def forward(pooler: torchvision.ops.MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]) -> Call:
    """The forward pass alone."""
    maps = {name: f.detach() for name, f in maps.items()}
    return lambda: pooler(maps, boxes, [IMAGE, IMAGE])


def forward_backward(pooler: torchvision.ops.MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]) -> Call:
    """Forward and gradient of the features; the incoming gradient is contiguous, as a box head's is."""
    channels = next(iter(maps.values())).shape[1]
    grad = torch.randn(sum(len(b) for b in boxes), channels, *pooler.output_size)
    return lambda: torch.autograd.grad(pooler(maps, boxes, [IMAGE, IMAGE]), list(maps.values()), grad)


def floor(maps: dict[str, Tensor], boxes: list[Tensor], bandwidth: float, both: bool) -> float:
    """Milliseconds to write the output and read every touched pixel once; for ``both`` also to read the gradient
    of the output and write that of the features."""
    first = next(iter(maps.values()))
    shadows = {name: torch.ones(f.shape[0], 1, *f.shape[2:], requires_grad=True) for name, f in maps.items()}
    pooler = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2)
    touched = torch.autograd.grad(pooler(shadows, boxes, [IMAGE, IMAGE]).sum(), list(shadows.values()))
    pixels = sum(int((t != 0).sum()) for t in touched)
    output = sum(len(b) for b in boxes) * 49
    moved = (pixels + output) * first.shape[1]
    if both:
        moved += output * first.shape[1] + sum(f.numel() for f in maps.values())
    return moved * first.element_size() / bandwidth * 1e3


def roi_cases(quick: bool) -> list[Callable[[int, float], Row]]:
    """The workloads; each is built when its turn comes, so that only one is in memory."""
    count, wide = (128, 64) if quick else (1024, 256)

    def align(name: str, make: Callable[[], dict[str, Tensor]], both: bool, **ours: Any) -> Callable[[int, float], Row]:
        def measure(repeats: int, bandwidth: float) -> Row:
            maps, boxes = make(), proposals(count)
            wrap = forward_backward if both else forward
            mine = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2, **ours)
            peer = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, 2)
            a, b = in_turn([wrap(mine, maps, boxes), wrap(peer, maps, boxes)], repeats)
            return Row(name, "forward + backward" if both else "forward", a, b, "torchvision",
                       floor(maps, boxes, bandwidth, both))  # fmt: skip

        return measure

    def adaptive(repeats: int, bandwidth: float) -> Row:
        maps, boxes = pyramid(wide), proposals(count)
        two, many = (roi_ops.MultiScaleRoIAlign(list(maps), 7, ratio) for ratio in (2, 0))
        a, b = in_turn([forward(many, maps, boxes), forward(two, maps, boxes)], repeats)
        return Row("A, adaptive sampling", "forward", a, b, "ours at sampling 2", floor(maps, boxes, bandwidth, False))

    def bfloat16(repeats: int, bandwidth: float) -> Row:
        maps, boxes = pyramid(wide, dtype=torch.bfloat16), proposals(count)
        (a,) = in_turn([forward(roi_ops.MultiScaleRoIAlign(list(maps), 7, 2), maps, boxes)], repeats)
        return Row("A, bfloat16", "forward", a, None, "torchvision raises", floor(maps, boxes, bandwidth, False))

    def pool(repeats: int, bandwidth: float) -> Row:
        maps, boxes = single(wide, 16), proposals(count)
        peer_boxes = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])
        grad = torch.randn(count, wide, 7, 7)
        f = maps["0"]
        mine = lambda: torch.autograd.grad(roi_ops.roi_pool(f, peer_boxes, 7, 1 / 16), f, grad)
        peer = lambda: torch.autograd.grad(torchvision.ops.roi_pool(f, peer_boxes, 7, 1 / 16), f, grad)
        a, b = in_turn([mine, peer], repeats)
        return Row("RoIPool, stride 16, channels_last", "forward + backward", a, b, "torchvision")

    def overhead(repeats: int, bandwidth: float) -> Row:
        maps = [torch.randn(1, 1, 8 >> i, 8 >> i) for i in range(4)]
        boxes = torch.tensor([[0.0, 1, 1, 9, 9]])
        calls = 200
        mine = lambda: [roi_ops.multiscale_roi_align(maps, boxes, 1, SCALES, 2) for _ in range(calls)]
        peer_module = torchvision.ops.MultiScaleRoIAlign(list("0123"), 1, 2)
        named = dict(zip("0123", maps, strict=True))
        peer = lambda: [peer_module(named, [boxes[:, 1:]], [(32, 32)]) for _ in range(calls)]
        a, b = in_turn([mine, peer], repeats)
        return Row("one call on tiny tensors", "forward", a / calls, b / calls, "torchvision")

    wide_b = 64 if quick else 1280
    return [
        align("A: 4 levels, channels_last", lambda: pyramid(wide), False),
        align("A: 4 levels, channels_last", lambda: pyramid(wide), True),
        align("A, contiguous", lambda: pyramid(wide, channels_last=False), False),
        align("A, contiguous", lambda: pyramid(wide, channels_last=False), True),
        align("B: stride 32, 1280 channels", lambda: single(wide_b, 32), False),
        align("B: stride 32, 1280 channels", lambda: single(wide_b, 32), True),
        adaptive,
        bfloat16,
        pool,
        overhead,
        lambda repeats, bandwidth: training_step(repeats, quick),
    ]


def training_step(repeats: int, quick: bool) -> Row:
    """One optimiser-less training step of ``model=c5``, 2 images of 256 pixels, against torchvision's pooler."""
    side = 64 if quick else 256
    images = [torch.rand(3, side, side) for _ in range(2)]
    corners = proposals(16, images=2)
    targets = [
        {"boxes": b / IMAGE[1] * side + torch.tensor([0.0, 0, 4, 4]), "labels": torch.ones(len(b), dtype=torch.int64)}
        for b in corners
    ]
    calls = []
    for kind in ("align", "torchvision_align"):
        torch.manual_seed(0)
        config = ModelConfig(name="c5", min_size=[side], norm="frozen")
        config.anchors.sizes = [[32, 64, 128, 256, 512]]
        model = build_model(config, RoiConfig(kind=kind), num_classes=2)

        def step(model: torch.nn.Module = model) -> None:
            torch.manual_seed(1)
            sum(model(images, targets).values()).backward()
            model.zero_grad()

        calls.append(step)
    a, b = in_turn(calls, repeats)
    return Row("training step, model=c5, 2 x 256 px", "forward + backward", a, b, "roi=torchvision_align")


def scaling_curves(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Forward times against the number of RoIs and against the sampling ratio, on workload A."""
    maps = pyramid()
    curves: dict[str, dict[str, list[float]]] = {}
    for axis, values in (("RoIs", [16, 64, 256, 1024, 2048]), ("sampling ratio", [1, 2, 3, 4, 6])):
        lines: dict[str, list[float]] = {"x": [float(v) for v in values], "ours": [], "torchvision": []}
        for value in values:
            boxes = proposals(value if axis == "RoIs" else 1024)
            ratio = 2 if axis == "RoIs" else value
            mine = roi_ops.MultiScaleRoIAlign(list(maps), 7, ratio)
            peer = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, ratio)
            a, b = in_turn([forward(mine, maps, boxes), forward(peer, maps, boxes)], min(repeats, 5))
            lines["ours"].append(a)
            lines["torchvision"].append(b)
        curves[axis] = lines
    return curves


# ------------------------------------------------------------------------------------------------ report
def table(rows: list[Row]) -> Table:
    """The rows for a terminal."""
    shown = Table("workload", "measure", "ours, ms", "peer, ms", "ratio", "floor, ms", "peer", box=box.SIMPLE_HEAD)
    for column in shown.columns:
        column.no_wrap = True
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def cells(row: Row) -> list[str]:
    """A row as text; empty where there is nothing to say."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2g}x" if row.ratio < 10 else f"{row.ratio:.0f}x"
    peer, limit = ("" if value is None else f"{value:.3g}" for value in (row.peer, row.floor))
    return [row.workload, row.measure, f"{row.ours:.3g}", peer, ratio, limit, row.peer_name]


def markdown(report: dict[str, Any], rows: list[Row], name: str) -> str:
    """The table with the conditions it was measured under."""
    lines = [
        "# RoI operators: ours against torchvision",
        "",
        f"{report['processor']} ({report['instruction_set']}), {report['threads']} threads, "
        f"Python {report['python']}, torch {report['torch']}, torchvision {report['torchvision']}, {report['date']}.",
        f"Copy bandwidth {report['copy_gb_per_s']} GB/s (read and written). Medians of {report['repeats']} runs, "
        "in turn in one process. 1024 RoIs of two 800 x 1216 images, 7 x 7 bins, float32 unless said otherwise.",
        "The floor is the bytes that have to move over that bandwidth. Ours takes the memory of large results from "
        "results that are gone, as it does in training (`roi_ops/cpu/memory.py`); torchvision's gets new pages each "
        "time.",
        "",
        "| workload | measure | ours, ms | peer, ms | ratio | floor, ms | peer |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", f"`python scripts/benchmark.py suite=roi_ops` makes this table and `{name}.json`."]
    if report["curves"]:
        lines += ["", f"![time against the number of RoIs and the sampling ratio]({name}.png)"]
    return "\n".join(lines)

