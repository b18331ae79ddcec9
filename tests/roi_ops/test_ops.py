"""What PyTorch asks of an operator: schema, fake kernels, compile, no silent wrong derivative; backends."""

import os
import subprocess
import sys
import threading

import pytest
import torch

import roi_ops
from roi_ops import backends
from roi_ops.maps import describe

OPERATORS = torch.ops.roi_ops
GEOMETRY = ([0.25, 0.125], 2, 3, 2, 2, 3, 28.0, 2.0)


def geometry(kind):
    scales, *rest = GEOMETRY
    return scales, kind, *rest


@pytest.fixture
def tensors(device):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, n, n + 1, generator=generator).to(device) for n in (8, 4)]
    boxes = torch.tensor([[0, 1.3, 2.1, 20.7, 25.2], [1, 4.4, 3.3, 30.1, 14.9], [1, 0.2, 0.3, 50.9, 55.1]])
    return maps, boxes.to(device), torch.randn(3, 4, 2, 3, generator=generator).to(device)


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck_forward_with_gradients(tensors, channels_last):
    maps, boxes, _ = tensors
    for t in (*maps, boxes):
        t.requires_grad_()
    torch.library.opcheck(OPERATORS.linear_forward.default, (maps, boxes, channels_last, *geometry("align")))
    torch.library.opcheck(OPERATORS.max_forward.default, (maps, boxes, channels_last, *geometry("align_max")))
    boxes.requires_grad_(False)
    torch.library.opcheck(OPERATORS.max_forward.default, (maps, boxes, channels_last, *geometry("pool")))


@pytest.mark.slow
def test_opcheck_derivatives(tensors):
    maps, boxes, grad = tensors
    _, argmax = OPERATORS.max_forward.default(maps, boxes, False, *geometry("align_max"))
    torch.library.opcheck(OPERATORS.linear_backward_boxes.default, (grad, maps, boxes, *geometry("prroi")))
    torch.library.opcheck(OPERATORS.max_backward_boxes.default, (grad, argmax, maps, boxes, *geometry("align_max")))
    for t in (grad, *maps):
        t.requires_grad_()
    of_maps = describe(maps)
    torch.library.opcheck(OPERATORS.linear_backward_features.default, (grad, boxes, *of_maps, *geometry("align")))
    of_maxima = (grad, argmax, boxes, *of_maps, *geometry("align_max"))
    torch.library.opcheck(OPERATORS.max_backward_features.default, of_maxima)
    torch.library.opcheck(OPERATORS.max_gather.default, (maps, argmax, boxes, *geometry("align_max")))


@pytest.mark.slow
# PyTorch's cache on disk finds backward graphs by the forward graph: also those of other versions of the operators.
@torch.compiler.config.patch(force_disable_caches=True)
def test_compiles_in_one_graph_from_the_first_call(tensors):
    maps, _, _ = tensors

    def loss(fine, coarse, boxes):
        out = roi_ops.multiscale_roi_align([fine, coarse], boxes, (2, 3), [0.25, 0.125], 2)
        return (out * out).sum() + roi_ops.multiscale_roi_pool([fine, coarse], boxes, 2, [0.25, 0.125]).sum()

    compiled = torch.compile(loss, fullgraph=True)
    for counts in ((5, 3), (2, 9)):
        boxes = [torch.rand(n, 4, device=maps[0].device) * 30 for n in counts]
        results = []
        for f in (compiled, loss):
            leaves = [m.detach().clone().requires_grad_() for m in maps]
            value = f(*leaves, boxes)
            results.append((value, *torch.autograd.grad(value, leaves)))
        for ours, eager in zip(*results, strict=True):
            assert torch.allclose(ours, eager, rtol=1e-5, atol=1e-5)


def test_forward_mode_is_refused_rather_than_zero(tensors):
    maps, boxes, _ = tensors
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda f: roi_ops.roi_align(f, boxes, 2), (maps[0],), (maps[0],))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda b: roi_ops.roi_align(maps[0], b, 2), (boxes,), (boxes,))


def test_autocast_keeps_the_features_dtype(tensors):
    maps, boxes, _ = tensors
    with torch.autocast(maps[0].device.type, dtype=torch.bfloat16):
        assert roi_ops.roi_align(maps[0].bfloat16(), boxes, 2).dtype == torch.bfloat16
        assert roi_ops.roi_align(maps[0], boxes, 2).dtype == torch.float32


def test_deterministic_algorithms_are_allowed(tensors):
    maps, boxes, _ = tensors
    torch.use_deterministic_algorithms(True)
    try:
        f = maps[0].requires_grad_()
        roi_ops.roi_align(f, boxes, 2).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert f.grad.any()


def test_use_backend_rejects_unknown_names():
    with pytest.raises(ValueError, match="known: reference, cpu, cuda"), roi_ops.use_backend("gpu"):
        pass
    assert backends.select("cpu").__name__ in ("roi_ops.cpu", "roi_ops.reference")


def test_a_forced_backend_that_does_not_fit_is_an_error():
    f, boxes = torch.rand(1, 1, 4, 4), torch.zeros(1, 5)
    with roi_ops.use_backend("cuda"), pytest.raises(RuntimeError, match="'cuda' is forced"):
        roi_ops.roi_align(f, boxes, 2)


def test_the_environment_variable_forces_a_backend():
    code = "import roi_ops.backends as b; print(b.select('cpu').__name__)"
    run = lambda value: subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ROI_OPS_BACKEND": value},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run("reference").stdout.strip() == "roi_ops.reference"
    assert "known: reference, cpu, cuda" in run("fast").stderr


def test_threads_force_backends_independently():
    both, results = threading.Barrier(2, timeout=30), {}

    def work(name):
        with roi_ops.use_backend(name):
            both.wait()  # both are in their blocks
            results[name] = backends.forced()
            both.wait()
        results[name, "after"] = backends.forced()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("reference", "cpu")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = backends.forced()
    assert results == {"reference": "reference", "cpu": "cpu", ("reference", "after"): before, ("cpu", "after"): before}


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_backward_outside_the_block_uses_the_backend_of_the_forward(monkeypatch, create_graph):
    """The CPU kernels are made to fail, so whatever asks them is found."""
    monkeypatch.setattr(backends.cpu, "available", lambda: True)
    for name in ("linear_forward", "linear_backward_features", "max_backward_features", "max_gather"):
        monkeypatch.setattr(backends.cpu, name, lambda *args: pytest.fail("the CPU kernels were asked"))
    f, boxes = torch.rand(1, 1, 8, 8, requires_grad=True), torch.tensor([[0.0, 1, 1, 6, 6]])
    with roi_ops.use_backend("reference"):
        pooled = [roi_ops.roi_align(f, boxes, 2), roi_ops.roi_pool(f, boxes, 2)]
    found = []

    def backward():
        for out in pooled:
            weight = torch.ones_like(out, requires_grad=True)
            (gradient,) = torch.autograd.grad(out, f, weight, create_graph=create_graph)
            found.append(gradient)
            if create_graph:
                found.append(torch.autograd.grad(gradient.sum(), weight)[0])

    thread = threading.Thread(target=backward)
    thread.start()
    thread.join()
    assert len(found) == 2 * (1 + create_graph)
    assert all(gradient.any() for gradient in found)


def test_importing_the_functions_does_not_import_torchvision():
    there = "print('torchvision' in sys.modules)"
    code = f"import sys, roi_ops; {there}; roi_ops.RoIAlign; {there}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "True"]


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_what_docs_say_is_traced_is_computed():
    maps, boxes = torch.rand(2, 1, 2, 8, 8), torch.tensor([[0.0, 0, 0, 5, 5]])
    traced = torch.jit.trace(lambda f: roi_ops.roi_align(f, boxes, 2), maps[0])
    assert torch.equal(traced(maps[1]), roi_ops.roi_align(maps[1], boxes, 2))
