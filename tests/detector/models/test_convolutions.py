"""Separable convolutions: what they compute, what is replaced, and the sizes that follow."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, relu

from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.defaults import default
from detector.config.schema import RoiConfig, parse
from detector.models.backbone import build_backbone
from detector.models.convolutions import make_separable
from detector.models.faster_rcnn import build_model


def light(*arguments):
    """``model=fpn_lite`` with 16 channels, for images of 64 pixels."""
    given = ["model=fpn_lite", "model.fpn_channels=16", "model.head.width=16", "model.min_size=[64]", *arguments]
    return parse(compose([configs_folder()], "train", ["~tuning@_global_", *given])).model


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("keys", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2, "bias": False}])
def test_a_separable_convolution_is_a_full_one_of_rank_one(keys):
    """Its kernel from channel c to o is the depthwise one of c times a number, in float64."""
    (made,) = make_separable(nn.Sequential(nn.Conv2d(3, 5, 3, **keys))).double()
    kernel = made.pointwise.weight * made.depthwise.weight[None, :, 0]
    assert kernel.shape == (5, 3, 3, 3)
    x = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    rest = {key: value for key, value in keys.items() if key != "bias"}
    assert (made.pointwise.bias is None) == (keys.get("bias") is False)
    assert torch.allclose(made(x), conv2d(x, kernel, made.pointwise.bias, **rest), atol=1e-12)


def test_only_full_convolutions_of_several_cells_are_replaced():
    inner = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, (1, 5), padding=(0, 2)))
    made = make_separable(nn.ModuleDict({"in": inner, "out": nn.Linear(3, 2)}))
    assert [type(part).__name__ for part in made["in"]] == ["Conv2d", "Conv2d", "Sequential"]
    assert made["in"][2].depthwise.weight.shape == (8, 1, 1, 5)


def test_the_initial_weights_keep_the_variance():
    """The two layers of torchvision's RPN would have a deviation of 0.01: nothing would come through."""
    torch.manual_seed(0)
    (made,) = make_separable(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)))
    assert 0.8 < made(torch.randn(2, 256, 32, 32)).std() < 1.25


def test_pyramid_and_heads_of_a_light_model_by_hand():
    """16 channels; MobileNetV2 has 32, 96 and 1280 at the strides 8 to 32. Group norm has two numbers a channel."""
    model = build_model(light(), default(RoiConfig), 3)
    lateral = 16 * (32 + 96 + 1280) + 3 * 2 * 16
    assert count(model.backbone.fpn) == lateral + 3 * (9 * 16 + 16 * 16 + 2 * 16)
    assert count(model.rpn.head) == (9 * 16 + 16 * 16 + 16) + 3 * 5 * (16 + 1)
    deep = light("model.head.conv_depth=2", "model.head.conv_channels=8", "model.head.conv_norm=group")
    head = build_model(deep, default(RoiConfig), 3).roi_heads.box_head
    assert count(head) == (9 * 16 + 16 * 8 + 2 * 8) + (9 * 8 + 8 * 8 + 2 * 8) + (8 * 49 + 1) * 16


@pytest.mark.parametrize("backbone", ["torchvision/shufflenet_v2_x0_5", "timm/resnet10t"])
def test_a_light_model_takes_other_networks(backbone):
    """Its maps, and a step that moves every weight; nothing in the network itself is replaced."""
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    model = build_model(light(f"model.backbone={backbone}"), default(RoiConfig), 3)
    assert not any("pointwise" in name for name, _ in model.backbone.body.named_parameters())
    found = model.backbone(torch.rand(1, 3, 128, 192))
    assert [tuple(m.shape) for m in found.values()] == [(1, 16, 128 // s, 192 // s) for s in (8, 16, 32, 64)]
    target = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    sum(model([torch.rand(3, 64, 80)] * 2, [target] * 2).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_one_map_has_no_pyramid_but_light_heads():
    config = light("model.name=c5", "model.anchors.sizes=[[32,64]]")
    assert not any("pointwise" in name for name, _ in build_backbone(config).module.named_parameters())
    head = build_model(config, default(RoiConfig), 3).rpn.head
    x = torch.rand(1, 1280, 2, 3)
    layer = head.conv[0][0]
    t = relu(layer.pointwise(layer.depthwise(x)))
    objectness, offsets = head([x])
    assert torch.equal(objectness[0], head.cls_logits(t))
    assert torch.equal(offsets[0], head.bbox_pred(t))
