"""Eager calls go straight to the backend; whatever has to see the operator sees it; both compute the same."""

import collections
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import roi_ops
from roi_ops import backends, cuda, ops
from roi_ops.cuda.operators import Operators

SCALES = [0.25, 0.125]
BOXES = torch.tensor([[0, 1.3, 2.1, 20.7, 25.2], [1, 4.4, 3.3, 30.1, 14.9], [1, 0.2, 0.3, 60.9, 65.1]])
FORWARD = torch.ops.roi_ops.linear_forward.default


def maps(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, n, n + 1, generator=generator).to(device) for n in (8, 4)]


def align(fine, coarse, boxes=BOXES, mode="avg"):
    return roi_ops.multiscale_roi_align(
        [fine, coarse], boxes, (2, 3), SCALES, 2, canonical_scale=28, canonical_level=2, mode=mode
    )


def pool(fine, coarse, boxes=BOXES):
    return roi_ops.multiscale_roi_pool([fine, coarse], boxes, (2, 3), SCALES, canonical_scale=28, canonical_level=2)


OPERATORS = {"align": align, "align_max": lambda *args: align(*args, mode="max"), "pool": pool}


class Seen(TorchDispatchMode):
    """Keeps the names of the operators of this project that it sees."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "roi_ops":
            self.names.append(func._schema.name.removeprefix("roi_ops::"))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_operator(monkeypatch):
    """Fails the test if the registered operators are called."""
    for name in ops.OPERATORS:
        monkeypatch.setitem(ops.OPERATORS, name, lambda *args: pytest.fail("a registered operator was called"))


def derivatives(function, kind, device):
    """Result, first derivatives, and derivatives of the first ones by the result's gradient, maps and boxes."""
    leaves = [m.requires_grad_() for m in maps(device)]
    boxes = BOXES.clone().to(device).requires_grad_(kind != "pool")
    inputs = [*leaves, boxes] if kind != "pool" else leaves
    out = function(*leaves, boxes)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    first = torch.autograd.grad(out, inputs, grad, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), [grad, *inputs], allow_unused=True)
    plain = torch.autograd.grad(function(*leaves, boxes), inputs, grad.detach())
    return [out, *first, *second, *plain]


@pytest.mark.parametrize("kind", OPERATORS)
def test_eager_calls_and_operators_are_equal_to_the_bit(device, kind):
    eager = derivatives(OPERATORS[kind], kind, device)
    with Seen() as seen:
        through_operators = derivatives(OPERATORS[kind], kind, device)
    family = "linear" if kind == "align" else "max"
    assert {f"{family}_forward", f"{family}_backward_features"} <= set(seen.names)
    assert len(eager) == len(through_operators)
    for ours, theirs in zip(eager, through_operators, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("parameter", [False, True])
def test_an_eager_step_needs_no_operator(no_operator, kind, parameter):
    leaves = [torch.nn.Parameter(m) if parameter else m.requires_grad_() for m in maps()]
    OPERATORS[kind](*leaves).sum().backward()
    assert all(leaf.grad.any() for leaf in leaves)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu")):
        with context:
            assert OPERATORS[kind](*maps()).any()


def calls_of_pytorch(function):
    """How often a function calls each of PyTorch's own operators, those inside others not counted."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    inside = {
        id(child) for event in profile.events() if event.name.startswith("aten::") for child in event.cpu_children
    }
    names = [event.name for event in profile.events() if id(event) not in inside]
    return collections.Counter(name.removeprefix("aten::") for name in names if name.startswith("aten::"))


@pytest.mark.parametrize("kind", OPERATORS)
def test_an_eager_call_of_kernels_asks_pytorch_for_memory_and_little_else(monkeypatch, kind):
    """The calls decide how long the CPU takes. One for each result and for the workspace of the backward pass; the
    boxes, and the gradient, are converted to their dtypes, which copies nothing. The launcher does nothing."""
    kernels = Operators(SimpleNamespace(launch=lambda *arguments: None))
    monkeypatch.setattr(cuda, "_operators", lambda: kernels)
    monkeypatch.setattr(backends, "select", lambda device_type: cuda)
    leaves, found = [m.requires_grad_() for m in maps()], []
    results = 1 if kind == "align" else 2
    forward = calls_of_pytorch(lambda: found.append(OPERATORS[kind](*leaves)))
    grad = torch.ones_like(found[0])
    backward = calls_of_pytorch(lambda: torch.autograd.grad(found[0], leaves, grad))
    for calls, allocated in ((forward, results), (backward, len(leaves) + 1)):
        assert set(calls) <= {"to", "empty", "empty_like", "empty_strided"}
        assert calls["to"] <= 2
        assert sum(calls.values()) - calls["to"] == allocated


def test_checkpoints_and_hooks_of_saved_tensors(no_operator):
    leaves = [m.requires_grad_() for m in maps()]
    expected = torch.autograd.grad(align(*leaves).sum(), leaves)
    again = torch.autograd.grad(checkpoint(align, *leaves, use_reentrant=False).sum(), leaves)
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t.clone(), lambda t: t):
        hooked = torch.autograd.grad(align(*leaves).sum(), leaves)
    assert len(packed) == 1  # the boxes: no gradient that is wanted depends on the values of the maps
    for results in zip(expected, again, hooked, strict=True):
        assert all(torch.equal(r, results[0]) for r in results)


@pytest.mark.parametrize("frozen", ["maps", "boxes"])
def test_only_wanted_gradients_are_computed(monkeypatch, frozen):
    unwanted = {"maps": "linear_backward_features", "boxes": "linear_backward_boxes"}[frozen]
    backend = roi_ops.backends.select("cpu")
    monkeypatch.setattr(backend, unwanted, lambda *args: pytest.fail("nobody wants this gradient"))
    for mode in (contextlib.nullcontext(), Seen()):
        leaves, boxes = [m.requires_grad_(frozen != "maps") for m in maps()], BOXES.clone().requires_grad_()
        with mode:
            align(*leaves, boxes if frozen != "boxes" else BOXES).sum().backward()
        assert all((leaf.grad is None) == (frozen == "maps") for leaf in leaves)


def test_fake_tensors_stay_fake():
    with FakeTensorMode() as mode:
        out = align(*(mode.from_tensor(m) for m in maps()), mode.from_tensor(BOXES))
    assert type(out).__name__ == "FakeTensor"
    outside = align(*(mode.from_tensor(m) for m in maps()), mode.from_tensor(BOXES))
    assert type(outside).__name__ == "FakeTensor"
    assert out.shape == outside.shape == (3, 4, 2, 3)


def targets(graph):
    return [node.target for node in graph.nodes]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic", "pre_dispatch"])
def test_make_fx_records_the_operator(mode):
    options = {"pre_dispatch": True} if mode == "pre_dispatch" else {"tracing_mode": mode}
    traced = make_fx(lambda fine, coarse, boxes: align(fine, coarse, boxes), **options)(*maps(), BOXES)
    assert FORWARD in targets(traced.graph)


def test_make_fx_records_the_derivative():
    def gradient(fine, coarse):
        return torch.autograd.grad(align(fine, coarse).sum(), [fine, coarse])

    graph = make_fx(gradient)(*(m.requires_grad_() for m in maps())).graph
    assert torch.ops.roi_ops.linear_backward_features.default in targets(graph)


@pytest.mark.parametrize("strict", [False, True])
def test_export_records_the_operator(strict):
    class Module(torch.nn.Module):
        def forward(self, fine, coarse):
            return align(fine, coarse)

    exported = torch.export.export(Module(), tuple(maps()), strict=strict)
    assert FORWARD in targets(exported.graph)
    assert torch.equal(exported.module()(*maps()), align(*maps()))


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_jit_trace_records_the_operator():
    traced = torch.jit.trace(align, tuple(maps()))
    assert "roi_ops::linear_forward" in str(traced.graph)


def test_functionalised_tensors_reach_the_operator():
    with Seen() as seen:
        out = torch.func.functionalize(align)(*maps())
    assert seen.names == ["linear_forward"]
    assert torch.equal(out, align(*maps()))


def test_function_modes_and_subclasses_see_the_operator():
    calls = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    with Mode():
        align(*maps())
    assert FORWARD in calls
    calls.clear()
    align(*(m.as_subclass(Subclass) for m in maps()))
    assert FORWARD in calls


def test_lazily_negated_and_zero_tensors():
    fine, coarse = maps()
    assert torch.equal(align(torch._neg_view(fine), torch._neg_view(coarse)), align(-fine, -coarse))
    boxes = torch._neg_view(-BOXES)
    assert torch.equal(align(fine, coarse, boxes), align(fine, coarse))
    zero = [torch._efficientzerotensor(m.shape) for m in (fine, coarse)]
    assert not align(*zero).any()


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_tangent_of_the_gradient_is_refused(kind):
    """Forward over reverse: the derivative is an operator too, and would drop the tangent without a word."""
    leaves = [m.requires_grad_() for m in maps()]
    out = OPERATORS[kind](*leaves)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out))
        for create_graph in (False, True):
            with pytest.raises(NotImplementedError, match="forward-mode"):
                torch.autograd.grad(out, leaves, dual, retain_graph=True, create_graph=create_graph)
        assert torch.autograd.grad(out, leaves, torch.ones_like(out))[0].any()


# Takes one of PyTorch's private names away, which a coming version may not have, while roi_ops is imported: other parts
# of this PyTorch need it afterwards.
WITHOUT = """
import sys, torch
module, name = sys.argv[1].rsplit(".", 1)
kept = getattr(eval(module), name)
delattr(eval(module), name)
from roi_ops import dispatch
setattr(eval(module), name, kept)
from test_dispatch import OPERATORS, Seen, maps
assert not dispatch.HAS_SHORTCUT
for operator in OPERATORS.values():
    leaves = [m.requires_grad_() for m in maps()]
    with Seen() as seen:
        out = operator(*leaves)
        found = torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert len(seen.names) == 2, seen.names
    print(out.double().sum().item(), *(g.double().pow(2).sum().item() for g in found))
"""


@pytest.mark.parametrize(
    "name",
    ["torch._C._dispatch_keys", "torch._C._dispatch_tls_local_include_set", "torch.autograd._profiler_enabled"],
)
def test_a_pytorch_without_a_private_name_takes_the_registered_operators(name):
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parents[1])])}
    done = subprocess.run([sys.executable, "-c", WITHOUT, name], capture_output=True, text=True, env=environment,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    for operator, (total, *squares) in zip(OPERATORS.values(), lines, strict=True):
        leaves = [m.requires_grad_() for m in maps()]
        out = operator(*leaves)
        assert total == out.double().sum().item()
        found = torch.autograd.grad(out, leaves, torch.ones_like(out))
        assert squares == [g.double().pow(2).sum().item() for g in found]


def test_nothing_is_recorded_in_the_body_of_another_operator():
    recorded = []

    @torch.library.custom_op("roi_ops_test::body", mutates_args=())
    def body(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            out = align(fine, coarse)
        recorded.append(out.requires_grad)
        return out

    assert torch.equal(body(*(m.requires_grad_() for m in maps())), align(*maps()))
    assert recorded == [False]


def test_a_profile_names_the_operator(no_operator):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        align(*(m.requires_grad_() for m in maps())).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"roi_ops::linear_forward", "roi_ops::linear_backward_features"} <= names
