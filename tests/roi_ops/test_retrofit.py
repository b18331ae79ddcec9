"""``replace_roi_pooling``: what runs with torchvision's poolers runs with ours, and finds the same."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from tiny_rcnn import Backbone, images, tiny_rcnn
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import detection

import roi_ops

WITH_ROI_HEADS = [name for name in torchvision.models.list_models(module=detection) if "rcnn" in name]


def assert_finds_the_same(ours, theirs, inputs, tolerance=1e-4):
    with torch.no_grad():
        found, expected = ours(inputs), theirs(inputs)
    assert len(expected[0]["boxes"]) > 2
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key, value in b.items():
            torch.testing.assert_close(a[key], value, rtol=tolerance, atol=tolerance)


def poolers(model):
    return [m for m in model.modules() if isinstance(m, torchvision.ops.MultiScaleRoIAlign)]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_ROI_HEADS)
def test_torchvisions_detectors(name):
    assert len(WITH_ROI_HEADS) >= 7
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 96, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 20}
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, box_score_thresh=0.0, box_detections_per_img=5, **sizes
    ).eval()
    ours = copy.deepcopy(model)
    assert roi_ops.replace_roi_pooling(ours) is ours
    assert all(type(m) is roi_ops.MultiScaleRoIAlign for m in poolers(ours))
    assert len(poolers(ours)) == (1 if name.startswith("faster") else 2)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), model.state_dict().values(), strict=True))
    assert_finds_the_same(ours, model, images(), 1e-3)
    if name == "fasterrcnn_mobilenet_v3_large_320_fpn":  # it names maps that its backbone does not give
        assert_finds_the_same(ours.double(), model.double(), images(dtype=torch.float64), 1e-9)


class ReadsANumber(Backbone):
    def forward(self, x):
        return super().forward(x * (1 + 0 * x.sum().item()))


class MakesATensor(Backbone):
    def forward(self, x):
        return super().forward(x + torch.full((1,), 0.1))


class HasADerivedBuffer(Backbone):
    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.ones(1, requires_grad=True) * 2)

    def forward(self, x):
        return super().forward(x * self.factor)


@pytest.mark.parametrize("backbone", [ReadsANumber, MakesATensor, HasADerivedBuffer])
def test_backbones_that_cannot_be_run_on_trial(backbone):
    made = backbone()
    assert_finds_the_same(roi_ops.replace_roi_pooling(tiny_rcnn(made)), tiny_rcnn(made), images())


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_of_the_image(channels):
    model = tiny_rcnn(channels=channels)
    assert_finds_the_same(roi_ops.replace_roi_pooling(copy.deepcopy(model)), model, images(channels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_the_model(dtype):
    """torchvision's suppression on the CPU takes no half precision: so the pooled features are compared."""
    model = roi_ops.replace_roi_pooling(tiny_rcnn().to(dtype))
    generator = torch.Generator().manual_seed(0)
    maps = {name: torch.rand(1, 4, 64 // s, 96 // s, generator=generator).to(dtype) for name, s in (("b", 4), ("a", 8))}
    corner = torch.rand(30, 2, generator=generator) * 40
    boxes = [torch.cat([corner, corner + 3 + 50 * torch.rand(30, 2, generator=generator)], 1).to(dtype)]
    pooled = model.roi_heads.box_roi_pool(maps, boxes, [(64, 96)])
    exact = {name: f.double() for name, f in maps.items()}
    expected = tiny_rcnn().roi_heads.box_roi_pool(exact, [boxes[0].double()], [(64, 96)])
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_models_without_memory():
    with torch.device("meta"):
        assert type(poolers(roi_ops.replace_roi_pooling(tiny_rcnn()))[0]) is roi_ops.MultiScaleRoIAlign
    with FakeTensorMode():
        pooler = roi_ops.replace_roi_pooling(tiny_rcnn(), "prroi").roi_heads.box_roi_pool
        maps = {"b": torch.rand(1, 4, 16, 24), "a": torch.rand(1, 4, 8, 12)}
        assert pooler(maps, [torch.rand(5, 4)], [(64, 96)]).shape == (5, 4, 3, 3)


class Lit(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.detector = model

    def forward(self, inputs):
        return self.detector(inputs)


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [nn.DataParallel, Lit, pytest.param(compiled, marks=pytest.mark.slow)])
def test_wrapped_models(wrap):
    model = tiny_rcnn()
    wrapped = wrap(copy.deepcopy(model))
    with torch.no_grad():
        wrapped(images())  # what is compiled is compiled with torchvision's pooler
    calls = []
    poolers(wrapped)[0].register_forward_hook(lambda module, inputs, output: calls.append(type(module)))
    assert_finds_the_same(roi_ops.replace_roi_pooling(wrapped), model, images())
    assert calls == [roi_ops.MultiScaleRoIAlign]


def test_poolers_that_others_hold():
    """One pooler in two heads, and a compiled one."""
    model = tiny_rcnn()
    shared = model.roi_heads.box_roi_pool
    model.roi_heads.mask_roi_pool, model.extra = shared, torch.compile(shared, backend="eager")
    roi_ops.replace_roi_pooling(model, "pool")
    assert model.roi_heads.mask_roi_pool is model.roi_heads.box_roi_pool is model.extra._orig_mod is shared
    assert type(shared) is roi_ops.MultiScaleRoIPool
    maps, boxes = {"a": torch.rand(1, 4, 8, 12)}, [torch.tensor([[1.0, 2, 30, 40]])]
    expected = torchvision.ops.roi_pool(maps["a"], boxes, 3, 1 / 8)
    assert torch.equal(model.extra(maps, boxes, [(64, 96)]), expected)


def test_maps_that_the_backbone_lacks():
    maps = {"b": torch.rand(1, 4, 16, 24), "other": torch.rand(1, 4, 2, 2), "a": torch.rand(1, 4, 8, 12)}
    boxes, sizes = [torch.tensor([[1.0, 2, 30, 40], [5, 5, 90, 60]])], [(64, 96)]
    expected = tiny_rcnn().roi_heads.box_roi_pool(maps, boxes, sizes)
    pooler = roi_ops.replace_roi_pooling(tiny_rcnn()).roi_heads.box_roi_pool
    torch.testing.assert_close(pooler(maps, boxes, sizes), expected)
    with pytest.raises(ValueError, match=r"no feature map named \['a', 'b', 'lacking'\]; there are \['other'\]"):
        pooler({"other": maps["other"]}, boxes, sizes)
    with pytest.raises(ValueError, match="lacking"):
        roi_ops.MultiScaleRoIAlign(["b", "a", "lacking"], 3, 2)(maps, boxes, sizes)


def test_scales_that_were_given_stay():
    pooler = roi_ops.MultiScaleRoIAlign(["x"], 2, 2, spatial_scales=[0.3])
    roi_ops.replace_roi_pooling(nn.Sequential(pooler), "prroi", sampling_ratio=3)
    assert (pooler.spatial_scales, pooler.sampling_ratio, pooler.strict) == ([0.3], 3, True)


def test_replacing_twice_keeps_the_sampling_ratio():
    model = tiny_rcnn()
    for kind in ("pool", "align"):
        roi_ops.replace_roi_pooling(model, kind)
    assert model.roi_heads.box_roi_pool.sampling_ratio == 2


def test_what_has_no_pooler_is_refused():
    with pytest.raises(TypeError, match=r"Linear has no torchvision\.ops\.MultiScaleRoIAlign"):
        roi_ops.replace_roi_pooling(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="kind='avg'"):
        roi_ops.make_pooler("avg", ["0"], 7)
