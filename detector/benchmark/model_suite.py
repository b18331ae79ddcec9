"""The whole detector in inference: latency by batch, precision, layout and pooler; time by stage; memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from detector.benchmark.table import Measured, Section
from detector.benchmark.timing import Bench
from detector.config.defaults import default
from detector.config.schema import BenchmarkConfig, ModelConfig, RoiConfig
from detector.config.targets import word_of
from detector.measure import PeakMemory, latencies, synchronize
from detector.models.checkpoint import load_trained_model
from detector.models.faster_rcnn import build_model
from detector.words import three_digits

CLASSES = 21  # of an untrained detector, background included
PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}
STAGES = ("transform", "backbone", "RPN", "pooling", "box head", "post-processing")


@dataclass(frozen=True)
class Setting:
    """One way to run the detector."""

    batch: int = 1
    precision: str = "32"
    layout: str = "channels_last"
    roi: str = "align"


def settings(device: str, quick: bool, roi: str) -> list[Setting]:
    """One change at a time from the first."""
    first = Setting(roi=roi)
    if quick:
        return [first, replace(first, roi="torchvision_align")]
    shorter = ("bf16", "16") if device == "cuda" else ("bf16",)
    return [
        first,
        *(replace(first, batch=batch) for batch in ((2, 4, 8, 16) if device == "cuda" else (2, 4))),
        *(replace(first, precision=precision) for precision in shorter),
        replace(first, layout="contiguous"),
        *(replace(first, roi=kind) for kind in ("align", "pool", "prroi", "torchvision_align") if kind != roi),
    ]


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """Every setting, and the stages of the first."""
    height, width = (64, 96) if config.quick else (config.image_size[0], config.image_size[1])
    source = Source(config.checkpoint, height, width, config.trust)
    rows, records = [], []
    chosen = settings(bench.device.type, config.quick, word_of(source.roi.kind))
    for setting in track(chosen, "model", disable=not config.progress_bar):
        model = source.build(setting, bench.device)
        images = [torch.rand(3, height, width, device=bench.device) for _ in range(setting.batch)]
        with torch.inference_mode(), precision(setting, bench.device):
            times = latencies(partial(model, images), bench.repeats, bench.device)
            with PeakMemory(bench.device) as peak:
                model(images)
        p50, p95 = (float(np.percentile(times, q)) for q in (50, 95))
        speed = 1e3 * setting.batch / p50
        records.append(
            {**asdict(setting), "p50_ms": p50, "p95_ms": p95, "images_per_s": speed, "peak_mb": peak.megabytes}
        )
        memory = "" if peak.megabytes is None else f"{peak.megabytes:.0f}"
        times_and_speed = [three_digits(value) for value in (p50, p95, speed)]
        rows.append([str(setting.batch), setting.precision, setting.layout, setting.roi, *times_and_speed, memory])
    columns = ["batch", "precision", "layout", "roi", "p50, ms", "p95, ms", "images/s", "peak memory, MB"]
    model = source.build(chosen[0], bench.device)
    images = [torch.rand(3, height, width, device=bench.device)]
    shares = stage_times(model, images, bench.repeats, bench.device)
    total = sum(shares.values())
    stages = Section(
        ["stage", "ms", "share"],
        [[name, three_digits(ms), f"{ms / total:.0%}"] for name, ms in shares.items()],
        [{"stage": name, "ms": ms, "share": ms / total} for name, ms in shares.items()],
        "By stage, first line of the table above",
    )
    inputs = (
        f"Images of {height} x {width} pixels, resized to a short side of {source.model.min_size[-1]}. Detector: "
        f"{source.name}. Peak memory is what one call takes beyond weights and images."
    )
    return Measured("The detector in inference", inputs, [Section(columns, rows, records), stages])


class Source:
    """Builds the detector of a checkpoint, or an untrained one, in the ways of :class:`Setting`."""

    def __init__(self, checkpoint: str, height: int, width: int, trust: str = ""):
        self.state: dict[str, Tensor] | None = None
        if checkpoint:
            module = load_trained_model(checkpoint, trust=trust)
            config, self.state, self.classes = module.config, module.model.state_dict(), len(module.class_names) + 1
            self.model, self.roi = replace(config.model, weights="none"), config.roi
            self.name = f"{checkpoint} (model={self.model.name})"
        else:
            self.roi, self.classes = default(RoiConfig), CLASSES
            self.model = default(ModelConfig, min_size=[min(height, width)], max_size=max(height, width))
            self.name = f"model=fpn, untrained, {CLASSES - 1} classes"

    def build(self, setting: Setting, device: torch.device) -> FasterRCNN:
        """The detector on ``device``, in eval mode."""
        torch.manual_seed(0)
        own = setting.roi == word_of(self.roi.kind)
        roi = self.roi if own else default(RoiConfig, kind=setting.roi, output_size=self.roi.output_size)
        model = build_model(replace(self.model, channels_last=setting.layout == "channels_last"), roi, self.classes)
        if self.state is not None:
            model.load_state_dict(self.state, strict=own)  # an operator of the user's may have weights
        return model.to(device).eval()


def precision(setting: Setting, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast of a setting."""
    dtype = PRECISIONS[setting.precision]
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def stage_times(model: FasterRCNN, images: list[Tensor], repeats: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each of :data:`STAGES`; post-processing is what the others leave of the whole.

    The device is waited for between stages.
    """
    heads = model.roi_heads
    modules = {
        "transform": [model.transform],
        "backbone": [model.backbone],
        "RPN": [model.rpn],
        "pooling": [heads.box_roi_pool],
        "box head": [heads.box_head, heads.box_predictor],
    }
    runs: list[dict[str, float]] = []
    with torch.inference_mode():
        model(images)
        for _ in range(repeats):
            with stopwatches(modules, device) as spent:
                synchronize(device)
                begun = time.perf_counter()
                model(images)
                synchronize(device)
                whole = (time.perf_counter() - begun) * 1e3
            runs.append({**spent, "post-processing": whole - sum(spent.values())})
    return {name: float(np.median([run[name] for run in runs])) for name in STAGES}


@contextlib.contextmanager
def stopwatches(modules: dict[str, list[nn.Module]], device: torch.device) -> Iterator[dict[str, float]]:
    """Adds up the milliseconds that the modules of each name take in the block."""
    spent = dict.fromkeys(modules, 0.0)
    begun: dict[str, float] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def before(*_: Any) -> None:
            synchronize(device)
            begun[name] = time.perf_counter()

        def after(*_: Any) -> None:
            synchronize(device)
            spent[name] += (time.perf_counter() - begun[name]) * 1e3

        handles.extend([module.register_forward_pre_hook(before), module.register_forward_hook(after)])

    for name, several in modules.items():
        for module in several:
            watch(name, module)
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()
