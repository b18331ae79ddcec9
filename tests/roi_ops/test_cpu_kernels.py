"""What is special about the C++ kernels: instruction sets, threads, errors. The rest is in test_kernels.py."""

import subprocess
import sys

import pytest
import torch
from cases import FORMS, rois
from kernel_problems import DTYPES, KINDS, LAYOUTS, NAN, Problem

from roi_ops import cpu
from roi_ops.maps import describe

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.why_not()))


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
                Problem(kind, dtype, (2, channels, 20, 25), [layout], boxes, (7, 7), 2).assert_equals_reference(cpu)
    finally:
        cpu.use_instruction_set()


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("kind", ["pool", "align_max"])
def test_positions_survive_flushed_denormals(name, kind):
    """Positions travel in the bits of floats, where they are denormal numbers."""
    boxes = rois(["inside"] * 4, (12, 12), 1, 0)
    problem = Problem(kind, torch.float32, (1, 8, 12, 12), ["contiguous"], boxes, (3, 3), 2)
    args = (problem.features, problem.boxes, False, *problem.geom)
    expected = cpu.max_forward(*args)[1]
    try:
        cpu.use_instruction_set(name)
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush denormals")
        flushed = cpu.max_forward(*args)[1]
    except ValueError as error:
        pytest.skip(str(error))
    finally:
        torch.set_flush_denormal(False)
        cpu.use_instruction_set()
    assert expected.any()
    assert torch.equal(flushed, expected)


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
            lambda: cpu.linear_backward_features(grad, b, *describe(f), *g),
            lambda: cpu.linear_backward_boxes(grad, f, b, *g),
        ]
    else:
        calls = [
            lambda: cpu.max_forward(f, b, False, *g),
            lambda: cpu.max_gather(f, argmax, b, *g),
            lambda: cpu.max_backward_features(grad, argmax, b, *describe(f), *g),
            lambda: cpu.max_backward_boxes(grad, argmax, f, b, *g),
        ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"image index {index:g} of box 1 is outside 0\.\.1"):
            call()


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
