"""What is kept for the derivatives, and what they are where no box contributes."""

import pytest
import torch
import torchvision.ops
from torch._functorch.aot_autograd import aot_function

import roi_ops
from roi_ops import dispatch
from roi_ops.modules import KINDS, make_pooler

BOXES = torch.tensor([[0, 1.3, 2.1, 9.7, 8.2], [1, 0.4, 3.3, 5.1, 7.9]])
# The compiled graph, the eager shortcut, and the operators as PyTorch registers them.
ROUTES = ("eager", "registered", "compiled")


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """What a function becomes that takes this way to the operators."""
    if request.param == "registered":
        monkeypatch.setattr(dispatch, "HAS_SHORTCUT", False)
    torch._dynamo.reset()
    return (lambda f: torch.compile(f, backend="aot_eager")) if request.param == "compiled" else lambda f: f


def pooled(kind, f, boxes, module=roi_ops):
    if kind == "pool":
        return module.roi_pool(f, boxes, 3)
    if kind == "prroi":
        return module.prroi_pool(f, boxes, 3)
    more = {"mode": "max"} if kind == "align_max" else {}
    return module.roi_align(f, boxes, 3, 1.0, 2, kind == "align_aligned", **more)


def kept(function, *arguments):
    """Numbers of elements of the tensors that a call keeps for its backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        function(*arguments)
    return sorted(sizes)


@pytest.mark.parametrize("kind", ["align", "align_aligned", "pool"])
def test_a_call_keeps_what_torchvision_keeps(kind, route):
    f = torch.randn(2, 4, 40, 40, requires_grad=True)
    theirs = kept(lambda: pooled(kind, f, BOXES, torchvision.ops))
    assert kept(route(lambda f: pooled(kind, f, BOXES)), f) == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_kept_for_gradients_of_boxes_only(kind, route):
    f = torch.randn(2, 4, 40, 40, requires_grad=True)
    function = route(lambda f, boxes: pooled(kind, f, boxes))
    assert f.numel() not in kept(function, f, BOXES)
    assert (f.numel() in kept(function, f, BOXES.clone().requires_grad_())) == (kind != "pool")


@pytest.mark.parametrize("kind", ["align", "pool"])
def test_maps_may_be_changed_in_place_as_with_torchvision(kind, route):
    start = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    found = []
    for function in (route(lambda f: pooled(kind, f, BOXES)), lambda f: pooled(kind, f, BOXES, torchvision.ops)):
        leaf = start.clone().requires_grad_()
        f = leaf * 1
        out = function(f)
        (out.sum() + f.relu_().sum()).backward()
        found.append(leaf.grad)
    assert torch.allclose(*found, atol=1e-5)


def test_a_double_backward_keeps_the_gradient_for_boxes_only():
    f, boxes = torch.randn(2, 4, 40, 40, requires_grad=True), BOXES.clone()
    for wanted in (False, True):
        out = pooled("align", f, boxes.requires_grad_(wanted))
        grad = torch.ones_like(out, requires_grad=True)
        sizes = kept(lambda out=out, grad=grad: torch.autograd.grad(out, f, grad, create_graph=True))
        assert (grad.numel() in sizes) == wanted
        assert wanted or f.numel() not in sizes


# (images, channels, height), boxes, number of maps
EMPTY = {
    "no boxes": ((2, 3, 8), torch.zeros(0, 5), 1),
    "no channels": ((2, 0, 8), BOXES, 1),
    "no images": ((0, 3, 8), torch.zeros(0, 5), 1),
    "an empty map": ((2, 3, 0), BOXES, 1),
    "infinite": ((2, 3, 8), BOXES * torch.tensor([1, 1, 1, float("inf"), 1]), 1),
    "inverted": ((2, 3, 8), BOXES[:, [0, 3, 2, 1, 4]], 2),
}


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "pool"])
@pytest.mark.parametrize("frozen", [False, True])
def test_derivatives_where_no_box_contributes_are_zero_in_every_order(device, kind, case, frozen):
    """As those of PyTorch's linear operators are: zeros of the shapes of what is differentiated."""
    (n, c, h), boxes, count = EMPTY[case]
    maps = [torch.ones(n, c, h >> i, 8 >> i, device=device, requires_grad=not frozen) for i in range(count)]
    boxes = boxes.clone().to(device).requires_grad_()
    names = [str(i) for i in range(count)]
    pooler = make_pooler(kind, names, 2, canonical_scale=4, canonical_level=1, spatial_scales=[1.0, 0.5][:count])
    out = pooler.pool(maps, boxes, pooler.spatial_scales)
    weight = torch.ones_like(out, requires_grad=True)
    leaves = [boxes, *([] if frozen else maps)]
    found = torch.autograd.grad(out, leaves, weight, create_graph=True)
    for _ in range(2):
        assert [g.shape for g in found] == [leaf.shape for leaf in leaves]
        assert not any(g.any() for g in found)
        found = torch.autograd.grad(found[0].sum(), leaves, create_graph=True)


def test_a_third_derivative_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 2, 12, 12, dtype=torch.float64, generator=generator)

    def second(corners):
        pooled = roi_ops.prroi_pool(f, [corners[:1], corners[1:]], 2)
        (first,) = torch.autograd.grad(pooled.pow(2).sum(), corners, create_graph=True)
        return torch.autograd.grad(first.sum(), corners, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, BOXES[:, 1:].double().requires_grad_(), fast_mode=True)


@pytest.mark.filterwarnings("ignore:Error detected in")
@pytest.mark.parametrize("name", ["linear_backward_boxes", "max_backward_boxes"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_derivative_of_a_box_gradient_is_refused_where_it_is_traced(name, count):
    f, boxes = torch.randn(2, 4, 12, 12), BOXES.repeat(2, 1)[:count].requires_grad_()
    geometry = ([1.0], "align" if name.startswith("linear") else "align_max", 2, 2, 2, 0, 0, 224.0, 4.0)
    grad = torch.randn(count, 4, 2, 2)
    argmax = [] if name.startswith("linear") else [torch.zeros(count, 4, 2, 2, dtype=torch.int32)]
    operator = lambda f, boxes, *rest: getattr(torch.ops.roi_ops, name)(*rest, [f], boxes, *geometry)
    for dynamic in (False, True):
        with pytest.raises(NotImplementedError, match=name):
            aot_function(operator, lambda graph, _: graph, dynamic=dynamic)(f, boxes, grad, *argmax)
