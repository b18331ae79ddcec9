"""The reach of anchors, against torchvision's own anchors; and k-means."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from detector.config.defaults import default
from detector.config.schema import AnchorConfig, ModelConfig
from detector.inspection.anchor_fit import best_iou, fit_anchors, k_means, propose_anchors, resize_factors
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
    padded = [int(-(-side // 32) * 32) for side in (height, width)]
    maps = []
    for stride in strides:
        maps.append(torch.zeros(1, 1, *(-(-side // stride) for side in padded)))
    anchors = AnchorGenerator(tuple(map(tuple, sizes)), tuple(tuple(ratios) for _ in sizes))(
        ImageList(torch.zeros(1, 3, *padded), [(int(height), int(width))]), maps
    )[0]
    expected = box_iou(torch.from_numpy(boxes), anchors.double()).max(dim=1).values.numpy()
    found = best_iou(boxes, np.tile([height, width], (12, 1)), sizes, ratios, strides)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_strides_are_those_of_the_model(model):
    backbone = build_backbone(default(ModelConfig, **model))
    found = backbone.module(torch.zeros(1, 3, 128, 64))
    maps = list(found.values()) if isinstance(found, dict) else [found]
    assert [128 // m.shape[-2] for m in maps] == anchor_strides(default(ModelConfig, **model))


def test_factors_are_those_of_resizing():
    config = default(ModelConfig, min_size=[200, 400], max_size=600)
    # 400 / 300; limited by the long side: 600 / 1000; 400 / 800.
    assert resize_factors(np.array([[300, 400], [1000, 500], [800, 800]]), config).tolist() == [400 / 300, 0.6, 0.5]


def test_k_means_finds_clusters():
    values = np.concatenate([np.full(50, 1.0), np.full(5, 4.0), np.full(20, 4.5), [9.0]])
    assert k_means(values, 3).tolist() == pytest.approx([1.0, 4.4, 9.0])
    assert k_means(np.full(7, 2.0), 3).tolist() == [2.0, 2.0, 2.0]
    assert k_means(np.array([1.0, 3.0]), 1).tolist() == [2.0]


def test_better_anchors_for_one_kind_of_box():
    config = default(ModelConfig, name="c4", anchors=AnchorConfig(sizes=[[128.0, 256.0]], aspect_ratios=[1.0]))
    corner = np.stack(np.meshgrid(np.arange(20) * 16.0, np.arange(20) * 16.0), -1).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + np.array([20, 40])], axis=1)
    inputs = np.full((len(boxes), 2), 400.0)
    before, after = fit_anchors(boxes, inputs, config), propose_anchors(boxes, inputs, config)
    # A 20 x 40 box in a 128 x 128 anchor.
    assert before.mean_iou == pytest.approx(800 / 128**2)
    assert (before.recall(0.5), before.matched) == (0.0, 0.7)
    assert after.sizes == [[28.0, 28.0]]  # sqrt(800) = 28.3
    assert after.aspect_ratios == [2.0]
    assert after.recall(0.3) == 1.0
    assert after.override == "model.anchors.sizes=[[28,28]] model.anchors.aspect_ratios=[2]"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.integers(1, 4))
def test_no_clusters_are_better(numbers, count):
    values = np.array(numbers, dtype=float)
    centres = k_means(values, count)
    assert len(centres) == count
    assert (np.diff(centres) >= 0).all()
    loss = (np.abs(values[:, None] - centres).min(axis=1) ** 2).sum()
    ordered = np.sort(values)
    splits = itertools.combinations_with_replacement(range(len(values) + 1), count - 1)
    parts = [np.split(ordered, borders) for borders in splits]
    assert loss == pytest.approx(min(sum(len(p) * p.var() for p in some if len(p)) for some in parts), abs=1e-6)


def test_clusters_of_many_numbers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.1, 5000), rng.normal(5, 0.1, 50)])
    assert k_means(values, 2).tolist() == pytest.approx([values[:5000].mean(), values[5000:].mean()])
