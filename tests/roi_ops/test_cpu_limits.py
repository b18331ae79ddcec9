"""The C++ kernels where things get large: maps, offsets, boxes, memory."""

import subprocess
import sys

import pytest
import torch
from cases import FORMS, rois
from kernel_problems import Problem

from roi_ops import cpu
from roi_ops.geometry import LINEAR_KINDS
from roi_ops.maps import describe

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.why_not()))


@pytest.mark.parametrize("kind", LINEAR_KINDS)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_forward_and_backward_are_adjoint_on_large_maps(kind, layout):
    """<G, A F> = <A^T G, F>; the gradient is large enough to be recycled."""
    boxes = rois([f for f in FORMS if f != "huge"] * 2, (260, 300), 1, 1, 0.25)
    problem = Problem(kind, torch.float64, (1, 64, 260, 300), [layout], boxes, (7, 7), 2, scale=0.25)
    out = cpu.linear_forward(problem.features, problem.boxes, False, *problem.geom)
    (gradient,) = cpu.linear_backward_features(problem.grad, problem.boxes, *describe(problem.features), *problem.geom)
    assert gradient.nbytes >= 32 << 20
    assert gradient.stride() == problem.features[0].stride()
    left, right = (out * problem.grad).sum().item(), (gradient * problem.features[0]).sum().item()
    assert left == pytest.approx(right, rel=1e-10)
    gradient.add_(1)  # it can be written
    assert gradient.clone().sum().item() == pytest.approx(gradient.sum().item())


MEASURE = """
import torch
from roi_ops import cpu
from roi_ops.maps import describe
maps = [torch.randn(2, 256, 800 // s, 1216 // s).to(memory_format=torch.channels_last) for s in (4, 8, 16, 32)]
low = torch.rand(1024, 2) * 700
boxes = torch.cat([torch.arange(1024)[:, None] % 2, low, low + 16 + torch.rand(1024, 2) * 300], 1)
geom = ([1 / 4, 1 / 8, 1 / 16, 1 / 32], "align", 7, 7, 2, 2, 5, 224.0, 4.0)
grad = torch.randn(1024, 256, 7, 7)
small = [f[:, :, :8, :8] for f in maps]
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
cpu.linear_forward(small, boxes, False, *geom), cpu.linear_backward_features(grad, boxes, *describe(small), *geom)
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
ballast = torch.ones((peak() - now) // 4 + 1024)  # what comes now shows in the peak
before = peak()
out = cpu.linear_forward(maps, boxes, False, *geom)
gradients = cpu.linear_backward_features(grad, boxes, *describe(maps), *geom)
print(peak() - before - out.nbytes - sum(g.nbytes for g in gradients))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_extra_memory_is_a_few_megabytes():
    run = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 8 << 20, f"{int(run.stdout) / 2**20:.1f} MB"
