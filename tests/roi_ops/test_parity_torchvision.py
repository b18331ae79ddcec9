"""roi_align, roi_pool and MultiScaleRoIAlign against torchvision's wheel, forward and gradients."""

import pytest
import torch
import torchvision
from cases import features, forms, outputs, relative, rois, scales, seeds, sizes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import roi_ops

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
dtypes = st.sampled_from([torch.float64, torch.float32])
common = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def peers_device(device, kinds):
    """Where torchvision computes what roi_align is compared with.

    torchvision's CUDA kernels are compiled with contraction: positions of samples are rounded once where ours, and
    torchvision's on the CPU, round twice. That decides whether a sample at exactly -1 or H counts, and whether an
    extent of exactly n bins has n or n + 1 adaptive samples. Boxes of these forms are compared with the CPU's kernels.
    """
    return "cpu" if {"on the border", "whole map"} & set(kinds) else device


def test_boxes_that_rounding_decides_about_are_compared_on_the_cpu():
    assert peers_device("cuda", ["inside", "whole map"]) == peers_device("cuda", ["on the border"]) == "cpu"
    assert peers_device("cuda", ["inside", "inverted"]) == "cuda"


def compare(ours, theirs, f, seed, dtype):
    assert ours.shape == theirs.shape
    assert relative(ours, theirs) <= TOLERANCE[dtype]
    g = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(ours)
    (d_ours,), (d_theirs,) = torch.autograd.grad(ours, f, g), torch.autograd.grad(theirs, f, g)
    assert relative(d_ours, d_theirs) <= TOLERANCE[dtype]


@common
@given(forms, sizes, outputs, scales, st.integers(0, 4), st.booleans(), dtypes, seeds, st.booleans())
def test_roi_align(device, kinds, size, output, scale, sampling_ratio, aligned, dtype, seed, channels_last):
    if aligned and sampling_ratio == 0:  # torchvision throws where an inverted box has no samples
        kinds = ["inside" if k == "inverted" else k for k in kinds]
    f = features((2, 3, *size), seed, channels_last).to(device, dtype).requires_grad_()
    b = rois(kinds, size, 2, seed, scale).to(device, dtype)
    args = (output, scale, sampling_ratio, aligned)
    peer = peers_device(device, kinds)
    theirs = torchvision.ops.roi_align(f.to(peer), b.to(peer), *args).to(device)
    compare(roi_ops.roi_align(f, b, *args), theirs, f, seed, dtype)


@common
@given(forms, sizes, outputs, scales, dtypes, seeds, st.booleans())
def test_roi_pool(device, kinds, size, output, scale, dtype, seed, channels_last):
    f = features((2, 3, *size), seed, channels_last).to(device, dtype).requires_grad_()
    b = rois(kinds, size, 2, seed, scale).to(device, dtype)
    compare(roi_ops.roi_pool(f, b, output, scale), torchvision.ops.roi_pool(f, b, output, scale), f, seed, dtype)


def test_roi_pool_gradient_goes_to_the_first_of_equal_maxima(device):
    f = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
    roi_ops.roi_pool(f, torch.tensor([[0.0, 0, 0, 3, 3]], device=device), 1).sum().backward()
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 0, 0] = 1
    assert torch.equal(f.grad.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels_last", [False, True])
def test_multi_scale_roi_align(device, dtype, channels_last):
    generator = torch.Generator().manual_seed(0)
    maps = {str(i): features((2, 4, 256 >> i, 320 >> i), i, channels_last).to(device, dtype) for i in range(2, 6)}
    boxes = [torch.rand(100, 4, generator=generator, dtype=dtype) * 300 for _ in range(2)]
    for b in boxes:  # most are proper, the others inverted in one axis or both
        b[:80, 2:] += b[:80, :2]
    boxes[0][0] = torch.tensor([0, 0, 224, 224])  # exactly on the border of two levels
    boxes[0][1] = torch.tensor([10, 20, 122, 132])
    boxes = [b.to(device) for b in boxes]
    for m in maps.values():
        m.requires_grad_()
    sizes = [(256, 320), (200, 311)]
    theirs = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, 2)(maps, boxes, sizes)
    inferred = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2)(maps, boxes, sizes)
    given_scales = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2, spatial_scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32])
    assert torch.equal(given_scales(maps, boxes, sizes), inferred)
    assert relative(inferred, theirs) <= TOLERANCE[dtype]
    g = torch.randn_like(theirs)
    for ours, peer in zip(
        torch.autograd.grad(inferred, list(maps.values()), g),
        torch.autograd.grad(theirs, list(maps.values()), g),
        strict=True,
    ):
        assert relative(ours, peer) <= TOLERANCE[dtype]


@pytest.mark.filterwarnings("ignore:torch.quantize_per")
@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32], ids=str)
@pytest.mark.parametrize(("scale", "zero_point"), [(1.0, 0), (0.7, 5)])
def test_quantised_maps_are_torchvisions(dtype, scale, zero_point):
    """Both round a result to the next step; where it lies in the middle of two, they may differ by one."""
    generator = torch.Generator().manual_seed(0)
    quantised = lambda values: torch.quantize_per_tensor(values, scale, zero_point, dtype)
    f = quantised(torch.rand(1, 3, 12, 14, generator=generator) * 80)
    corners = torch.rand(40, 2, 2, generator=generator) * 60
    boxes = quantised(torch.cat([torch.zeros(40, 1), corners.amin(1), corners.amax(1)], 1))
    for sampling_ratio, aligned in ((2, False), (0, True)):
        args = (5, 0.25, sampling_ratio, aligned)
        ours, theirs = roi_ops.roi_align(f, boxes, *args), torchvision.ops.roi_align(f, boxes, *args)
        assert (ours.dtype, ours.q_scale(), ours.q_zero_point()) == (dtype, theirs.q_scale(), theirs.q_zero_point())
        steps = (ours.int_repr().long() - theirs.int_repr().long()).abs()
        assert steps.max() <= 1
        assert steps.float().mean() < 0.01
        lists = roi_ops.roi_align(f, [boxes.dequantize()[:, 1:]], *args)
        assert torch.equal(lists.int_repr(), ours.int_repr())
    twice = quantised(torch.cat([f.dequantize()] * 2))
    for function in (roi_ops.roi_align, torchvision.ops.roi_align):
        with pytest.raises(RuntimeError, match="Only one image per batch"):
            function(twice, boxes, 5)
