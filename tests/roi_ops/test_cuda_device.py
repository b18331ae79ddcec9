"""What only a device can show: no waiting, graphs, sizes beyond 2^31. Parity is in the tests that take ``device``."""

import pytest
import torch

import roi_ops
from roi_ops import backends

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _kernels():
    reason = backends.why_not("cuda")
    if reason is not None:
        pytest.skip(f"backend cuda: {reason}")
    with backends.use_backend("cuda"):
        yield


def example(count=300, channels=64):
    """Two images of 200 x 160 features, some of the boxes crowded; and a gradient."""
    generator = torch.Generator("cuda").manual_seed(0)
    f = torch.randn(2, channels, 200, 160, device="cuda", generator=generator)
    corner = torch.rand(count, 2, device="cuda", generator=generator) * 100
    corner[: count // 2] /= 20
    index = torch.randint(2, (count, 1), device="cuda", generator=generator)
    boxes = torch.cat([index, corner, corner + 20], 1)
    return f, boxes, torch.randn(count, channels, 7, 7, device="cuda", generator=generator)


def step(f, boxes, grad):
    """Forward and backward of a linear operator and of a maximum."""
    results = []
    for pool in (lambda leaf: roi_ops.roi_align(leaf, boxes, 7, 1.0, 2), lambda leaf: roi_ops.roi_pool(leaf, boxes, 7)):
        leaf = f.detach().requires_grad_()
        out = pool(leaf)
        results += [out.detach(), *torch.autograd.grad(out, leaf, grad)]
    return results


def test_nothing_waits_for_the_device():
    arguments = example()
    step(*arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_replays_with_new_values():
    f, boxes, grad = example()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step(f, boxes, grad)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(f, boxes, grad)
    f.mul_(-2)
    boxes[:, 1:] += 3
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(f, boxes, grad), strict=True))


def test_two_runs_are_equal_to_the_bit():
    arguments = example(2000)
    first, second = step(*arguments), step(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_map_beyond_two_to_the_31_elements():
    if torch.cuda.get_device_properties(0).total_memory < 20 << 30:
        pytest.skip("the device has less than 20 GiB")
    f = torch.zeros(2, 129, 2900, 2900, device="cuda", dtype=torch.bfloat16)
    f[1, -1, -20:, -20:] = 3
    boxes = torch.tensor([[1.0, 2884, 2884, 2896, 2896]], device="cuda")
    out = roi_ops.roi_align(f, boxes, 2, 1.0, 2)
    assert (out[0, -1] == 3).all()
    assert not out[0, :-1].any()


def test_a_million_boxes():
    f, boxes, _ = example(1000, channels=4)
    many = boxes.repeat(1000, 1)
    assert torch.equal(roi_ops.roi_align(f, many, 2, 1.0, 2)[-1000:], roi_ops.roi_align(f, boxes, 2, 1.0, 2))
