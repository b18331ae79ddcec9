"""What only a GPU can show: no waiting, streams, graphs, large sizes. Parity is in the tests for every backend."""

import pytest
import torch

import roi_ops
from roi_ops import backends

pytestmark = pytest.mark.gpu
SCALES = [1.0, 0.5, 0.25, 0.125]


@pytest.fixture(autouse=True)
def _kernels():
    reason = backends.why_not("cuda")
    if reason is not None:
        pytest.skip(f"backend cuda: {reason}")
    with backends.use_backend("cuda"):
        yield


def example(count=300, channels=64, device="cuda"):
    """Four levels of two images, some of the boxes crowded; boxes and a gradient."""
    generator = torch.Generator(device).manual_seed(0)
    maps = [torch.randn(2, channels, 200 >> i, 160 >> i, device=device, generator=generator) for i in range(4)]
    corner = torch.rand(count, 2, device=device, generator=generator) * 100
    corner[: count // 2] /= 20
    index = torch.randint(2, (count, 1), device=device, generator=generator)
    boxes = torch.cat([index, corner, corner + 20 + torch.rand(count, 2, device=device, generator=generator) * 60], 1)
    return maps, boxes, torch.randn(count, channels, 7, 7, device=device, generator=generator)


def align(maps, boxes):
    return roi_ops.multiscale_roi_align(maps, boxes, 7, SCALES, 2, canonical_scale=40.0, canonical_level=1.0)


def pool(maps, boxes):
    return roi_ops.multiscale_roi_pool(maps, boxes, 7, SCALES, canonical_scale=40.0, canonical_level=1.0)


def step(maps, boxes, grad):
    """Forward and backward, with respect to maps and boxes, of a linear operator and of a maximum."""
    results = []
    for operator in (align, pool):
        leaves = [f.detach().requires_grad_() for f in maps]
        corners = boxes.detach().requires_grad_(operator is align)
        out = operator(leaves, corners)
        wanted = [*leaves, corners] if operator is align else leaves
        results += [out.detach(), *torch.autograd.grad(out, wanted, grad)]
    return results


def assert_equal(first, second):
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_waits_for_the_device():
    arguments = example()
    step(*arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_replays_with_new_values():
    maps, boxes, grad = example()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(maps, boxes, grad)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(maps, boxes, grad)
    for f in maps:
        f.mul_(-2)
    boxes[:, 1:] += 3
    graph.replay()
    torch.cuda.synchronize()
    assert_equal(captured, step(maps, boxes, grad))


def test_a_kernel_may_be_loaded_while_a_graph_is_captured():
    """float64 kernels of planar maps, which no other test here has loaded before this one ran."""
    f, boxes = torch.randn(1, 3, 9, 9, device="cuda", dtype=torch.float64), torch.ones(1, 5, device="cuda")
    boxes[:, 0] = 0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = roi_ops.roi_align(f, boxes, 3, 1.0, 2, mode="max")
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, roi_ops.roi_align(f, boxes, 3, 1.0, 2, mode="max"))


def test_launches_follow_the_current_stream():
    """The stream first waits a while and then writes the map: a launch elsewhere would read it too early."""
    maps, boxes, _ = example()
    expected = align([f * 2 for f in maps], boxes)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        for f in maps:
            f.mul_(2)
        out = align(maps, boxes)
    side.synchronize()
    assert torch.equal(out, expected)


def test_launches_follow_the_tensors_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    first, second = (step(*example(device=f"cuda:{i}")) for i in range(2))
    assert {t.device.index for t in second} == {1}
    assert torch.cuda.current_device() == 0
    assert [t.shape for t in first] == [t.shape for t in second]
    maps, boxes, _ = example(device="cuda:1")
    assert torch.equal(align(maps, boxes).cpu(), align([f.to("cuda:0") for f in maps], boxes.to("cuda:0")).cpu())


def test_two_runs_are_equal_to_the_bit():
    arguments = example(2000)
    assert_equal(step(*arguments), step(*arguments))


def test_deterministic_algorithms_change_nothing():
    arguments = example()
    plain = step(*arguments)
    torch.use_deterministic_algorithms(True)
    try:
        assert_equal(step(*arguments), plain)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_order_of_images_changes_nothing():
    maps, boxes, grad = example(500)
    swapped = boxes.clone()
    swapped[:, 0] = 1 - swapped[:, 0]
    for a, b in zip(step(maps, boxes, grad), step([f.flip(0) for f in maps], swapped, grad), strict=True):
        if a.shape == b.shape == boxes.shape or a.shape == grad.shape:
            assert torch.equal(a, b)
        else:
            assert torch.equal(a, b.flip(0))


def test_a_map_beyond_two_to_the_31_elements():
    if torch.cuda.get_device_properties(0).total_memory < 30 << 30:
        pytest.skip("the device has less than 30 GiB")
    f = torch.zeros(2, 129, 2900, 2900, device="cuda", dtype=torch.bfloat16)
    f[1, -1, -20:, -20:] = 3
    f.requires_grad_()
    boxes = torch.tensor([[1.0, 2884, 2884, 2896, 2896]], device="cuda")
    out = roi_ops.roi_align(f, boxes, 2, 1.0, 2)
    assert (out[0, -1] == 3).all()
    assert not out[0, :-1].any()
    (gradient,) = torch.autograd.grad(out, f, torch.ones_like(out))
    assert gradient[1, -1].float().sum().item() == pytest.approx(4, rel=0.02)
    assert not gradient[0].any()


def test_a_million_boxes():
    f = torch.randn(1, 4, 200, 160, device="cuda").requires_grad_()
    corner = torch.rand(1000, 2, device="cuda") * 100
    boxes = torch.cat([torch.zeros(1000, 1, device="cuda"), corner, corner + 20], 1)
    out = roi_ops.roi_align(f, boxes.repeat(1000, 1), 2, 1.0, 2)
    few = roi_ops.roi_align(f, boxes, 2, 1.0, 2)
    assert torch.equal(out[-1000:], few)
    (many,) = torch.autograd.grad(out.sum() / 1000, f)
    (one,) = torch.autograd.grad(few.sum(), f)
    assert torch.allclose(many, one, rtol=1e-3, atol=1e-3)
