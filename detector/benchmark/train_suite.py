"""A step of our training against one of a plain loop around torchvision's detector, in turn in one process.

Ours is what ``scripts/train.py`` runs: Lightning's loop with its callbacks, the guard against losses that are not
finite, the rows of the log. The plain loop is torchvision's tutorial: losses, backward, optimiser, nothing else, with
torchvision's pooler. Both see the same batches, which are in memory, and have layers of the same sizes; neither
evaluates.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from detector.benchmark.table import Measured, compared
from detector.benchmark.timing import Bench, Row
from detector.config.defaults import default
from detector.config.schema import BenchmarkConfig, Config
from detector.data.loader import Batch
from detector.data.splits import find_split
from detector.training.callbacks.guard import Guard
from detector.training.callbacks.monitor import Monitor
from detector.training.distributed import process_group
from detector.training.module import DetectionModule
from detector.training.trainer import build_trainer, settings

INPUTS = (
    "4 drawn images of 320 x 320 pixels a step, MobileNetV2 from random weights that hardly move (a rate of 1e-7), "
    "batch norm, AdamW, float32; medians of the time from step to step, data in memory, ours with "
    "trainer.deterministic=true as by default."
)
TAPS = {3: 24, 6: 32, 13: 96, 18: 1280}  # of MobileNetV2: last block of the strides 4 to 32 -> channels
WARM = 3  # steps of each that do not count


class Turns(pl.Callback):
    """After each of our steps runs one of the plain loop on the same batch; notes the seconds of both.

    Ours is counted from the end of the peer's step before it, so all that Lightning does between two steps is in it.
    To be the last of the callbacks.
    """

    def __init__(self, peer: Callable[[Batch], None], device: torch.device):
        self.peer = peer
        self.device = device
        self.ours: list[float] = []
        self.peers: list[float] = []
        self._mark: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Our step is done."""
        ended = self._now()
        if self._mark is not None:
            self.ours.append(ended - self._mark)
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        begun = self._now()
        self.peer(batch)
        self.peers.append(self._now() - begun)
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        self._mark = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """``fpn`` and ``c5`` in both memory formats."""
    kinds = [(name, channels_last) for name in ("fpn", "c5") for channels_last in (True, False)]
    rows = [
        measure_step(name, channels_last, bench)
        for name, channels_last in track(kinds, "train", disable=not config.progress_bar)
    ]
    return Measured("A training step against a plain torchvision loop", INPUTS, [compared(rows)])


def measure_step(name: str, channels_last: bool, bench: Bench) -> Row:
    """Median seconds of a step of ``model=name``, ours and the plain loop's."""
    side = 64 if bench.quick else 320
    with tempfile.TemporaryDirectory(prefix="detector-") as folder:
        config = configured(name, channels_last, side, folder, bench)
        names, batches = drawn(config, bench.device)
        torch.manual_seed(0)
        module = DetectionModule(config, names)
        peer = plain_model(config, len(names) + 1).to(bench.device)
        if channels_last:
            peer = peer.to(memory_format=torch.channels_last)
        turns = Turns(plain_loop(peer, config), bench.device)
        accelerator = "gpu" if bench.device.type == "cuda" else "cpu"
        with settings(config):
            trainer = build_trainer(
                config, accelerator, process_group(config.trainer), Path(folder),
                [Guard(config.optim.clip_norm), Monitor(config.trainer.log_every), turns], [],
            )  # fmt: skip
            loader: DataLoader[Batch] = DataLoader(batches, batch_size=None, collate_fn=lambda b: b)  # type: ignore[arg-type]
            trainer.fit(module, train_dataloaders=loader)
    layout = "channels_last" if channels_last else "contiguous"
    ours, peers = (statistics.median(times[WARM:]) * 1e3 for times in (turns.ours, turns.peers))
    return Row(f"model={name}, {layout}", "training step", ours, peers, "plain torchvision loop")


def configured(name: str, channels_last: bool, side: int, folder: str, bench: Bench) -> Config:
    """The configuration of the run that is measured."""
    config = default(Config, run_dir=folder)
    config.model.name, config.model.channels_last = name, channels_last
    config.model.min_size, config.model.max_size = [side], side
    if name == "c5":
        config.model.anchors.sizes = [[32, 64, 128, 256, 512]]
    if bench.quick:
        config.model.head.width = 32
    # Each step does the work of the first: weights that learn change the number of proposals, and those that diverge
    # have subnormal gradients, which cost ten times as much.
    config.optim.lr, config.optim.warmup_steps = 1e-7, 0
    config.data.batch_size = 2 if bench.quick else 4
    shapes = config.data.shapes
    shapes.train_images, shapes.val_images, shapes.image_size = 4 * config.data.batch_size, 1, side
    shapes.max_object = side // 2
    config.trainer.max_steps = bench.repeats + WARM + 1
    config.trainer.accelerator = "gpu" if bench.device.type == "cuda" else "cpu"
    config.data.root = str(Path(folder) / "data")
    return config


def drawn(config: Config, device: torch.device) -> tuple[list[str], list[Batch]]:
    """Names of the classes, and as many batches as the run has steps, on ``device``."""
    dataset = find_split(config.data, "train").dataset()
    size, batches = config.data.batch_size, []
    for step in range(config.trainer.max_steps):
        pairs = [dataset[(step * size + i) % len(dataset)] for i in range(size)]
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in pairs]
        batches.append(([image.to(device) for image, _ in pairs], targets))
    return dataset.class_names, batches


def plain_model(config: Config, classes: int) -> FasterRCNN:
    """torchvision's detector with torchvision's parts, of the sizes that ``config`` has."""
    model, features = config.model, mobilenet_v2().features
    backbone: nn.Module
    if model.name == "fpn":
        taps = {str(block): str(i) for i, block in enumerate(TAPS)}
        backbone = BackboneWithFPN(features, taps, list(TAPS.values()), model.fpn_channels)
        channels, names = model.fpn_channels, list(taps.values())
    else:
        backbone, channels, names = features, TAPS[18], ["0"]
        setattr(backbone, "out_channels", channels)  # noqa: B010 (FasterRCNN reads it)
    sizes = tuple(tuple(int(s) for s in of_map) for of_map in model.anchors.sizes)
    return FasterRCNN(
        backbone,
        min_size=model.min_size[-1],
        max_size=model.max_size,
        rpn_anchor_generator=AnchorGenerator(sizes, (tuple(model.anchors.aspect_ratios),) * len(sizes)),
        rpn_pre_nms_top_n_train=model.rpn.pre_nms_top_n_train,
        rpn_post_nms_top_n_train=model.rpn.post_nms_top_n_train,
        box_roi_pool=MultiScaleRoIAlign(names, config.roi.output_size, config.roi.sampling_ratio),
        box_head=TwoMLPHead(channels * 49, model.head.width),
        box_predictor=FastRCNNPredictor(model.head.width, classes),
        box_batch_size_per_image=model.head.batch_size_per_image,
    )


def plain_loop(model: FasterRCNN, config: Config) -> Callable[[Batch], None]:
    """A step of the loop in torchvision's tutorial."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)

    def step(batch: Batch) -> None:
        losses = sum(model(*batch).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()

    return step
