"""What any network has to do as a backbone: torchvision's, timm's, and one of the user's."""

import io

import pytest
import torch

from detector.config.defaults import default
from detector.config.schema import ModelConfig, OptimConfig, RoiConfig
from detector.models.faster_rcnn import build_model
from detector.models.poolers import feature_maps
from detector.training.optimiser import parameter_groups

STRIDES = (4, 8, 16, 32)
TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5",
    "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn",
]  # fmt: skip
TIMM = [
    "convnext_atto", "cs3darknet_focus_s", "dla34", "edgenext_xx_small", "efficientvit_b0", "ese_vovnet19b_slim",
    "fasternet_t0", "fastvit_t8", "ghostnet_050", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "lcnet_050",
    "mambaout_femto", "mixnet_s", "mobilenetv3_small_050", "mobilenetv4_conv_small", "mobilevit_xxs", "nfnet_l0",
    "poolformer_s12", "pvt_v2_b0", "regnetx_002", "repvit_m0_9", "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100",
    "selecsls42", "spnasnet_100", "starnet_s1", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "tf_efficientnet_lite0", "tiny_vit_5m_224",
]  # fmt: skip
# Networks without all of the pyramid's strides.
ONE_STRIDE = {"vit_tiny_patch16_224": 16, "xcit_nano_12_p16_224": 16, "efficientvit_m0": 32, "squeezenet1_1": 16}
FAST = {"mobilenet_v2", "torchvision/shufflenet_v2_x0_5", "timm/resnet10t"}


def names():
    found = ["mobilenet_v2", *(f"torchvision/{name}" for name in TORCHVISION), *(f"timm/{name}" for name in TIMM)]
    found += [f"timm/{name}" for name in ONE_STRIDE if name not in TORCHVISION]
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in found]


def config_of(backbone, **keys):
    """A small detector; a pyramid where the network has all the maps."""
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    stride = ONE_STRIDE.get(backbone.rpartition("/")[2])
    shape = {"name": {16: "c4", 32: "c5"}[stride]} if stride else {"fpn_strides": list(STRIDES), "fpn_channels": 8}
    config = default(ModelConfig, backbone=backbone, min_size=[64], max_size=96, **shape, **keys)
    config.anchors.sizes = [[16.0]] * (1 if stride else len(STRIDES))
    config.head.width = 8
    return config


def step(model):
    """One training step on two images; the maps of the network itself."""
    seen = []
    body = getattr(model.backbone, "body", model.backbone)
    hook = body.register_forward_hook(lambda module, args, out: seen.append(out))
    images = [torch.rand(3, 64, 96), torch.rand(3, 64, 64)]
    targets = [{"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])}] * 2
    sum(model.train()(images, targets).values()).backward()
    hook.remove()
    (found,) = seen
    return [found] if isinstance(found, torch.Tensor) else list(found.values()) if isinstance(found, dict) else found


@pytest.mark.parametrize("name", names())
def test_contract(name):
    torch.manual_seed(0)
    model = build_model(config_of(name), default(RoiConfig), 3)
    strides = [ONE_STRIDE[last]] if (last := name.rpartition("/")[2]) in ONE_STRIDE else STRIDES
    with torch.no_grad():
        maps = feature_maps(model.eval(), torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(64 // s, 96 // s) for s in strides]
    assert {m.shape[1] for m in maps.values()} == {model.backbone.out_channels}
    if name.startswith("timm/"):  # which says itself what it gives
        info = {i["reduction"]: i["num_chs"] for i in model.backbone.body.model.feature_info}
        inner = getattr(model.backbone, "fpn", None)
        found = [b[0].in_channels for b in inner.inner_blocks] if inner else [model.backbone.out_channels]
        assert found == [info[stride] for stride in strides]
    elif last not in ONE_STRIDE:
        assert [b[0].in_channels for b in model.backbone.fpn.inner_blocks] == [m.channels for m in model.backbone.maps]

    # Every weight that trains has a gradient, and no other one.
    step(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.grad is not None
    }
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    stages = model.backbone.stages
    trained = {n for n, p in model.backbone.named_parameters() if p.requires_grad and not n.startswith("fpn.")}
    assert trained == stages.keys()
    count = max(stages.values()) + 1
    assert set(stages.values()) == set(range(count))
    rates = {g["lr"] for g in parameter_groups(model, default(OptimConfig, lr=1.0, stage_decay=0.5, backbone_lr=0.1))}
    assert rates == {1.0, *(0.1 * 0.5**stage for stage in range(count))}

    # Another one with the weights of the first, whose last stage trains alone: of the network's maps only the last
    # depends on a weight that trains, unless the network has no weights between the last two.
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other = build_model(config_of(name, trainable_stages=1), default(RoiConfig), 3)
    found = other.load_state_dict(torch.load(stored, weights_only=True), strict=False)
    assert not found.missing_keys
    assert all(key.endswith("num_batches_tracked") for key in found.unexpected_keys)  # of what is frozen
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        first, second = feature_maps(model.eval(), image), feature_maps(other.eval(), image)
    assert all(torch.allclose(first[key], second[key], atol=1e-4, rtol=1e-3) for key in first)
    assert {n for n, p in other.backbone.named_parameters() if p.requires_grad and not n.startswith("fpn.")} == {
        n for n, stage in stages.items() if stage == 0
    }
    frozen = {n: b.clone() for n, b in other.backbone.named_buffers() if b.is_floating_point()}
    inner = step(other)
    assert [m.requires_grad for m in inner][: -2 if "vgg" in name or "alexnet" in name else -1].count(True) == 0
    assert inner[-1].requires_grad
    last_stage = {n.rpartition(".")[0] for n, stage in stages.items() if stage == 0}
    changed = {n for n, b in other.backbone.named_buffers() if n in frozen and not torch.equal(b, frozen[n])}
    assert {n.rpartition(".")[0] for n in changed if not n.startswith("fpn.")} <= last_stage
