"""Operators of the user's own in the detector."""

import pytest
import torch
import user_parts
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign

from detector.config.defaults import default
from detector.config.schema import ModelConfig, RoiConfig
from detector.exceptions import ConfigError
from detector.models.faster_rcnn import build_model
from detector.models.poolers import build_pooler, check_parameters

NAMES, STRIDES = ["0", "1"], [4, 8]


def roi(name, **keys):
    return default(RoiConfig, kind={"_target_": f"user_parts.{name}", **keys.pop("node", {})}, **keys)


def maps(channels=3):
    return {
        name: torch.rand(2, channels, 64 // stride, 64 // stride) for name, stride in zip(NAMES, STRIDES, strict=True)
    }


def test_it_pools_what_its_module_pools():
    pooler = build_pooler(roi("Pooler", node={"gain": 3.0}, output_size=[4, 5], sampling_ratio=2), NAMES, STRIDES, 3)
    features, boxes = maps(), [torch.tensor([[3.0, 4.0, 40.0, 50.0]]), torch.zeros(0, 4)]
    expected = 3 * MultiScaleRoIAlign(NAMES, (4, 5), 2)(features, boxes, [(64, 64)] * 2)
    assert torch.equal(pooler(features, boxes, [(64, 64)] * 2), expected)
    assert (pooler.output_size, pooler.featmap_names) == ((4, 5), NAMES)
    assert pooler.training


def test_what_its_class_is_called_with():
    pooler = build_pooler(roi("Scaled", output_size=[2, 3], canonical_level=2), NAMES, STRIDES)
    assert pooler.module.facts == (NAMES, (2, 3), 2, [0.25, 0.125], 2)
    own = build_pooler(roi("Scaled", node={"canonical_level": 9}), NAMES, STRIDES)
    assert own.module.facts[-1] == 9


def test_ours_by_its_name_is_ours():
    given = default(RoiConfig, kind={"_target_": "roi_ops.MultiScaleRoIAlign", "aligned": True})
    features, boxes = maps(), [torch.tensor([[3.0, 4.0, 40.0, 50.0]])] * 2
    pooled = [build_pooler(config, NAMES, STRIDES)(features, boxes, [(64, 64)] * 2)
              for config in (given, default(RoiConfig, aligned=True))]  # fmt: skip
    assert torch.equal(*pooled)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Transposed", ["[3, 147]", "[3, 3, 7, 7]"]),
        ("Crashing", ["RuntimeError", "no kernel for this", "[2, 3, 8, 8]", "[2, 3, 4, 4]"]),
        ("Plain", ["no argument featmap_names"]),
        ("Noted", ["user_parts.Noted", "torch.nn.modules.module.Module"]),
    ],
)
def test_what_is_no_pooler(name, facts):
    with pytest.raises(ConfigError) as caught:
        build_pooler(roi(name), NAMES, STRIDES, 3)
    assert str(caught.value).startswith(f"roi.kind: user_parts.{name}")
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_an_output_size_of_its_own_does_not_fit_the_head():
    with pytest.raises(ConfigError, match=r"roi\.kind: user_parts\.Pooler.*\[3, 3, 2, 2\].*\[3, 3, 7, 7\]"):
        build_pooler(roi("Pooler", node={"output_size": [2, 2]}), NAMES, STRIDES, 3)


def test_what_only_align_has():
    with pytest.raises(ConfigError, match=r"roi\.aligned=true: roi\.kind=user_parts\.Pooler"):
        check_parameters(roi("Pooler", aligned=True))


def detector_with(config):
    model = default(ModelConfig, fpn_channels=8, weights="none", min_size=[64])
    model.head.width = 8
    torch.manual_seed(3)
    return build_model(model, config, 3), torch.rand(4)


def test_a_detector_with_it():
    """Its weights are of the detector, and learn; those of the rest are what they are with another operator."""
    (model, after), (plain, after_plain) = detector_with(roi("Pooler")), detector_with(default(RoiConfig))
    assert isinstance(model, FasterRCNN)
    assert torch.equal(after, after_plain)
    weights = model.state_dict()
    assert set(weights) - set(plain.state_dict()) == {f"roi_heads.box_roi_pool.module.{n}" for n in ("gain", "drawn")}
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    module = model.roi_heads.box_roi_pool.module
    calls = module.calls
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    sum(model([torch.rand(3, 64, 64)], [target]).values()).backward()
    assert module.calls == calls + 1
    assert module.gain.grad is not None
    assert isinstance(module, user_parts.Pooler)
