"""A training step of ``model=fpn`` with our pooling and with torchvision's: time, waits for the GPU, memory.

On a GPU 8 images of 800 x 800 pixels in bfloat16 and float32; on a CPU 2 of 256 x 256 in float32.
"""

from __future__ import annotations

from typing import Any

import torch

from detector.benchmark.cases import until_stopped
from detector.benchmark.detector_step import KINDS, DetectorStep
from detector.benchmark.device_times import count_syncs, kernel_times, peak_megabytes
from detector.benchmark.table import Measured, Section
from detector.benchmark.timing import Bench
from detector.config.defaults import default
from detector.config.schema import BenchmarkConfig, ModelConfig
from detector.words import three_digits

COLUMNS = ("precision", "roi", "step, ms", "kernels, ms", "waits for the GPU", "peak memory, MB", "images/s")


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """Each precision and pooling."""
    on_gpu = bench.device.type == "cuda"
    side, batch = (800, 8) if on_gpu else (256, 2)
    if bench.quick:
        side, batch = 64, 2
    dtypes = [torch.bfloat16, torch.float32] if on_gpu or bench.quick else [torch.float32]
    cases = [lambda dtype=dtype: measure_step(bench, side, batch, dtype) for dtype in dtypes]
    found, note = until_stopped(cases, "step", config.progress_bar, lambda pair: "\n".join(map(" | ".join, rows(pair))))
    records = [record for pair in found for record in pair]
    inputs = (
        f"model=fpn, {batch} images of {side} x {side} pixels per step, channels_last; losses and gradients, no "
        "optimiser. Medians between events, in turn; kernels: their times added up by the profiler; memory beyond "
        f"weights and images.{note}"
    )
    return Measured(
        "A training step: our pooling and torchvision's", inputs, [Section(COLUMNS, rows(records), records)]
    )


def measure_step(bench: Bench, side: int, batch: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    """The step with each of :data:`~detector.benchmark.detector_step.KINDS`."""
    model = default(ModelConfig, name="fpn", min_size=[side])
    if bench.quick:
        model.head.width, model.fpn_channels, model.rpn.post_nms_top_n_train = 32, 32, 100
    calls = DetectorStep(model, side, batch, bench.device, dtype).calls()
    records = []
    for kind, call, time in zip(KINDS, calls, bench.in_turn(*calls), strict=True):
        record: dict[str, Any] = {"precision": str(dtype).removeprefix("torch."), "roi": kind, "step_ms": time}
        record |= {"kernels_ms": None, "longest": {}, "syncs": None}
        if bench.device.type == "cuda":
            record["kernels_ms"], record["longest"] = kernel_times(call, 2)
            record["syncs"] = count_syncs(call)
        record |= {"peak_mb": peak_megabytes(call, bench.device), "images_per_s": 1e3 * batch / time}
        records.append(record)
    return records


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """The records as text."""
    numbers = ("step_ms", "kernels_ms", "syncs", "peak_mb", "images_per_s")
    return [
        [record["precision"], record["roi"], *("" if record[n] is None else three_digits(record[n]) for n in numbers)]
        for record in records
    ]
