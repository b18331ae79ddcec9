"""First and second derivatives against finite differences."""

import pytest
import torch
from cases import features
from torch.autograd import gradcheck, gradgradcheck

import roi_ops
from roi_ops import reference

# Coordinates with many digits: no sample lies on a pixel, where the bilinear hat has no derivative.
BOXES = torch.tensor(
    [[1.317, 2.153, 20.731, 25.257], [4.413, 3.371, 30.117, 14.931], [0.213, 0.337, 50.937, 55.173],
     [-5.331, -6.117, 20.219, 15.373], [7.111, 8.231, 7.317, 8.391]], dtype=torch.float64
)  # fmt: skip
INDEX = torch.tensor([[0.0], [1], [1], [0], [0]], dtype=torch.float64)
SCALES = [0.25, 0.125]


def maps(device):
    return [features((2, 2, n, n + 1), n).to(device).requires_grad_() for n in (8, 4)]


def pooled(kind, sampling_ratio, fine, coarse, boxes):
    pooler = roi_ops.make_pooler(
        kind, ["0", "1"], (2, 3), sampling_ratio, canonical_scale=28, canonical_level=2, spatial_scales=SCALES
    )
    lists = [boxes[INDEX[:, 0] == i] for i in range(2)]
    return pooler({"0": fine, "1": coarse}, lists, [(32, 36)] * 2)


@pytest.mark.parametrize("sampling_ratio", [2, 0])
@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "prroi"])
def test_features_and_boxes(device, kind, sampling_ratio):
    if kind == "prroi" and sampling_ratio == 0:
        pytest.skip("prroi has no samples")
    inputs = (*maps(device), BOXES.to(device).requires_grad_())
    # Fast mode compares random projections of the Jacobians, which the slow mode builds element by element.
    assert gradcheck(lambda *a: pooled(kind, sampling_ratio, *a), inputs, fast_mode=True)
    assert gradgradcheck(lambda *a: pooled(kind, sampling_ratio, *a), inputs, fast_mode=True)


def test_roi_pool_features(device):
    boxes = BOXES.to(device)
    assert gradcheck(lambda *f: pooled("pool", 0, *f, boxes), maps(device), fast_mode=True)
    assert gradgradcheck(lambda *f: pooled("pool", 0, *f, boxes), maps(device), fast_mode=True)


def test_roi_pool_gives_boxes_no_gradient(device):
    f = torch.rand(1, 1, 6, 6, device=device, requires_grad=True)
    boxes = torch.tensor([[0.0, 1, 1, 4, 4]], device=device, requires_grad=True)
    roi_ops.roi_pool(f, boxes, 2).sum().backward()
    assert boxes.grad is None or not boxes.grad.any()


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi"])
def test_box_gradient_of_a_ramp_by_hand(device, kind):
    """On f(x) = x a bin's value is its centre: with two bins x1 + (x2 - x1) (2 q + 1) / 4."""
    ramp = torch.arange(20.0, dtype=torch.float64, device=device).expand(1, 1, 20, 20)
    boxes = torch.tensor([[0, 3.21, 4.13, 11.37, 12.71]], dtype=torch.float64, device=device, requires_grad=True)
    if kind == "prroi":
        out = roi_ops.prroi_pool(ramp, boxes, 2)
    else:
        out = roi_ops.roi_align(ramp, boxes, 2, 1.0, 2, kind == "align_aligned")
    grad = torch.autograd.grad(out[0, 0, 0, 1], boxes)[0].cpu()
    assert torch.allclose(grad, torch.tensor([[0, 0.25, 0, 0.75, 0]], dtype=torch.float64), atol=1e-12)


def test_a_size_widened_to_one_pixel_does_not_follow_the_box(device):
    ramp = torch.arange(20.0, dtype=torch.float64, device=device).expand(1, 1, 20, 20)
    boxes = torch.tensor([[0, 3.21, 4.13, 3.51, 4.33]], dtype=torch.float64, device=device, requires_grad=True)
    out = roi_ops.roi_align(ramp, boxes, 2, 1.0, 2)
    grad = torch.autograd.grad(out[0, 0, 0, 1], boxes)[0].cpu()
    assert torch.allclose(grad, torch.tensor([[0, 1.0, 0, 0, 0]], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi"])
@pytest.mark.parametrize("box", [[0.0, 0, 1, 1], [-0.25, -0.5, 0.75, 1.5], [2, 3, 2, 3], [1, 1, 5, 5]], ids=str)
def test_closed_form_is_autograd_of_the_reference_where_the_box_gradient_jumps(kind, box):
    """Sizes of exactly a pixel or 0, samples at exactly 0: second derivatives come from autograd."""
    f = features((1, 2, 7, 8), 0)
    boxes = torch.tensor([[0.0, *box]], dtype=torch.float64, requires_grad=True)
    geometry = ([1.0], kind, 2, 2, 1, 0, 0, 224.0, 4.0)
    out = reference.linear_forward([f], boxes, False, *geometry)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (by_autograd,) = torch.autograd.grad(out, boxes, grad)
    closed = reference.linear_backward_boxes(grad, [f], boxes, *geometry)
    assert torch.allclose(closed, by_autograd, atol=1e-12)
