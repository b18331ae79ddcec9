"""The C++ kernels against the reference: every operator, type, layout and form of box."""

import subprocess
import sys

import pytest
import torch
from cases import FORMS, rois
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_problems import DTYPES, KINDS, LAYOUTS, ODD, Problem, assert_close, build, problems

from roi_ops import cpu, reference

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.why_not()))

NAN = float("nan")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems)
def test_every_result_equals_the_reference(p):
    build(p).assert_equals_reference(p["channels_last"])


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems)
def test_every_result_equals_the_reference_at_length(p):
    build(p).assert_equals_reference(p["channels_last"])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems, st.lists(st.tuples(st.integers(1, 4), st.sampled_from(ODD)), min_size=1, max_size=6))
def test_odd_coordinates_give_what_the_reference_gives(p, odd):
    boxes = rois(["inside"] * len(odd), p["size"], p["images"], p["seed"], p["scale"])
    for row, (side, value) in enumerate(odd):
        boxes[row, side] = value
    problem = build(p, boxes)
    ours, theirs = problem.results(cpu), problem.results(reference)
    for name in theirs.keys() - {"boxes", "argmax"}:  # the weights' rounding errors times 1e30 are in boxes
        assert_close(ours[name], theirs[name], problem.dtype, name)
    for row, (_, value) in enumerate(odd):
        if not abs(value) < float("inf") and "boxes" in ours:
            assert not ours["boxes"][row].any()


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_instruction_set_equals_the_reference(name, kind):
    try:
        cpu.use_instruction_set(name)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        for dtype in DTYPES:
            for channels, layout in ((67, "channels_last"), (19, "contiguous"), (3, "batch innermost")):
                boxes = rois(list(FORMS), (20, 25), 2, 5, 0.5)
                Problem(kind, dtype, (2, channels, 20, 25), [layout], boxes, (7, 7), 2).assert_equals_reference()
    finally:
        cpu.use_instruction_set()


def test_an_unknown_instruction_set_is_an_error():
    with pytest.raises(ValueError, match="no kernels"):
        cpu.use_instruction_set("mmx")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_the_same_bits_for_any_number_of_threads(kind, layout):
    boxes = rois(list(FORMS) * 12, (40, 50), 2, 9, 0.25)
    problem = Problem(kind, torch.float32, (2, 97, 40, 50), [layout], boxes, (7, 7), 2, levels=2, scale=0.25)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 5, 1):
            torch.set_num_threads(threads)
            runs.append(problem.results(cpu))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        for name, tensor in runs[0].items():
            assert torch.equal(tensor, run[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_uninitialised_memory(kind):
    forms = [*FORMS, "inside", "outside"]
    problem = Problem(kind, torch.float32, (2, 21, 18, 22), ["contiguous", "channels_last"],
                      rois(forms, (18, 22), 2, 3, 0.5), (5, 6), -1, levels=3)  # fmt: skip
    plain = problem.results(cpu)
    torch.use_deterministic_algorithms(True)  # torch.empty then fills with NaN and with the largest integer
    try:
        assert torch.empty(1).isnan().all()
        poisoned = problem.results(cpu)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, tensor in plain.items():
        assert torch.equal(tensor, poisoned[name]), name


@pytest.mark.parametrize("index", [2.0, -1.0, NAN])
@pytest.mark.parametrize("kind", ["align", "pool", "align_max"])
def test_an_image_index_out_of_range_is_an_error_of_every_function(index, kind):
    problem = Problem(kind, torch.float32, (2, 3, 9, 9), ["contiguous"], rois(["inside"] * 3, (9, 9), 2, 0), (2, 2), 2)
    argmax = torch.zeros(3, 3, 2, 2, dtype=torch.int32)
    problem.boxes[1, 0] = index
    f, b, g, grad = problem.features, problem.boxes, problem.geom, problem.grad
    if kind == "align":
        calls = [
            lambda: cpu.linear_forward(f, b, False, *g),
            lambda: cpu.linear_backward_features(grad, f, b, *g),
            lambda: cpu.linear_backward_boxes(grad, f, b, *g),
        ]
    else:
        calls = [
            lambda: cpu.max_forward(f, b, False, *g),
            lambda: cpu.max_gather(f, argmax, b, *g),
            lambda: cpu.max_backward_features(grad, argmax, f, b, *g),
            lambda: cpu.max_backward_boxes(grad, argmax, f, b, *g),
        ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"image index {index:g} of box 1 is outside 0\.\.1"):
            call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 0, 6, 7), (0, 3, 6, 7), (2, 3, 0, 7), (2, 3, 6, 0)])
@pytest.mark.parametrize("count", [0, 2])
def test_empty_tensors(kind, shape, count):
    if not shape[0] and count:
        pytest.skip("a box needs an image")
    problem = Problem(kind, torch.float32, shape, ["contiguous"], rois(["inside"] * count, (6, 7), 2, 0), (2, 3), 2)
    f, b, grad, g = problem.features, problem.boxes, problem.grad, problem.geom
    if kind in ("align", "align_aligned", "prroi"):
        out = cpu.linear_forward(f, b, False, *g)
        gradient = cpu.linear_backward_features(grad, f, b, *g)[0]
        boxes = cpu.linear_backward_boxes(grad, f, b, *g)
    else:
        out, argmax = cpu.max_forward(f, b, False, *g)
        assert (argmax == -1).all()
        gradient = cpu.max_backward_features(grad, argmax, f, b, *g)[0]
        boxes = torch.zeros(count, 5) if kind == "pool" else cpu.max_backward_boxes(grad, argmax, f, b, *g)
    assert out.shape == (count, shape[1], 2, 3)
    assert gradient.shape == shape
    assert boxes.shape == (count, 5)
    assert not any(t.any() for t in (out, gradient, boxes))


@pytest.mark.parametrize("kind", ["pool", "align_max"])
@pytest.mark.parametrize("position", [-(2**31), -5, 81, 2**31 - 1])
def test_positions_that_cannot_be_do_no_harm(kind, position):
    boxes = rois(["inside", "partly outside"], (9, 9), 1, 0)
    problem = Problem(kind, torch.float32, (1, 4, 9, 9), ["contiguous"], boxes, (3, 3), 2)
    argmax = torch.full((2, 4, 3, 3), position, dtype=torch.int32)
    rest = (argmax, problem.features, problem.boxes, *problem.geom)
    assert not cpu.max_backward_features(problem.grad, *rest)[0].any()
    assert not cpu.max_backward_boxes(problem.grad, *rest).any()
    assert not cpu.max_gather(problem.features, argmax, problem.boxes, *problem.geom).any()


OTHER_BUILD = """
import sys, types
sys.modules["roi_ops.cpu._kernels"] = types.ModuleType("_kernels")  # a library without the number of its interface
from roi_ops import cpu
print(cpu.available(), cpu.why_not())
"""


def test_a_library_of_another_build_is_not_used():
    run = subprocess.run([sys.executable, "-c", OTHER_BUILD], check=True, capture_output=True, text=True)
    assert run.stdout.startswith("False")
    assert "install the project again" in run.stdout
