"""The reach of anchors, against torchvision's own anchors and resizing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision_anchors import torchvision_best_iou

from detector.config.defaults import default
from detector.config.schema import AnchorConfig, ModelConfig
from detector.inspection.anchor_fit import Objects, best_iou, fit_anchors, resized_objects
from detector.models.backbone import anchor_strides, build_backbone

MODELS = [{"name": "fpn"}, {"name": "fpn", "fpn_strides": [8, 16]}, {"name": "fpn", "fpn_strides": [32, 64]},
          {"name": "fpn", "fpn_strides": [4]}, {"name": "c4"}, {"name": "c5"}]  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.sampled_from(MODELS))
def test_the_best_iou_is_that_of_torchvisions_anchors(seed, model):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 300, 2)
    strides = anchor_strides(default(ModelConfig, **model))
    sizes = [sorted(rng.integers(8, 200, 2).astype(float).tolist()) for _ in strides]
    ratios = [0.4, 1.0, 2.7]
    corner = rng.uniform(0, 0.8, (12, 2)) * [width, height]
    boxes = np.concatenate([corner, corner + rng.uniform(1, 1 + min(height, width) / 3, (12, 2))], axis=1)
    expected = torchvision_best_iou(boxes, (int(height), int(width)), sizes, ratios, strides)
    found = best_iou(Objects(boxes, np.tile([height, width], (12, 1))), sizes, ratios, strides)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_strides_are_those_of_the_model(model):
    backbone = build_backbone(default(ModelConfig, **model))
    found = backbone.module(torch.zeros(1, 3, 128, 64))
    maps = list(found.values()) if isinstance(found, dict) else [found]
    assert [128 // m.shape[-2] for m in maps] == anchor_strides(default(ModelConfig, **model))


@given(st.integers(0, 2**32 - 1))
def test_objects_are_resized_as_torchvision_does(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(8, 90, 2).tolist()
    config = default(ModelConfig, min_size=[20, int(rng.integers(10, 130))], max_size=int(rng.integers(40, 180)))
    boxes = np.array([[0.0, 0.0, width, height], [1.0, 2.0, 6.5, 7.0]])
    transform = GeneralizedRCNNTransform(tuple(config.min_size), config.max_size, [0.0] * 3, [1.0] * 3).eval()
    images, targets = transform([torch.zeros(3, height, width)], [{"boxes": torch.from_numpy(boxes)}])
    found = resized_objects(boxes, np.array([[height, width]] * 2), config)
    assert found.inputs.tolist() == [list(images.image_sizes[0])] * 2
    assert found.boxes == pytest.approx(targets[0]["boxes"].numpy(), rel=1e-5)


def test_fit_of_one_kind_of_box():
    config = default(ModelConfig, name="c4", anchors=AnchorConfig(sizes=[[128.0, 256.0]], aspect_ratios=[1.0]))
    corner = np.stack(np.meshgrid(np.arange(20) * 16.0, np.arange(20) * 16.0), -1).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + np.array([20, 40])], axis=1)
    fit = fit_anchors(Objects(boxes, np.full((len(boxes), 2), 400.0)), config)
    # A 20 x 40 box in a 128 x 128 anchor.
    assert fit.mean_iou == pytest.approx(800 / 128**2)
    assert (fit.recall(0.5), fit.matched) == (0.0, 0.7)
    assert fit.override == "model.anchors.sizes=[[128,256]] model.anchors.aspect_ratios=[1]"
