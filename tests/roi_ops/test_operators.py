"""Operators that torchvision does not have, and edge cases, against numbers derived by hand or by brute force."""

import math

import pytest
import torch
import torchvision
from cases import features, relative, rois

import roi_ops
from roi_ops import backends, cuda

INF, NAN = float("inf"), float("nan")


def hat(x):
    return max(0.0, 1 - abs(x))


def brute_prroi(f, box, bins):
    """The definition of PrRoIPool by the midpoint rule with 400 points a bin and axis; f is [H, W]."""
    n = 400
    x1, y1, x2, y2 = box
    tables = []
    for start, extent, length in ((y1, y2 - y1, f.shape[0]), (x1, x2 - x1, f.shape[1])):
        points = torch.tensor([start + (i + 0.5) * extent / (bins * n) for i in range(bins * n)], dtype=torch.float64)
        table = (1 - (points[:, None] - torch.arange(length)).abs()).clamp(min=0)
        tables.append(table.view(bins, n, length).mean(1))
    return tables[0] @ f @ tables[1].T


def brute_align_max(f, box, bins, g):
    """Maximum over bilinear samples, void ones counting 0, by loops; f is [H, W]."""
    height, width = f.shape
    x1, y1, x2, y2 = box
    out = torch.full((bins, bins), -INF, dtype=torch.float64)
    for p in range(bins):
        for q in range(bins):
            for i in range(g):
                for j in range(g):
                    y = y1 + (y2 - y1) / bins * (p + (i + 0.5) / g)
                    x = x1 + (x2 - x1) / bins * (q + (j + 0.5) / g)
                    value = 0.0
                    if -1 <= y <= height and -1 <= x <= width:
                        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                        value = sum(
                            f[r, c].item() * hat(y - r) * hat(x - c) for r in range(height) for c in range(width)
                        )
                    out[p, q] = max(out[p, q], value)
    return out


@pytest.mark.parametrize("box", [(1.2, 0.7, 5.9, 6.1), (-3.0, -2.0, 4.5, 3.3), (2.1, 2.2, 2.4, 2.9), (-9, -9, 20, 20)])
def test_prroi_pool_is_the_mean_of_the_continued_map(device, box):
    f = features((1, 1, 7, 8), 0).to(device)
    ours = roi_ops.prroi_pool(f, torch.tensor([[0.0, *box]], device=device, dtype=f.dtype), 3)
    assert relative(ours[0, 0].cpu(), brute_prroi(f[0, 0].cpu(), box, 3)) < 1e-4  # error of the midpoint rule


def test_prroi_pool_of_a_ramp_is_its_value_at_the_bin_centres(device):
    ramp = torch.arange(12.0, device=device).expand(1, 1, 12, 12)
    out = roi_ops.prroi_pool(ramp, torch.tensor([[0.0, 2, 2, 8, 8]], device=device), 3)
    assert torch.allclose(out[0, 0].cpu(), torch.tensor([3.0, 5.0, 7.0]).expand(3, 3))


def test_prroi_pool_without_area_is_zero(device):
    f = torch.ones(1, 2, 8, 8, device=device)
    boxes = torch.tensor([[0.0, 3, 3, 3, 6], [0, 5, 5, 2, 2]], device=device)
    assert not roi_ops.prroi_pool(f, boxes, 2).any()


@pytest.mark.parametrize("box", [(0.4, 0.3, 6.6, 5.2), (-4.0, -3.0, 5.0, 9.0), (1.0, 1.0, 3.5, 2.5), (-9, 2, 3, 30)])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_roi_align_max_by_brute_force(device, box, shift):
    f = features((1, 1, 6, 7), 1).to(device) + shift  # shifted: void samples, which count 0, win
    boxes = torch.tensor([[0.0, *box]], device=device, dtype=f.dtype)
    ours = roi_ops.roi_align(f, boxes, 2, 1.0, 3, mode="max")
    assert relative(ours[0, 0].cpu(), brute_align_max(f[0, 0].cpu(), box, 2, 3)) < 1e-12


def test_the_tutorials_roi_align_sample(device):
    f = torch.arange(64.0, device=device).reshape(1, 1, 8, 8)
    box = torch.tensor([[0.0, 0.375, 0.875, 0.625]], device=device)
    ours = roi_ops.RoIAlign(output_size=2, sampling_ratio=2, spatial_scale=5)(f, [box])
    peer = torchvision.ops.RoIAlign(output_size=2, sampling_ratio=2, spatial_scale=5)(f, [box])
    assert torch.equal(ours, peer)
    # By hand: x in 0..4.375, y in 1.875..3.125, a linear ramp 8 y + x: its values at the bins' centres.
    expected = [[8 * y + x for x in (1.09375, 3.28125)] for y in (2.1875, 2.8125)]
    assert torch.allclose(ours[0, 0].cpu(), torch.tensor(expected))


@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "pool", "prroi"])
def test_boxes_that_are_no_boxes_pool_to_zero_with_zero_gradient(device, kind):
    f = torch.ones(2, 3, 9, 9, device=device, requires_grad=True)
    bad = torch.tensor([[0, NAN, 1, 5, 5], [1, 1, 1, INF, 5], [0, -INF, -INF, INF, INF], [1, 1, 1, 5, NAN]])
    good = torch.tensor([[1.0, 1, 1, 7, 7]])
    boxes = torch.cat([bad, good]).to(device).requires_grad_()
    out = pool(kind, f, boxes)
    assert not out[:4].any()
    assert torch.allclose(out[4], torch.ones_like(out[4]))
    out.sum().backward()
    assert torch.isfinite(f.grad).all()
    assert not f.grad[0].any()
    if kind != "pool":
        assert not boxes.grad[:4].any()


@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "pool", "prroi"])
def test_huge_boxes_just_work(device, kind):
    f = torch.ones(1, 2, 40, 30, device=device, requires_grad=True)
    boxes = torch.tensor(
        [[0, -12000.0, -15000, 18000, 15000], [0, -1e30, -1e30, 1e30, 1e30], [0, 0, 0, 1e30, 1e30],
         [0, -3e38, 0, 3e38, 6], [0, -3e38, 0, -2e38, 6], [0, 0, 3e38, 9, -3e38]], device=device
    )  # fmt: skip
    out = pool(kind, f, boxes, sampling_ratio=0)
    assert torch.isfinite(out).all()
    assert out.abs().max() <= 1 + 1e-5
    out.sum().backward()
    assert torch.isfinite(f.grad).all()
    assert not out[3].any()  # its extent overflows


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_a_pixel_that_is_not_finite_stays_in_its_bins(device, bad):
    f = torch.ones(1, 1, 16, 16, device=device)
    f[0, 0, 9, 9] = bad
    boxes = torch.tensor([[0.0, 0, 0, 4, 4], [0, 0, 0, 15, 15]], device=device)
    for kind in ("align", "align_aligned", "prroi"):
        out = pool(kind, f, boxes).cpu()
        assert torch.allclose(out[0], torch.ones(1, 3, 3))
        wrong = ~out[1, 0].isfinite()
        assert wrong[1, 1]
        assert wrong.sum() == 1


def test_a_huge_adaptive_box_by_the_definition(device):
    """RoIAlign of ones, by one axis: the samples on the map over all of a bin's samples."""
    f = torch.ones(1, 1, 40, 40, device=device, dtype=torch.float64)
    out = roi_ops.roi_align(f, torch.tensor([[0.0, -500, -500, 500, 500]], device=device), 2, 1.0, 0)
    # 500 samples a bin at -499.5, -498.5, ...: bin 0 has one of them in [-1, 40] (-0.5), bin 1 forty (0.5..39.5).
    share = torch.tensor([1 / 500, 40 / 500], dtype=torch.float64)
    assert torch.allclose(out[0, 0].cpu(), share[:, None] * share)


@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "pool", "prroi"])
@pytest.mark.parametrize(("images", "channels", "count"), [(1, 3, 0), (0, 3, 0), (2, 0, 4), (0, 0, 0)])
def test_empty_arguments_give_empty_results(device, kind, images, channels, count):
    f = torch.zeros(images, channels, 5, 6, device=device, requires_grad=True)
    out = pool(kind, f, torch.zeros(count, 5, device=device))
    assert out.shape == (count, channels, 3, 3)
    out.sum().backward()
    assert f.grad.shape == f.shape
    assert not f.grad.any()


def test_an_image_without_boxes_in_the_list(device):
    f = torch.ones(3, 2, 8, 8, device=device)
    boxes = [torch.zeros(0, 4), torch.tensor([[1.0, 1, 5, 5]]), torch.zeros(0, 4)]
    assert roi_ops.roi_align(f, [b.to(device) for b in boxes], 2).shape == (1, 2, 2, 2)
    assert roi_ops.roi_align(f, [torch.zeros(0, 4, device=device)] * 3, 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("index", [-1.0, 2.0, 7.0, NAN, 1e30])
def test_an_image_index_out_of_range(device, index):
    f = torch.ones(2, 3, 5, 5, device=device)
    boxes = torch.tensor([[0.0, 1, 1, 3, 3], [index, 1, 1, 3, 3]], device=device)
    if backends.select(device.type) is not cuda:
        with pytest.raises(ValueError, match=r"image index .* of box 1 is outside 0\.\.1"):
            roi_ops.roi_align(f, boxes, 2)
    else:
        assert not roi_ops.roi_align(f, boxes, 2)[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "pool", "prroi"])
def test_half_precision_is_float32_arithmetic_rounded_once(device, dtype, kind):
    f = features((2, 5, 12, 11), 3).to(device, dtype)
    b = rois(["inside", "partly outside", "huge", "sub-pixel"], (12, 11), 2, 4).float().to(device)
    ours = pool(kind, f, b)
    exact = pool(kind, f.double(), b)
    assert ours.dtype == dtype
    ulp = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).tiny)
    assert ((ours.double() - exact).abs() <= 0.51 * ulp + 1e-5).all()


def test_boxes_may_have_another_dtype_than_the_features(device):
    f = features((1, 2, 9, 9), 5).to(device, torch.float32)
    box = [1.0, 2.0, 6.0, 7.0]  # whole numbers, which every dtype holds
    expected = roi_ops.roi_align(f, [torch.tensor([box], device=device)], 3)
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64):
        assert torch.equal(roi_ops.roi_align(f, [torch.tensor([box], device=device).to(dtype)], 3), expected)


def test_levels_of_different_dtypes_become_the_widest(device):
    maps = [torch.ones(1, 2, 16, 16, device=device, dtype=torch.bfloat16), torch.ones(1, 2, 8, 8, device=device)]
    out = roi_ops.multiscale_roi_align(maps, [torch.tensor([[1.0, 1, 20, 20]], device=device)], 2, [0.25, 0.125])
    assert out.dtype == torch.float32


@pytest.mark.parametrize("kind", ["align", "align_max", "pool", "prroi"])
def test_a_box_inverted_in_one_axis_has_no_level(device, kind):
    maps = [torch.ones(1, 2, 16, 16, device=device), torch.ones(1, 2, 8, 8, device=device)]
    boxes = [torch.tensor([[20.0, 2, 10, 30], [10, 2, 20, 30]], device=device)]
    module = roi_ops.make_pooler(kind, ["a", "b"], 2, 2, spatial_scales=[0.25, 0.125])
    out = module({"a": maps[0], "b": maps[1]}, boxes, [(64, 64)])
    assert not out[0].any()
    assert out[1].any()


@pytest.mark.parametrize("kind", ["align", "align_aligned", "align_max", "pool", "prroi"])
def test_memory_formats_do_not_change_the_result(device, kind):
    f = features((2, 6, 10, 13), 6).to(device, torch.float32)
    b = rois(["inside", "partly outside", "huge", "whole map"], (10, 13), 2, 7).float().to(device)
    expected = pool(kind, f, b)
    strided = torch.zeros(2, 6, 20, 26, device=device)[:, :, ::2, ::2].copy_(f)
    expanded = f[:, :1].expand(-1, 6, -1, -1)
    assert relative(pool(kind, f.to(memory_format=torch.channels_last), b), expected) < 1e-6
    assert relative(pool(kind, strided, b), expected) < 1e-6
    assert relative(pool(kind, expanded, b), expected[:, :1].expand_as(expected)) < 1e-6
    out = pool(kind, f, b, channels_last=True)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert relative(out, expected) < 1e-6


def test_gradient_has_the_memory_format_of_the_features(device):
    b = rois(["inside"], (9, 9), 1, 0).float().to(device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        f = torch.rand(1, 4, 9, 9, device=device).to(memory_format=memory_format).requires_grad_()
        roi_ops.roi_align(f, b, 2).sum().backward()
        assert f.grad.is_contiguous(memory_format=memory_format)


def test_results_and_gradients_repeat_to_the_bit(device):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 8, 60, 60, generator=generator).to(device)
    b = torch.rand(100, 4, generator=generator) * 30
    b[:, 2:] += b[:, :2]
    b = torch.cat([torch.randint(2, (100, 1), generator=generator).float(), b], 1).to(device)
    g = torch.randn(100, 8, 7, 7, generator=generator).to(device)
    for kind in ("align", "pool", "prroi", "align_max"):
        runs = []
        for _ in range(3):
            leaf = f.clone().requires_grad_()
            out = pool(kind, leaf, b, bins=7)
            out.backward(g)
            runs.append((out, leaf.grad))
        for out, grad in runs[1:]:
            assert torch.equal(out, runs[0][0])
            assert torch.equal(grad, runs[0][1])


def pool(kind, f, boxes, sampling_ratio=2, bins=3, **kwargs):
    if kind == "pool":
        return roi_ops.roi_pool(f, boxes, bins, **kwargs)
    if kind == "prroi":
        return roi_ops.prroi_pool(f, boxes, bins, **kwargs)
    aligned, mode = kind == "align_aligned", "max" if kind == "align_max" else "avg"
    return roi_ops.roi_align(f, boxes, bins, 1.0, sampling_ratio, aligned, mode=mode, **kwargs)


def test_roi_align_is_exact_on_a_ramp(device):
    """Bilinear interpolation reproduces a linear map, so each bin is the ramp at its centre."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    f = (3 * y - 2 * x)[None, None].to(device)
    x1, y1, x2, y2 = 2.3, 4.1, 13.7, 17.2
    out = roi_ops.roi_align(f, torch.tensor([[0, x1, y1, x2, y2]], device=device), 4, 1.0, 3)
    centre = lambda a, b, p: a + (b - a) * (p + 0.5) / 4
    expected = [[3 * centre(y1, y2, p) - 2 * centre(x1, x2, q) for q in range(4)] for p in range(4)]
    assert math.isclose(0, (out[0, 0].cpu() - torch.tensor(expected)).abs().max().item(), abs_tol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -224.0, INF, NAN])
def test_a_canonical_scale_that_is_no_size_is_rejected(scale):
    maps, boxes = [torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4)], torch.zeros(1, 5)
    with pytest.raises(ValueError, match=r"canonical_scale=.*: must be a positive number"):
        roi_ops.multiscale_roi_align(maps, boxes, 2, [0.5, 0.25], canonical_scale=scale)


@pytest.mark.parametrize("level", [INF, -INF, NAN])
def test_a_canonical_level_that_is_no_number_is_rejected(level):
    maps, boxes = [torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4)], torch.zeros(1, 5)
    with pytest.raises(ValueError, match=r"canonical_level=.*: must be a finite number"):
        roi_ops.multiscale_roi_pool(maps, boxes, 2, [0.5, 0.25], canonical_level=level)


def test_roi_pool_rejects_maps_whose_positions_are_no_int32():
    boxes = torch.zeros(1, 5)
    with pytest.raises(ValueError, match="at most 2147483647 pixels"):
        roi_ops.roi_pool(torch.zeros(1, 1, 1, 1).expand(1, 1, 2**16, 2**15), boxes, 2)
    largest = torch.zeros(1, 1, 1, 1).expand(1, 1, 1, 2**31 - 1)
    assert roi_ops.roi_pool(largest, boxes, 2).shape == (1, 1, 2, 2)


def test_an_infinite_gradient_stays_on_the_pixels_of_its_bin(device):
    """Bin (0, 0) of 4 x 4 on 8 x 8 pixels touches pixels 0 to 2; zero times infinity elsewhere would be NaN."""
    boxes = torch.tensor([[0.0, 0, 0, 8, 8]], device=device)
    for value in (INF, -INF, NAN):
        for pool in (lambda f: roi_ops.roi_align(f, boxes, 4, 1.0, 2), lambda f: roi_ops.prroi_pool(f, boxes, 4)):
            f = torch.rand(1, 1, 8, 8, device=device, requires_grad=True)
            grad = torch.zeros(1, 1, 4, 4, device=device)
            grad[0, 0, 0, 0] = value
            (gradient,) = torch.autograd.grad(pool(f), f, grad)
            expected = torch.full((2, 2), value, device=device)
            assert torch.equal(gradient[0, 0, :2, :2].nan_to_num(7.0), expected.nan_to_num(7.0))
            assert not gradient[0, 0, 3:, :].any()
            assert not gradient[0, 0, :, 3:].any()
