"""The C++ kernels where things get large: maps, offsets, boxes, memory."""

import subprocess
import sys
import time

import pytest
import torch
from cases import FORMS, rois
from kernel_problems import Problem

from roi_ops import cpu
from roi_ops.geometry import LINEAR_KINDS

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.why_not()))


@pytest.mark.parametrize("kind", LINEAR_KINDS)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_forward_and_backward_are_adjoint_on_large_maps(kind, layout):
    """<G, A F> = <A^T G, F>; the gradient is large enough to be recycled."""
    boxes = rois([f for f in FORMS if f != "huge"] * 2, (260, 300), 1, 1, 0.25)
    problem = Problem(kind, torch.float64, (1, 64, 260, 300), [layout], boxes, (7, 7), 2, scale=0.25)
    out = cpu.linear_forward(problem.features, problem.boxes, False, *problem.geom)
    (gradient,) = cpu.linear_backward_features(problem.grad, problem.features, problem.boxes, *problem.geom)
    assert gradient.nbytes >= 32 << 20
    assert gradient.stride() == problem.features[0].stride()
    left, right = (out * problem.grad).sum().item(), (gradient * problem.features[0]).sum().item()
    assert left == pytest.approx(right, rel=1e-10)
    gradient.add_(1)  # it is ordinary memory
    assert gradient.clone().sum().item() == pytest.approx(gradient.sum().item())


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi", "align_max", "pool"])
def test_a_huge_adaptive_box_costs_no_more_than_the_map(kind):
    boxes = torch.tensor([[0, -1e30, -1e30, 1e30, 1e30], [0, -15000.0, -15000, 15000, 15000], [0, 0, 0, 3e38, 3e38]])
    problem = Problem(kind, torch.float32, (1, 8, 60, 60), ["channels_last"], boxes, (7, 7), 0, scale=1.0)
    begun = time.perf_counter()
    if kind in LINEAR_KINDS:
        out = cpu.linear_forward(problem.features, problem.boxes, False, *problem.geom)
    else:
        out, _ = cpu.max_forward(problem.features, problem.boxes, False, *problem.geom)
    assert time.perf_counter() - begun < 2  # 4286 ^ 2 samples a bin of the second box would take minutes
    assert out.isfinite().all()


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_offsets_beyond_32_bits(layout):
    """A map of 2.4e9 elements; memory that is not touched is never there."""
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
    for function, kind in ((cpu.linear_forward, "align"), (cpu.max_forward, "pool")):
        geom = ([1.0], kind, 3, 3, 2, 0, 0, 224.0, 4.0)
        there, here = function([f], far, False, *geom), function([window], near, False, *geom)
        assert torch.equal(there if kind == "align" else there[0], here if kind == "align" else here[0])


MEASURE = """
import torch
from roi_ops import cpu
maps = [torch.randn(2, 256, 800 // s, 1216 // s).to(memory_format=torch.channels_last) for s in (4, 8, 16, 32)]
low = torch.rand(1024, 2) * 700
boxes = torch.cat([torch.arange(1024)[:, None] % 2, low, low + 16 + torch.rand(1024, 2) * 300], 1)
geom = ([1 / 4, 1 / 8, 1 / 16, 1 / 32], "align", 7, 7, 2, 2, 5, 224.0, 4.0)
grad = torch.randn(1024, 256, 7, 7)
small = [f[:, :, :8, :8] for f in maps]
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
cpu.linear_forward(small, boxes, False, *geom), cpu.linear_backward_features(grad, small, boxes, *geom)
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
ballast = torch.ones((peak() - now) // 4 + 1024)  # what comes now shows in the peak
before = peak()
out = cpu.linear_forward(maps, boxes, False, *geom)
gradients = cpu.linear_backward_features(grad, maps, boxes, *geom)
print(peak() - before - out.nbytes - sum(g.nbytes for g in gradients))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_extra_memory_is_a_few_megabytes():
    run = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 8 << 20, f"{int(run.stdout) / 2**20:.1f} MB"
