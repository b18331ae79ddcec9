"""The way of images from disk to batches: reading, augmenting, and the loader with more and more processes."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from detector.benchmark.table import Measured, Section
from detector.benchmark.timing import Bench
from detector.config.defaults import default
from detector.config.schema import AugmentConfig, BenchmarkConfig, DataConfig, ShapesConfig
from detector.data.coco import CocoDataset, DetectionDataset
from detector.data.loader import DetectionLoader
from detector.data.splits import find_split
from detector.data.transforms import Augment
from detector.exceptions import ConfigError
from detector.measure import latencies
from detector.words import counted, three_digits

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "horizontal_flip": {"horizontal_flip": 1.0},
    "photometric": {"horizontal_flip": 0.0, "photometric": 1.0},
    "scale_jitter": {"horizontal_flip": 0.0, "scale_jitter": [0.5, 1.5]},
    "iou_crop": {"horizontal_flip": 0.0, "iou_crop": 1.0},
}
BATCH = 4
LOADED = 1024  # images that the loader reads, some of them again, for seconds of measuring


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """The images of ``config.annotations`` and ``config.images``, or drawn ones."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = data_set(config, Path(folder))
        count = min(len(dataset), 8 if config.quick else 64)
        stages = single(dataset, count)
        passes = 2 if config.quick else -(-LOADED // count)
        loading: list[dict[str, float]] = []
        workers = [0, 1] if config.quick else sorted({0, 1, 2, 4, os.cpu_count() or 1})
        for number in track(workers, "data", disable=not config.progress_bar):
            speed = throughput(dataset, count, passes, number)
            loading.append({"workers": number, "images_per_s": speed})
        sizes = np.array(dataset.sizes[:count])
    records, rows = [], []
    for name, times in stages.items():
        p50, p95 = (float(np.percentile(times, q)) for q in (50, 95))
        records.append({"stage": name, "p50_ms": p50, "p95_ms": p95})
        rows.append([name, three_digits(p50), three_digits(p95), three_digits(1e3 / p50)])
    alone = Section(["stage", "p50, ms", "p95, ms", "images/s"], rows, records, "One image at a time, one process")
    rows = [[str(record["workers"]), three_digits(record["images_per_s"])] for record in loading]
    loader = Section(["workers", "images/s"], rows, loading, f"Reading in batches of {BATCH}, by loader processes")
    height, width = np.median(sizes, axis=0).astype(int).tolist()
    source = config.annotations or "drawn images"
    inputs = f"{counted(count, 'image')} of {source}, median size {height} x {width} pixels."
    return Measured("The data", inputs, [alone, loader])


def data_set(config: BenchmarkConfig, folder: Path) -> DetectionDataset:
    """The data set of ``config``, or one drawn into ``folder``."""
    if bool(config.annotations) != bool(config.images):
        raise ConfigError("give both annotations=FILE.json and images=FOLDER, or none of them")
    if config.annotations:
        return CocoDataset(config.annotations, config.images, on_invalid="drop")
    side = 64 if config.quick else min(config.image_size)
    shapes = default(
        ShapesConfig, train_images=1, val_images=8 if config.quick else 32, image_size=side, max_object=side // 2
    )
    return find_split(default(DataConfig, root=str(folder), shapes=shapes), "val").dataset()


def single(dataset: DetectionDataset, count: int) -> dict[str, list[float]]:
    """Milliseconds of reading and of each augmentation for each of ``count`` images."""
    cpu = torch.device("cpu")
    times: dict[str, list[float]] = {"read and decode": []}
    for index in range(count):
        item = dataset[index]  # the file is in the page cache from here on
        times["read and decode"] += latencies(partial(dataset.__getitem__, index), 1, cpu)
        for name, changes in AUGMENTATIONS.items():
            augment = Augment(default(AugmentConfig, **changes))
            times.setdefault(name, []).extend(latencies(partial(augment, *item), 1, cpu))
    return times


def throughput(dataset: DetectionDataset, count: int, passes: int, workers: int) -> float:
    """Images a second of the loader over ``passes`` times ``count`` images, its processes running already."""
    subset = torch.utils.data.Subset(dataset, list(range(count)) * passes)
    batches = iter(DetectionLoader(subset, batch_size=BATCH, num_workers=workers))
    next(batches)
    begun, images = time.perf_counter(), 0
    for batch, _ in batches:
        images += len(batch)
    return images / (time.perf_counter() - begun)
