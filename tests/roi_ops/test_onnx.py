"""The translation to ONNX: what onnxruntime computes from both exporters' files is what the operators compute."""

import io

import pytest
import torch
from torch import nn

import roi_ops

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters warn of themselves

PYRAMID = {"spatial_scales": [0.25, 0.125], "canonical_scale": 30, "canonical_level": 3}
CASES = {
    "adaptive": lambda a, b, rois: roi_ops.roi_align(a, rois, (3, 4), 0.25),
    "aligned": lambda a, b, rois: roi_ops.roi_align(a, rois, (3, 4), 0.25, 2, True),
    "pyramid": lambda a, b, rois: roi_ops.multiscale_roi_align([a, b], rois, 3, sampling_ratio=2, **PYRAMID),
    "pool": lambda a, b, rois: roi_ops.roi_pool(a, rois, (2, 3), 0.25),
    "pool_pyramid": lambda a, b, rois: roi_ops.multiscale_roi_pool([a, b], rois, 3, **PYRAMID),
    "max": lambda a, b, rois: roi_ops.roi_align(a, rois, 3, 0.25, 3, True, mode="max"),
    "max_pyramid": lambda a, b, rois: roi_ops.multiscale_roi_align(
        [a, b], rois, 3, sampling_ratio=2, mode="max", **PYRAMID
    ),
}
NAMES = ["a", "b", "rois"]
AXES = [{0: "n", 2: "h", 3: "w"}, {0: "n", 2: "hh", 3: "ww"}, {0: "k"}]


class Model(nn.Module):
    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def forward(self, a, b, rois):
        return tuple(function(a, b, rois) for function in self.functions)


def inputs(images, height, width, count, dtype=torch.float32):
    """Two maps; boxes inside and outside, with corners on half pixels of the map, which rounding tells apart."""
    generator = torch.Generator().manual_seed(count)
    a = torch.randn(images, 4, height, width, generator=generator)
    b = torch.randn(images, 4, height // 2, width // 2, generator=generator)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height]) * 5.2 - 6
    corners[::2] = corners[::2].round()
    index = torch.randint(images, (count, 1), generator=generator).float()
    rois = torch.cat([index, corners.amin(1), corners.amax(1)], 1)
    if count > 20:
        rois[1, 1], rois[2, 4] = float("nan"), float("inf")
        rois[3, 3] = rois[3, 1] - 8  # inverted in x
        rois[4, 1:] = 0
        rois[5, 1:] = torch.tensor([2.0, 3, 32, 33])  # of exactly the canonical size
    return a.to(dtype), b.to(dtype), rois


def check(proto, functions, tolerance, dtype=torch.float32):
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    wanted = [i.name for i in session.get_inputs()]
    for shape in ((2, 16, 20, 6), (1, 32, 16, 60), (3, 24, 50, 1), (2, 16, 16, 0)):
        tensors = inputs(*shape, dtype)
        given = {name: t.numpy() for name, t in zip(NAMES, tensors, strict=True) if name in wanted}
        for function, found in zip(functions, session.run(None, given), strict=True):
            expected = function(*tensors)
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=tolerance)


def export(functions, dtype=torch.float32, **keys):
    file = io.BytesIO()
    torch.onnx.export(Model(*functions), inputs(2, 16, 20, 6, dtype), file, input_names=NAMES, **keys)
    return file.getvalue()


@pytest.mark.slow
def test_the_exporter_on_torch_export():
    pytest.importorskip("onnxscript")
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in AXES)
    table = roi_ops.onnx.translations()
    proto = export(CASES.values(), dynamo=True, dynamic_shapes=shapes, custom_translation_table=table)
    check(proto, CASES.values(), 3e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_older_exporter(name):
    """A maximum follows one sample, whose place is rounded to float32: a few 1e-6 of a pixel."""
    roi_ops.onnx.register()
    axes = dict(zip(NAMES, AXES, strict=True))
    proto = export([CASES[name]], dynamo=False, opset_version=17, dynamic_axes=axes)
    check(proto, [CASES[name]], 3e-5 if "max" in name else 1e-6)


def test_double_precision():
    roi_ops.onnx.register()
    case = [CASES["pyramid"]]
    axes = dict(zip(NAMES, AXES, strict=True))
    proto = export(case, torch.float64, dynamo=False, opset_version=17, dynamic_axes=axes)
    check(proto, case, 1e-6, torch.float64)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.pooler = roi_ops.MultiScaleRoIAlign(["a", "b"], 3, 2, canonical_scale=30, spatial_scales=[0.25, 0.125])

    def forward(self, a, b, first, second):
        return self.pooler({"a": a, "b": b}, [first, second], [(64, 80)] * 2)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_module_with_lists_of_boxes(dynamo):
    """The boxes of each image are counted in the graph: other counts find the same images."""
    (a, b, rois), names, file = inputs(2, 16, 20, 12), ["first", "second"], io.BytesIO()
    keys = {"dynamic_axes": {name: {0: name} for name in names}, "opset_version": 17}
    if dynamo:
        pytest.importorskip("onnxscript")
        free = {0: torch.export.Dim.DYNAMIC}
        keys = {"dynamic_shapes": (None, None, free, free), "custom_translation_table": roi_ops.onnx.translations()}
    roi_ops.onnx.register()
    split = lambda n: (rois[:n, 1:].clone(), rois[n:, 1:].clone())
    args = (a, b, *split(3))
    torch.onnx.export(Pooled(), args, file, dynamo=dynamo, input_names=["a", "b", *names], **keys)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for n in (3, 9, 0, 12):
        first, second = split(n)
        given = {"a": a, "b": b, "first": first, "second": second}
        found = session.run(None, {key: t.numpy() for key, t in given.items()})[0]
        expected = Pooled()(a, b, first, second)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda a, b, rois: roi_ops.prroi_pool(a, rois, 3, 0.25), "PrRoIPool; RoIAlign and RoIPool can"),
        (lambda a, b, rois: roi_ops.roi_align(a, rois, 3, mode="max"), "sampling_ratio=-1.* above 0 it can"),
    ],
)
def test_what_onnx_cannot_express_says_what_it_can(function, says):
    roi_ops.onnx.register()
    with pytest.raises(roi_ops.onnx.UnsupportedError, match=says):
        export([function], dynamo=False, opset_version=17)
