"""Whole detectors side by side: inference in PyTorch and in ONNX Runtime, and a training step."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_mobilenet_v3_large_320_fpn

from detector.benchmark.retrofit_suite import CLASSES, batch, infer, step
from detector.benchmark.table import Measured, Section
from detector.benchmark.timing import Bench
from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.schema import BenchmarkConfig, Config, parse
from detector.export.onnx_export import OnnxDetector, write_onnx
from detector.measure import Call
from detector.models.faster_rcnn import build_model
from detector.words import three_digits

SIDES = (320, 480)
BASE = "model=fpn"  # what the others are compared with
SAME_MAPS = ("model.fpn_strides=[8,16,32,64]", "model.anchors.sizes=[[24],[48],[96],[192]]")  # those of fpn_lite
OURS = {
    BASE: ("model=fpn",),
    "model=fpn, strides 8 to 64": ("model=fpn", *SAME_MAPS),
    "model=fpn_lite": ("model=fpn_lite",),
    "model=mobilenet_v3_large_320_fpn": ("model=mobilenet_v3_large_320_fpn",),
}
PEER = "torchvision fasterrcnn_mobilenet_v3_large_320_fpn"
TIMES = ("inference", "ONNX Runtime", "training step")
INPUTS = (
    "Square images of noise, one for inference and four for a training step (losses and gradients), that no detector "
    "resizes unless its name says so; 20 classes, float32, random weights, with a score of the background that leaves "
    "no detection. The detectors take turns; medians in ms, in brackets the share of the first line's. ONNX Runtime "
    "has as many threads as PyTorch."
)


@dataclass
class Contender:
    """A detector that takes part.

    Attributes:
        name: in the table.
        model: the detector.
        exportable: what ``torch.onnx`` is given.
    """

    name: str
    model: FasterRCNN
    exportable: Callable[[], nn.Module]


class OneImage(nn.Module):
    """torchvision's detector for a single image [3, H, W]."""

    def __init__(self, model: FasterRCNN):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels."""
        found = self.model([image])[0]
        return found["boxes"], found["scores"], found["labels"]


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """A table for each of :data:`SIDES`."""
    sides = (64,) if bench.quick else SIDES
    sections = [measure_side(side, bench) for side in track(sides, "detectors", disable=not config.progress_bar)]
    return Measured("Detectors side by side", INPUTS, sections)


def measure_side(side: int, bench: Bench) -> Section:
    """Every detector on images of ``side`` x ``side`` pixels."""
    found = contenders(side, bench.device)
    images, targets = batch(4, side, side, bench.device)
    boxes = [{key: target[key] for key in ("boxes", "labels")} for target in targets]
    measured: dict[str, list[float]] = {}
    # First the steps: without them the statistics of batch norm are not those of the features.
    measured["training step"] = bench.in_turn(*(partial(step, one.model, images, boxes) for one in found))
    measured["inference"] = bench.in_turn(*(partial(infer, one.model, images[:1]) for one in found))
    if bench.device.type == "cpu" and all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        with tempfile.TemporaryDirectory(prefix="detector-") as folder:
            calls = [in_onnxruntime(one, images[0], Path(folder) / f"{i}.onnx") for i, one in enumerate(found)]
            measured["ONNX Runtime"] = bench.in_turn(*calls)
    rows, records = [], []
    for place, one in enumerate(found):
        weights = sum(p.numel() for p in one.model.parameters()) / 1e6
        times = {name: measured[name][place] if name in measured else None for name in TIMES}
        shares = {name: None if t is None else t / measured[name][0] for name, t in times.items()}
        cells = ["" if t is None else f"{three_digits(t)} ({shares[name]:.2f})" for name, t in times.items()]
        rows.append([one.name, three_digits(weights), *cells])
        records.append({"detector": one.name, "side": side, "millions": weights, "ms": times, "shares": shares})
    return Section(["detector", "weights, millions", *TIMES], rows, records, f"{side} x {side} pixels")


def contenders(side: int, device: torch.device) -> list[Contender]:
    """The detectors for images of ``side`` pixels, with random weights; the first is :data:`BASE`."""
    found = []
    for name, arguments in OURS.items():
        sizes = [f"model.min_size=[{side}]", f"model.max_size={side}"]
        composed = compose([configs_folder()], "train", ["~tuning@_global_", *arguments, *sizes])
        config = parse(composed, Config)
        torch.manual_seed(0)
        model = build_model(config.model, config.roi, CLASSES)
        found.append(Contender(name, model, partial(OnnxDetector, model, config.roi)))
    for limits in ({"min_size": side, "max_size": side}, {}):
        torch.manual_seed(0)
        keys: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": CLASSES, **limits}
        peer = fasterrcnn_mobilenet_v3_large_320_fpn(**keys)
        (smallest,) = peer.transform.min_size
        if limits or smallest != side:
            name = PEER if limits else f"{PEER}, which resizes to {smallest}"
            found.append(Contender(name, peer, partial(OneImage, peer)))
    for one in found:
        with torch.no_grad():
            one.model.roi_heads.box_predictor.cls_score.bias[0] += 8
        one.model.to(device)
    return found


def in_onnxruntime(one: Contender, image: Tensor, path: Path) -> Call:
    """A call that runs the exported detector on ``image``."""
    import onnxruntime

    write_onnx(one.exportable().eval(), (image.shape[1], image.shape[2]), False, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"image": image.numpy()})
