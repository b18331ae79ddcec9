"""A detector as ONNX with standard operators only, written by PyTorch's tracing exporter.

What the RoI operators become is said by :mod:`roi_ops.onnx`.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

import roi_ops
from detector.config.checks import is_target
from detector.config.commands import command
from detector.config.schema import RoiConfig
from detector.exceptions import ConfigError, ExportError
from detector.export.failures import named_operator
from detector.export.parity import Found, Runner
from detector.files import replacing
from detector.models.checkpoint import TrainedModel
from detector.models.poolers import own_kind, own_pooler

OPSET = 17  # RoiAlign knows "half_pixel" from 16 on
OUTPUTS = ("boxes", "scores", "labels")


class OnnxDetector(nn.Module):
    """``detector(image)`` for ``image`` float32 [3, H, W] in 0..1.

    Returns ``boxes`` [N, 4] xyxy in pixels of the image, ``scores`` [N] and ``labels`` int64 [N], highest score first.

    Args:
        model: torchvision's ``FasterRCNN`` in eval mode; it is copied.
        roi: the configuration of its pooler.

    Raises:
        ConfigError: ONNX cannot express the operator; names what to choose instead.
    """

    def __init__(self, model: FasterRCNN, roi: RoiConfig):
        super().__init__()
        check_operator(roi)
        self.model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format).eval()
        self.model.transform.channels_last = False  # ONNX has one layout
        self.model.roi_heads.box_roi_pool = own_pooler(self.model, roi)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        found = self.model([image])[0]
        return found["boxes"], found["scores"], found["labels"]


def check_operator(roi: RoiConfig) -> None:
    """Raise :class:`ConfigError` if ONNX has no operators that compute ``roi``; a class of the user's tells later."""
    if is_target(roi.kind):
        return
    try:
        roi_ops.onnx.check("align_max" if roi.mode == "max" else own_kind(roi), roi.sampling_ratio)
    except roi_ops.onnx.UnsupportedError as error:
        raise ConfigError(
            f"format=onnx, roi.kind={roi.kind}: {error}. Choose format=torch_export, which takes every operator, or "
            f"{command('train')} with roi=align{' or roi.sampling_ratio=2' if roi.mode == 'max' else ''}"
        ) from None


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
        ExportError: onnx or onnxruntime is not installed, or an operator of the user's cannot be written.
    """
    try:
        import onnx  # noqa: F401 (write_onnx needs it)
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"format=onnx needs {error.name}, which is not installed: pip install "
            "'multiscale-rcnn[export]', or pip install onnx onnxruntime"
        ) from None
    detector = OnnxDetector(module.model, module.config.roi)
    with named_operator(module.config.roi, "onnx"):
        write_onnx(detector, size, dynamic, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Found:
        found = session.run(list(OUTPUTS), {"image": image.numpy()})
        return {name: torch.from_numpy(np.asarray(values)) for name, values in zip(OUTPUTS, found, strict=True)}

    return run


def write_onnx(detector: nn.Module, size: tuple[int, int], dynamic: bool, path: Path) -> None:
    """Trace ``detector``, whose call is that of :class:`OnnxDetector`, and check the file; arguments as above."""
    import onnx

    roi_ops.onnx.register()
    axes = {name: {0: "detections"} for name in OUTPUTS} | ({"image": {1: "height", 2: "width"}} if dynamic else {})
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
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
        )
        onnx.checker.check_model(str(temporary))
