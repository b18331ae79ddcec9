"""The poolers that are built from the configuration, against torchvision's operators."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align, roi_pool

from detector.config.defaults import default
from detector.config.schema import ModelConfig, RoiConfig
from detector.models.backbone import anchor_strides
from detector.models.faster_rcnn import build_model
from detector.models.poolers import LevelwisePooler, build_pooler, feature_maps, pooled_strides

NAMES, STRIDES = ["0", "1", "2", "3"], [4, 8, 16, 32]


@pytest.fixture
def pyramid():
    generator = torch.Generator().manual_seed(0)
    features = {
        n: torch.rand(2, 3, 256 // s, 320 // s, generator=generator) for n, s in zip(NAMES, STRIDES, strict=True)
    }
    corner = torch.rand(2, 12, 2, generator=generator) * 150
    sides = torch.rand(2, 12, 1, generator=generator) * torch.tensor([150.0, 130.0]) + 3
    return features, list(torch.cat([corner, corner + sides], dim=2)), [(256, 320)] * 2


def test_pool_takes_each_box_from_its_level(pyramid):
    """Level by hand: floor(4 + log2(side / 224)), within 2..5, side the root of the area."""
    features, boxes, sizes = pyramid
    roi = default(RoiConfig, kind="torchvision_pool", output_size=[3, 2], canonical_scale=28)
    pooled = LevelwisePooler(NAMES, STRIDES, roi)(features, boxes, sizes)
    rows, levels = [], set()
    for image, own in enumerate(boxes):
        for box in own:
            side = float((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
            level = 2
            while level < 5 and side >= 28 * 2 ** (level + 1 - 4):
                level += 1
            levels.add(level)
            roi = torch.cat([torch.tensor([float(image)]), box])[None]
            rows.append(roi_pool(features[NAMES[level - 2]], roi, (3, 2), 1 / STRIDES[level - 2]))
    assert len(levels) == 4
    assert torch.equal(pooled, torch.cat(rows))


def test_torchvision_align_is_torchvisions(pyramid):
    pooler = build_pooler(
        default(RoiConfig, kind="torchvision_align", sampling_ratio=3, canonical_scale=56), NAMES, STRIDES
    )
    reference = MultiScaleRoIAlign(NAMES, 7, 3, canonical_scale=56)
    assert torch.equal(pooler(*pyramid), reference(*pyramid))


@pytest.mark.parametrize("aligned", [False, True])
def test_align_on_one_map_is_torchvisions(pyramid, aligned):
    features, boxes, sizes = pyramid
    pooler = build_pooler(default(RoiConfig, output_size=[4, 5], sampling_ratio=3, aligned=aligned), ["2"], [16])
    expected = roi_align(features["2"], boxes, (4, 5), 1 / 16, 3, aligned)
    torch.testing.assert_close(pooler(features, boxes, sizes), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [("align", "torchvision_align"), ("pool", "torchvision_pool")])
def test_ours_equals_theirs(pyramid, ours, theirs):
    a, b = (build_pooler(default(RoiConfig, kind=kind, canonical_scale=56), NAMES, STRIDES) for kind in (ours, theirs))
    torch.testing.assert_close(a(*pyramid), b(*pyramid), rtol=1e-5, atol=1e-6)


def test_scales_are_those_of_the_strides():
    for kind in ("align", "pool", "prroi", "torchvision_pool"):
        assert build_pooler(default(RoiConfig, kind=kind), NAMES, STRIDES).spatial_scales == [
            1 / 4,
            1 / 8,
            1 / 16,
            1 / 32,
        ]


@pytest.mark.parametrize("kind", ["align", "pool", "prroi", "torchvision_align", "torchvision_pool"])
def test_no_boxes(pyramid, kind):
    features, _, sizes = pyramid
    pooler = build_pooler(default(RoiConfig, kind=kind, output_size=[2, 3]), NAMES, STRIDES)
    assert pooler(features, [torch.zeros(0, 4)] * 2, sizes).shape == (0, 3, 2, 3)


@pytest.mark.parametrize(
    ("model", "strides"),
    [
        ({}, [4, 8, 16, 32]),
        ({"fpn_strides": [8, 16]}, [8, 16]),
        ({"fpn_strides": [32, 64]}, [32]),
        ({"name": "c4"}, [16]),
    ],
)
def test_strides_of_the_pooled_maps_of_a_model(model, strides):
    config = default(ModelConfig, **model, fpn_channels=8)
    config.head.width = 8
    config.anchors.sizes = [[16.0]] * len(anchor_strides(config))
    detector = build_model(config, default(RoiConfig), 2)
    assert pooled_strides(detector) == strides
    assert list(feature_maps(detector, torch.zeros(1, 3, 64, 64)))[: len(strides)] == [
        *detector.roi_heads.box_roi_pool.featmap_names
    ]
