"""The modules inside torchvision's detectors."""

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator

import roi_ops

IMAGES = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def tutorial_model(pooler_module):
    """The tutorial's model, as written there but for the module the pooler comes from."""
    torch.manual_seed(0)
    backbone = torchvision.models.mobilenet_v2(weights=None).features
    backbone.out_channels = 1280
    anchors = AnchorGenerator(sizes=((32, 64, 128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),))
    pooler = pooler_module.MultiScaleRoIAlign(featmap_names=["0"], output_size=7, sampling_ratio=2)
    return FasterRCNN(
        backbone, num_classes=2, rpn_anchor_generator=anchors, box_roi_pool=pooler, min_size=128, max_size=192
    )


@pytest.mark.slow
def test_the_tutorials_faster_rcnn():
    targets = [{"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([1])}] * 2
    results = []
    for module in (roi_ops, torchvision.ops):
        model = tutorial_model(module)
        torch.manual_seed(1)
        losses = model(IMAGES, targets)
        model.eval().roi_heads.score_thresh = 0.0
        with torch.no_grad():
            results.append((losses, model(IMAGES)))
    (losses, detections), (peer_losses, peer_detections) = results
    for name, value in peer_losses.items():
        assert torch.allclose(losses[name], value, rtol=1e-4, atol=1e-5), name
    assert len(peer_detections[0]["boxes"])
    for ours, peer in zip(detections, peer_detections, strict=True):
        for key, value in peer.items():
            assert torch.allclose(ours[key], value, rtol=1e-3, atol=1e-3), key


def test_a_missing_feature_map_is_named():
    pooler = roi_ops.MultiScaleRoIAlign(["0", "1"], 7, 2)
    with pytest.raises(ValueError, match=r"no feature map named \['1'\]; there are \['0', 'pool'\]"):
        pooler({"0": torch.zeros(1, 1, 4, 4), "pool": torch.zeros(1, 1, 2, 2)}, [torch.zeros(0, 4)], [(16, 16)])


def test_scales_are_inferred_anew_in_every_call():
    """torchvision keeps the first batch's scales, which are wrong for a batch of another stride."""
    pooler = roi_ops.MultiScaleRoIAlign(["0"], 2, 2)
    boxes = [torch.tensor([[4.0, 4, 28, 28]])]
    for stride in (4, 8):
        f = torch.rand(1, 1, 64 // stride, 64 // stride)
        expected = torchvision.ops.roi_align(f, boxes, 2, 1 / stride, 2)
        assert torch.allclose(pooler({"0": f}, boxes, [(64, 64)]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "args"), [("MultiScaleRoIAlign", (["0"], 7, 2)), ("RoIAlign", (7, 0.5, 2)), ("RoIPool", ((7, 3), 0.5))]
)
def test_modules_print_as_torchvisions(name, args):
    assert repr(getattr(roi_ops, name)(*args)) == repr(getattr(torchvision.ops, name)(*args))


def test_modules_print_what_torchvisions_do_not_have():
    pooler = roi_ops.MultiScaleRoIAlign(["0"], 7, 2, aligned=True, mode="max", canonical_scale=56, spatial_scales=[0.5])
    assert repr(pooler) == (
        "MultiScaleRoIAlign(featmap_names=['0'], output_size=(7, 7), sampling_ratio=2, aligned=True, mode='max', "
        "canonical_scale=56, spatial_scales=[0.5])"
    )
    assert repr(roi_ops.MultiScaleRoIPool(["0"], 7)) == "MultiScaleRoIPool(featmap_names=['0'], output_size=(7, 7))"
    assert "mode='max'" in repr(roi_ops.RoIAlign(7, 0.5, 2, mode="max"))
    assert "spatial_scale=0.5" in repr(roi_ops.PrRoIPool(7, 0.5))


def test_numpy_integers_are_integers():
    f, boxes = torch.rand(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 6, 6]])
    expected = roi_ops.roi_align(f, boxes, 2, 1.0, 2)
    assert torch.equal(roi_ops.roi_align(f, boxes, np.int64(2), 1.0, np.int32(2)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "no feature maps"),
        ({"features": [torch.zeros(1, 2, 4)]}, r"feature map 0 must be a Tensor\[N, C, H, W\] of float16"),
        ({"features": [torch.zeros(1, 2, 4, 4, dtype=torch.int64)]}, "or float64, got torch.int64"),
        ({"features": [torch.zeros(1, 2, 4, 4).to(torch.float8_e4m3fn)]}, "got torch.float8_e4m3fn"),
        ({"output_size": 2.5}, "must be an integer"),
        ({"features": [torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2, 2)]}, "must agree in images, channels"),
        ({"boxes": torch.zeros(3, 4)}, r"boxes must be Tensor\[K, 5\].*shape \(3, 4\)"),
        ({"boxes": [torch.zeros(3, 5)]}, r"boxes of image 0 must be Tensor\[L, 4\]"),
        ({"boxes": [torch.zeros(3, 4)] * 2}, "1 images but 2 lists of boxes"),
        ({"output_size": 0}, "output_size must be"),
        ({"output_size": (7, 7, 7)}, "output_size must be"),
        ({"spatial_scales": [0.0]}, "must be positive"),
        ({"spatial_scales": [0.5, 0.25]}, "1 feature maps but 2 spatial scales"),
        ({"sampling_ratio": 10**6}, "at most 32768"),
        ({"mode": "median"}, "must be 'avg' or 'max'"),
    ],
)
def test_wrong_arguments_are_told_what_is_wanted(change, message):
    args = {"features": [torch.zeros(1, 2, 4, 4)], "boxes": torch.zeros(0, 5), "output_size": 2, "spatial_scales": [1]}
    with pytest.raises(ValueError, match=message):
        roi_ops.multiscale_roi_align(**{**args, **change})
