"""What any network has to do as a backbone: torchvision's, timm's, and one of the user's."""

import io
import sys

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from user_networks import Flat, Net, Valid

from detector.config.defaults import default
from detector.config.schema import Config, ModelConfig, OptimConfig, RoiConfig
from detector.exceptions import ConfigError
from detector.export.onnx_export import export_onnx
from detector.models.backbone import build_backbone
from detector.models.faster_rcnn import build_model
from detector.models.poolers import feature_maps
from detector.training.module import DetectionModule
from detector.training.optimiser import parameter_groups

STRIDES = (4, 8, 16, 32)
TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5",
    "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn",
]  # fmt: skip
TIMM = [
    "convnext_atto", "cs3darknet_focus_s", "dla34", "edgenext_xx_small", "efficientvit_b0", "ese_vovnet19b_slim",
    "fasternet_t0", "ghostnet_050", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "lcnet_050",
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
    config = default(ModelConfig, backbone=backbone, min_size=[96], max_size=128, **shape, **keys)
    config.anchors.sizes = [[16.0]] * (1 if stride else len(STRIDES))
    config.head.width = 8
    return config


def step(model):
    """One training step on two images; the maps of the network itself."""
    seen = []
    body = getattr(model.backbone, "body", model.backbone)
    hook = body.register_forward_hook(lambda module, args, out: seen.append(out))
    images = [torch.rand(3, 96, 128), torch.rand(3, 96, 96)]
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
        maps = feature_maps(model.eval(), torch.rand(1, 3, 96, 128))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(96 // s, 128 // s) for s in strides]
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
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        first, second = feature_maps(model.eval(), image), feature_maps(other.eval(), image)
    assert all((first[key] - second[key]).abs().max() <= 1e-4 * first[key].abs().max() for key in first)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["torchvision/shufflenet_v2_x0_5", "torchvision/mobilenet_v3_small", "timm/resnet10t", "timm/tf_efficientnet_lite0",
     "timm/convnext_atto"],
)  # fmt: skip
def test_onnx(tmp_path, name):
    torch.manual_seed(0)
    config = default(Config, model=config_of(name))
    config.model.head.score_thresh, config.model.head.detections_per_image = 0.0, 10
    module = DetectionModule(config, ["a", "b"], [1, 2]).eval()
    module.model.train()
    with torch.no_grad():  # statistics of some images, without which a network of random weights has one answer
        for _ in range(3):
            module.model.backbone(torch.rand(4, 3, 96, 128))
    run = export_onnx(module.eval(), (96, 128), dynamic=False, path=tmp_path / "x.onnx")
    image = torch.rand(3, 96, 128)
    with torch.no_grad():
        expected = module([image])[0]
    found = run(image)
    assert len(found["scores"]) == len(expected["scores"]) > 0
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-4)
    assert torch.allclose(found["boxes"], expected["boxes"], atol=0.05)


# -------------------------------------------------------------------------------------------- peers
@pytest.mark.parametrize("trainable", [0, 2, 5])
def test_a_resnet_is_torchvisions(trainable):
    """Names of weights, and how many train, as in torchvision's own builder."""
    peer = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=trainable
    )
    ours = build_backbone(default(ModelConfig, backbone="torchvision/resnet18", trainable_stages=trainable)).module
    trained = [{n for n, p in module.named_parameters() if p.requires_grad} for module in (ours, peer)]
    assert trained[0] == trained[1]
    state = {key: value for key, value in peer.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert ours.load_state_dict(state, strict=False).unexpected_keys == []
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found, expected = ours.eval()(image), peer.eval()(image)
    assert list(found) == list(expected)
    assert all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)


def test_names_of_a_mobilenet_are_torchvisions():
    peer = mobilenet_backbone(backbone_name="mobilenet_v3_large", weights=None, fpn=True, trainable_layers=6)
    ours = build_backbone(default(ModelConfig, backbone="torchvision/mobilenet_v3_large", norm="frozen")).module
    body = {key for key in ours.state_dict() if key.startswith("body.")}
    assert body == {key for key in peer.state_dict() if key.startswith("body.")}


@pytest.mark.parametrize("kind", ["frozen", "sync", "group"])
def test_norm_layers_with_an_activation_inside(kind):
    """timm's batch norm holds the activation. Frozen and synchronised norm compute what it computes."""
    pytest.importorskip("timm")
    keys = {"backbone": "timm/tf_efficientnet_lite0", "fpn_channels": 8}
    torch.manual_seed(0)
    plain = build_backbone(default(ModelConfig, **keys)).module.eval()
    torch.manual_seed(0)
    other = build_backbone(default(ModelConfig, **keys, norm=kind)).module.eval()
    assert not any(type(m).__name__ == "BatchNormAct2d" for m in other.modules())
    assert {n for n, _ in other.named_parameters()} | {n for n, _ in other.named_buffers()} <= plain.state_dict().keys()
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        found, expected = other(image), plain(image)
    equal = [torch.allclose(found[key], expected[key], atol=1e-5) for key in expected]
    assert equal == [kind != "group"] * len(expected)


# ------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"backbone": "torchvision/resnet5"}, r"torchvision/resnet5: .*did you mean .*torchvision/resnet50"),
        ({"backbone": "torchvision/vit_b_16"}, r"vit_b_16: cannot be a backbone.*224"),
        ({"backbone": "timm/resnet10"}, r"timm/resnet10: .*timm/resnet10t"),
        ({"backbone": "timm/resnet10t.nosuch"}, r"timm/resnet10t\.nosuch: .*nosuch"),
        ({"backbone": "timm/vit_tiny_patch16_224"}, r"stride 16 only; give model\.fpn_strides=\[16\] or model=c4"),
        ({"backbone": "timm/vit_tiny_patch16_224", "name": "c5"}, r"model=c5: .*stride 16 only; give"),
    ],
)
def test_a_wrong_network_says_what_to_give(keys, says):
    if keys["backbone"].startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=says):
        build_backbone(default(ModelConfig, **keys))


def test_a_missing_library_is_one_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r'timm/resnet18: needs timm: pip install "multiscale-rcnn\[timm\]"'):
        build_backbone(default(ModelConfig, backbone="timm/resnet18"))


# ------------------------------------------------------------------------------------ the user's own
def own(kind=Net, **arguments):
    return {"_target_": f"user_networks.{kind.__name__}", **arguments}


@pytest.mark.parametrize("arguments", [{}, {"last": True}, {"numbers": True}, {"width": 10}])
def test_own_network(arguments):
    config = default(ModelConfig, backbone=own(**arguments), fpn_strides=[4, 8], fpn_channels=8, norm="frozen")
    backbone = build_backbone(config)
    module, width = backbone.module.eval(), arguments.get("width", 6)
    image = torch.rand(1, 3, 64, 96)
    assert [tuple(m.shape) for m in module(image).values()] == [(1, 8, 16, 24), (1, 8, 8, 12)]
    assert (backbone.image_mean, backbone.image_std) == (Net.image_mean, Net.image_std)
    assert isinstance(module.body.stem[1], FrozenBatchNorm2d)
    assert not module.body.unused.requires_grad
    # Of the maps of stride 4 it is the last, "b", and the first weights are the stage before those of stride 8.
    plain = Net(width)
    plain.stem[1] = FrozenBatchNorm2d(width)
    plain.load_state_dict(module.body.state_dict())
    maps = plain.eval()(image)
    expected = module.fpn({"0": maps["b"], "1": maps["c"]})
    assert all(torch.allclose(module(image)[key], expected[key], atol=1e-6) for key in expected)
    assert module.stages == {
        "body.stem.0.weight": 1, "body.stem.0.bias": 1, "body.more.weight": 1, "body.more.bias": 1,
        "body.down.weight": 0, "body.down.bias": 0,
    }  # fmt: skip


def test_a_map_that_is_too_small_gets_a_border():
    module = build_backbone(default(ModelConfig, backbone=own(Valid), fpn_strides=[4], fpn_channels=4)).module
    image = torch.rand(1, 3, 64, 96)
    (found,) = module.maps
    padded = found.of(module.body(image), image)
    assert torch.equal(padded[:, :, 1:-1, 1:-1], module.body(image))
    assert padded.shape == (1, 4, 16, 24)
    padded[:, :, 1:-1, 1:-1] = 0
    assert not padded.any()


def test_no_maps_say_what_there_is():
    with pytest.raises(ConfigError, match=r"Flat: gives no maps .*\[1, 3\]"):
        build_backbone(default(ModelConfig, backbone=own(Flat)))
