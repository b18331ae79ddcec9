"""Compiled kernels against the reference: every operator, type, layout and form of box, on each backend."""

import time

import pytest
import torch
from cases import FORMS, rois
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_problems import KINDS, ODD, Problem, assert_close, build, problems

from roi_ops import reference
from roi_ops.geometry import LINEAR_KINDS
from roi_ops.maps import describe


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems)
def test_every_result_equals_the_reference(kernels, p):
    build(p).assert_equals_reference(kernels, p["channels_last"])


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems)
def test_every_result_equals_the_reference_at_length(kernels, p):
    build(p).assert_equals_reference(kernels, p["channels_last"])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems, st.lists(st.tuples(st.integers(1, 4), st.sampled_from(ODD)), min_size=1, max_size=6))
def test_odd_coordinates_give_what_the_reference_gives(kernels, p, odd):
    boxes = rois(["inside"] * len(odd), p["size"], p["images"], p["seed"], p["scale"])
    for row, (side, value) in enumerate(odd):
        boxes[row, side] = value
    problem = build(p, boxes)
    ours, theirs = problem.results(kernels), problem.results(reference)
    for name in theirs.keys() - {"boxes", "argmax"}:  # the weights' rounding errors times 1e30 are in boxes
        assert_close(ours[name], theirs[name], problem.dtype, name)
    for row, (_, value) in enumerate(odd):
        if not abs(value) < float("inf") and "boxes" in ours:
            assert not ours["boxes"][row].any()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_uninitialised_memory(kernels, kind):
    forms = [*FORMS, "inside", "outside"]
    problem = Problem(kind, torch.float32, (2, 21, 18, 22), ["contiguous", "channels_last"],
                      rois(forms, (18, 22), 2, 3, 0.5), (5, 6), -1, levels=3)  # fmt: skip
    plain = problem.results(kernels)
    torch.use_deterministic_algorithms(True)  # torch.empty then fills with NaN and with the largest integer
    try:
        assert torch.empty(1).isnan().all()
        poisoned = problem.results(kernels)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, tensor in plain.items():
        assert torch.equal(tensor, poisoned[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 0, 6, 7), (0, 3, 6, 7), (2, 3, 0, 7), (2, 3, 6, 0)])
@pytest.mark.parametrize("count", [0, 2])
def test_empty_tensors(kernels, kind, shape, count):
    if not shape[0] and count:
        pytest.skip("a box needs an image")
    problem = Problem(kind, torch.float32, shape, ["contiguous"], rois(["inside"] * count, (6, 7), 2, 0), (2, 3), 2)
    f, b, grad, g = problem.features, problem.boxes, problem.grad, problem.geom
    if kind in LINEAR_KINDS:
        out = kernels.linear_forward(f, b, False, *g)
        gradient = kernels.linear_backward_features(grad, b, *describe(f), *g)[0]
        boxes = kernels.linear_backward_boxes(grad, f, b, *g)
    else:
        out, argmax = kernels.max_forward(f, b, False, *g)
        assert (argmax == -1).all()
        gradient = kernels.max_backward_features(grad, argmax, b, *describe(f), *g)[0]
        boxes = torch.zeros(count, 5) if kind == "pool" else kernels.max_backward_boxes(grad, argmax, f, b, *g)
    assert out.shape == (count, shape[1], 2, 3)
    assert gradient.shape == shape
    assert boxes.shape == (count, 5)
    assert not any(t.any() for t in (out, gradient, boxes))


@pytest.mark.parametrize("kind", ["pool", "align_max"])
@pytest.mark.parametrize("position", [-(2**31), -5, 81, 2**31 - 1])
def test_positions_that_cannot_be_do_no_harm(kernels, kind, position):
    boxes = rois(["inside", "partly outside"], (9, 9), 1, 0)
    problem = Problem(kind, torch.float32, (1, 4, 9, 9), ["contiguous"], boxes, (3, 3), 2)
    argmax = torch.full((2, 4, 3, 3), position, dtype=torch.int32)
    f, b, grad, g = problem.features, problem.boxes, problem.grad, problem.geom
    assert not kernels.max_backward_features(grad, argmax, b, *describe(f), *g)[0].any()
    assert not kernels.max_backward_boxes(grad, argmax, f, b, *g).any()
    assert not kernels.max_gather(f, argmax, b, *g).any()


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi", "align_max", "pool"])
def test_a_huge_adaptive_box_costs_no_more_than_the_map(kernels, kind):
    boxes = torch.tensor([[0, -1e30, -1e30, 1e30, 1e30], [0, -15000.0, -15000, 15000, 15000], [0, 0, 0, 3e38, 3e38]])
    problem = Problem(kind, torch.float32, (1, 8, 60, 60), ["channels_last"], boxes, (7, 7), 0, scale=1.0)
    begun = time.perf_counter()
    if kind in LINEAR_KINDS:
        out = kernels.linear_forward(problem.features, problem.boxes, False, *problem.geom)
    else:
        out, _ = kernels.max_forward(problem.features, problem.boxes, False, *problem.geom)
    assert time.perf_counter() - begun < 20  # 4286 ^ 2 samples a bin of the second box would take minutes
    assert out.isfinite().all()


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_offsets_beyond_32_bits(kernels, layout):
    """A map of 2.4e9 elements; memory that is not touched is never there, where the map stays on the CPU."""
    height, width = 60000, 20000
    try:
        flat = torch.empty(2 * height * width, dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"no address space: {error}")
    strides = (0, 1, 2 * width, 2) if layout == "channels_last" else (0, height * width, width, 1)
    f = flat.as_strided((1, 2, height, width), strides)
    window = torch.randn(1, 2, 12, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    f[:, :, -12:, -12:] = window
    near = torch.tensor([[0, 3.0, 2, 9, 8]])  # bins of 2: float32 holds the positions of all samples exactly
    far = near + torch.tensor([0.0, width - 12, height - 12, width - 12, height - 12])
    for function, kind in ((kernels.linear_forward, "align"), (kernels.max_forward, "pool")):
        geom = ([1.0], kind, 3, 3, 2, 0, 0, 224.0, 4.0)
        there, here = function([f], far, False, *geom), function([window], near, False, *geom)
        assert torch.equal(there if kind == "align" else there[0], here if kind == "align" else here[0])
