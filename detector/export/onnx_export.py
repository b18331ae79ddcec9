"""A detector as ONNX with standard operators only, written by PyTorch's tracing exporter."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.ops import roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper

from detector.config.schema import RoiConfig
from detector.exceptions import ConfigError, ExportError
from detector.export.parity import Found, Runner
from detector.files import replacing
from detector.models.checkpoint import TrainedModel
from detector.models.poolers import pooled_strides

OPSET = 17  # RoiAlign knows "half_pixel" from 16 on
EXPRESSED = ("align", "pool", "torchvision_align", "torchvision_pool")  # the values of roi.kind that ONNX can express


class OnnxDetector(nn.Module):
    """``detector(image)`` for ``image`` float32 [3, H, W] in 0..1.

    Returns ``boxes`` [N, 4] xyxy in pixels of the image, ``scores`` [N] and ``labels`` int64 [N], highest score first.

    Args:
        model: torchvision's ``FasterRCNN`` in eval mode; it is copied.
        roi: the configuration of its pooler.
    """

    def __init__(self, model: FasterRCNN, roi: RoiConfig):
        super().__init__()
        self.model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format).eval()
        self.model.transform.channels_last = False  # ONNX has one layout
        pooler = self.model.roi_heads.box_roi_pool
        self.model.roi_heads.box_roi_pool = OnnxPooler(pooler.featmap_names, pooled_strides(model), roi)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        found = self.model([image])[0]
        return found["boxes"], found["scores"], found["labels"]


class OnnxPooler(nn.Module):
    """A pooler of one image that consists of ONNX's operators RoiAlign and MaxRoiPool.

    Args:
        names: names of the feature maps, finest first.
        strides: strides of the maps in pixels of the resized image, powers of two.
        roi: the operator.

    Raises:
        ConfigError: ONNX cannot express the operator; names what to choose instead.
    """

    def __init__(self, names: list[str], strides: list[int], roi: RoiConfig):
        super().__init__()
        check_operator(roi)
        self.names, self.scales, self.roi = names, [1 / stride for stride in strides], roi
        finest, coarsest = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
        self.levels = LevelMapper(finest, coarsest, roi.canonical_scale, roi.canonical_level)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the boxes of one image (a list of one [N, 4]): [N, C, output_h, output_w]."""
        (proposals,) = boxes
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], 1)
        if len(self.names) == 1:
            return self.pool(x[self.names[0]], rois, self.scales[0])
        levels = self.levels(boxes)
        pooled, rows = [], []
        for level, (name, scale) in enumerate(zip(self.names, self.scales, strict=True)):
            rows.append(torch.where(levels == level)[0])
            pooled.append(self.pool(x[name], rois[rows[-1]], scale))
        return torch.cat(pooled)[torch.cat(rows).sort()[1]]

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """Pool ``rois`` [N, 5] from one map [1, C, H, W]."""
        size, ratio = list(self.roi.output_size), self.roi.sampling_ratio
        if self.roi.kind in ("pool", "torchvision_pool"):
            return roi_pool(feature, rois, size, scale)
        if self.roi.mode == "avg":
            return roi_align(feature, rois, size, scale, max(ratio, 0), self.roi.aligned)
        # Each sample is a bin of a grid that is `ratio` times finer. The result is the maximum of the samples.
        fine = roi_align(feature, rois, [n * ratio for n in size], scale, 1, self.roi.aligned)
        return functional.max_pool2d(fine, ratio)


def check_operator(roi: RoiConfig) -> None:
    """Raise :class:`ConfigError` if ONNX has no operators that compute ``roi``."""
    instead = "choose format=torch_export, which takes every operator, or train with roi=align"
    if roi.kind not in EXPRESSED:
        raise ConfigError(f"format=onnx: ONNX has no operator for roi.kind={roi.kind}; {instead}")
    if roi.mode == "max" and roi.sampling_ratio <= 0:
        raise ConfigError(
            f"format=onnx: ONNX cannot take the maximum of an adaptive number of samples (roi.mode=max, "
            f"roi.sampling_ratio={roi.sampling_ratio}; its own mode=max is the maximum of weighted "
            f"neighbours); {instead}, or with roi.sampling_ratio=2"
        )


def export_onnx(module: TrainedModel, size: tuple[int, int], dynamic: bool, path: Path) -> Runner:
    """Write a detector as ONNX.

    Args:
        module: the detector; it is copied.
        size: H and W of the image that is traced.
        dynamic: the graph accepts images of any size, not only of this one.
        path: the file.

    Returns:
        A function that runs the file in onnxruntime on the CPU.

    Raises:
        ConfigError: ONNX cannot express the RoI operator.
        ExportError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"format=onnx needs {error.name}, which is not installed: pip install "
            "'multiscale-rcnn[export]', or pip install onnx onnxruntime"
        ) from None
    detector = OnnxDetector(module.model, module.config.roi)
    outputs = ["boxes", "scores", "labels"]
    axes = {name: {0: "detections"} for name in outputs} | ({"image": {1: "height", 2: "width"}} if dynamic else {})
    example = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    with replacing(path) as temporary, warnings.catch_warnings():
        # The tracer warns of every size that torchvision reads. torchvision's detectors are written to be traced
        # nonetheless, and the result is compared with the model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            detector,
            (example,),
            str(temporary),
            dynamo=False,  # the exporter on torch.export stops in torchvision's post-processing
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes=axes,
        )
        onnx.checker.check_model(str(temporary))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Found:
        found = session.run(outputs, {"image": image.numpy()})
        return {name: torch.from_numpy(np.asarray(values)) for name, values in zip(outputs, found, strict=True)}

    return run
