"""Maps, strides, norms, frozen stages and initial weights of the backbones."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detector.config.defaults import default
from detector.config.schema import ModelConfig
from detector.exceptions import ConfigError
from detector.models.backbone import Subsample, build_backbone
from detector.models.norms import group_norm

NORMS = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d, "sync": nn.SyncBatchNorm, "group": nn.GroupNorm}


def maps_of(backbone, size=(64, 96)):
    """Output maps by name for one random image."""
    with torch.no_grad():
        out = backbone.module.eval()(torch.rand(1, 3, *size))
    return {"0": out} if isinstance(out, torch.Tensor) else dict(out)


@pytest.mark.parametrize(
    ("model", "channels", "strides", "pooled"),
    [
        ({"name": "fpn"}, 24, [4, 8, 16, 32, 64], [4, 8, 16, 32]),
        ({"name": "fpn", "fpn_strides": [8, 16]}, 24, [8, 16], [8, 16]),
        ({"name": "fpn", "fpn_strides": [16, 32, 64]}, 24, [16, 32, 64], [16, 32]),
        ({"name": "fpn", "fpn_strides": [4]}, 24, [4], [4]),
        ({"name": "c4"}, 96, [16], [16]),
        ({"name": "c5"}, 1280, [32], [32]),
    ],
)
def test_maps_and_strides(model, channels, strides, pooled):
    backbone = build_backbone(default(ModelConfig, **model, fpn_channels=24))
    maps = maps_of(backbone, (128, 192))
    assert [tuple(m.shape) for m in maps.values()] == [(1, channels, 128 // s, 192 // s) for s in strides]
    assert backbone.out_channels == channels
    assert backbone.pooled_strides == pooled
    assert backbone.pooled_names == list(maps)[: len(pooled)]


def test_a_pyramid_of_fewer_maps_is_a_part_of_the_whole():
    """From the same weights: the map of the coarsest stride has no coarser one to add, the layers are the same."""
    whole = build_backbone(default(ModelConfig, fpn_channels=24)).module
    part = build_backbone(default(ModelConfig, fpn_channels=24, fpn_strides=[4, 8])).module
    assert len(part.body) == 7  # blocks 0 to 6: what comes after the map of stride 8 is not computed
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in part.state_dict()})
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found = part.eval()(image)
        bodies = whole.eval().body(image)
        fpn = torchvision.ops.FeaturePyramidNetwork([24, 32], 24)
        fpn.load_state_dict({k: v for k, v in whole.fpn.state_dict().items() if ".2." not in k and ".3." not in k})
        expected = fpn({name: bodies[name] for name in ("0", "1")})
    assert set(found) == {"0", "1"}
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


def test_a_stride_twice_is_the_first_and_the_last_map_of_it():
    """torchvision's MobileNetV2 has stride 16 from block 7 (64 channels) to block 13 (96); 1280 is the last of 32."""
    body = build_backbone(default(ModelConfig, name="fpn", fpn_strides=[16, 16])).module.body.eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = body(image)
        x = image
        for name, block in body.named_children():
            x = block(x)
            if name == "7":
                assert torch.equal(maps["0"], x)
    assert x.shape[1] == 96
    assert torch.equal(maps["1"], x)


def test_a_network_with_one_map_of_a_stride_given_twice():
    patches = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 8, "stride": 8}
    with pytest.raises(
        ConfigError, match=r"model\.fpn_strides=\[8, 8\]: torch\.nn\.Conv2d has only one map of stride 8"
    ):
        build_backbone(default(ModelConfig, backbone=patches, fpn_strides=[8, 8]))


@pytest.mark.parametrize("strides", [[], [64], [2, 4], [4, 16], [16, 8], [8, 8, 16], [128]])
def test_strides_that_are_no_pyramid(strides):
    with pytest.raises(ConfigError, match=r"model\.fpn_strides=.*: give neighbours of 4, 8, 16, 32, 64"):
        build_backbone(default(ModelConfig, fpn_strides=strides))


def test_c5_is_the_features_of_the_tutorial():
    torch.manual_seed(3)
    reference = mobilenet_v2().features
    torch.manual_seed(3)
    features = build_backbone(default(ModelConfig, name="c5")).module
    assert features.state_dict().keys() == reference.state_dict().keys()
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(features.train()(image), reference.train()(image))


def test_all_models_start_from_the_same_features():
    states = []
    for name in ("c4", "c5", "fpn"):
        torch.manual_seed(5)
        module = build_backbone(default(ModelConfig, name=name)).module
        states.append((module.body if name == "fpn" else module).state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


def test_subsample_is_torchvisions_max_pool():
    maps = [torch.rand(1, 2, 9, 12), torch.rand(1, 2, 5, 6)]
    theirs, names = LastLevelMaxPool()(list(maps), [], ["0", "1"])
    ours, our_names = Subsample()(maps, [], ["0", "1"])
    assert our_names == names
    assert torch.equal(ours[-1], theirs[-1])
    assert len(maps) == 2  # the argument is left alone


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("name", ["fpn", "c4", "c5"])
def test_norm_kinds(name, kind):
    backbone = build_backbone(default(ModelConfig, name=name, norm=kind, fpn_channels=16))
    present = {type(m) for m in backbone.module.modules() if isinstance(m, tuple(NORMS.values()))}
    assert present == {NORMS[kind]}
    assert all(torch.isfinite(m).all() for m in maps_of(backbone).values())


@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 2), (24, 3), (32, 4), (96, 12), (320, 32), (1280, 32), (7, 1), (144, 18)]
)
def test_group_norm_has_groups_of_eight_channels_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("trainable", range(6))
def test_frozen_stages(trainable):
    """Stages end at blocks 1, 3, 6, 13 and 18; the last `trainable` of them train."""
    features = build_backbone(default(ModelConfig, name="c5", trainable_stages=trainable)).module
    first = {0: 19, 1: 14, 2: 7, 3: 4, 4: 2, 5: 0}[trainable]
    for block, module in enumerate(features):
        assert all(p.requires_grad == (block >= first) for p in module.parameters()), block
    before = {k: v.clone() for k, v in features.state_dict().items()}
    features.train()(torch.rand(2, 3, 64, 64))
    changed = {int(k.split(".")[0]) for k, v in features.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(range(first, 19))  # running statistics of frozen stages stay as they are


@pytest.mark.parametrize(("trainable", "first"), [(0, 14), (1, 7), (4, 0), (5, 0)])
@pytest.mark.parametrize("model", [{"name": "c4"}, {"fpn_strides": [8, 16]}])
def test_stages_of_a_shorter_network_count_from_its_own_last(model, trainable, first):
    module = build_backbone(default(ModelConfig, **model, trainable_stages=trainable)).module
    features = module if "name" in model else list(module.body.children())
    assert [all(p.requires_grad for p in m.parameters()) for m in features] == [b >= first for b in range(14)]


@pytest.mark.parametrize(("norm", "eps"), [("batch", -0.5), ("frozen", -2.0), ("group", 0.1), ("group", 0.0)])
def test_an_eps_that_would_be_ignored_is_refused(norm, eps):
    with pytest.raises(ConfigError, match=rf"model\.norm_eps={eps}"):
        build_backbone(default(ModelConfig, weights="none", norm=norm, norm_eps=eps))


def test_eps_of_the_norms():
    for norm, eps, expected in (
        ("batch", 0.0, 0.0),
        ("batch", -1.0, 1e-5),
        ("group", -1.0, 1e-5),
        ("frozen", 0.1, 0.1),
    ):
        module = build_backbone(default(ModelConfig, weights="none", norm=norm, norm_eps=eps, name="c5")).module
        assert {m.eps for m in module.modules() if hasattr(m, "eps")} == {expected}
