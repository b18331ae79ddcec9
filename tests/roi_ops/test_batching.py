"""torch.vmap, gradients by the batch and the transforms of torch.func, beside loops, torch.autograd and torchvision."""

import itertools

import pytest
import torch
import torchvision.ops
from cases import features

import roi_ops
from roi_ops.modules import KINDS

BATCH = 3
# Boxes of three samples: two levels, both images, one that leaves the map.
BOXES = torch.tensor(
    [[0, 0.3, 0.4, 3.1, 2.9], [1, 1.2, 0.7, 9.3, 8.6], [1, 2.1, 2.2, 4.4, 3.7], [0, -1.3, 3.6, 5.2, 11.9]],
    dtype=torch.float64,
) + torch.tensor([0, 0.11, 0.07, 0.13, 0.17]) * torch.arange(BATCH)[:, None, None]  # fmt: skip
BOXES[1, :, 0] = 1 - BOXES[1, :, 0]


def operator(kind):
    levels = {"canonical_scale": 6, "canonical_level": 1}
    if kind == "pool" or kind == "prroi":
        function = roi_ops.multiscale_roi_pool if kind == "pool" else roi_ops.multiscale_prroi_pool
        return lambda fine, coarse, boxes: function([fine, coarse], boxes, 2, [1, 0.5], **levels)
    levels |= {"aligned": kind == "align_aligned", "mode": "max" if kind == "align_max" else "avg"}
    return lambda fine, coarse, boxes: roi_ops.multiscale_roi_align([fine, coarse], boxes, 2, [1, 0.5], 2, **levels)


def samples(dims=(0, 0, 0)):
    """Maps of two levels and boxes, each for the whole batch or, where its dimension is None, for one sample."""
    tensors = features((BATCH, 2, 3, 10, 11), 0), features((BATCH, 2, 3, 5, 6), 1), BOXES
    return [t.clone() if dim == 0 else t[0].clone() for t, dim in zip(tensors, dims, strict=True)]


def looped(function, dims, arguments):
    pick = lambda i: [t[i] if dim == 0 else t for t, dim in zip(arguments, dims, strict=True)]
    return torch.stack([function(*pick(i)) for i in range(BATCH)])


@pytest.mark.parametrize("dims", [d for d in itertools.product((0, None), repeat=3) if any(x == 0 for x in d)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_vmap_is_a_loop(kind, dims):
    function = operator(kind)
    leaves = [t.requires_grad_(kind != "pool" or t.dim() > 3) for t in samples(dims)]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    ours, expected = torch.vmap(function, dims)(*leaves), looped(function, dims, leaves)
    assert torch.equal(ours, expected)
    weight = features(ours.shape, 2)
    for g, e in zip(*(torch.autograd.grad((out * weight).sum(), wanted) for out in (ours, expected)), strict=True):
        assert torch.allclose(g, e, atol=1e-12)


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("name", ["roi_align", "roi_pool"])
def test_vmap_is_that_of_torchvision(name, dims):
    maps, _, boxes = samples()
    ours, theirs = (lambda f, b, m=m: getattr(m, name)(f, b, (2, 3), 1.0) for m in (roi_ops, torchvision.ops))
    arguments = [t[0] if d is None else t.movedim(0, d) for t, d in zip((maps, boxes), dims, strict=True)]
    assert torch.allclose(torch.vmap(ours, dims)(*arguments), torch.vmap(theirs, dims)(*arguments), atol=1e-12)


def test_vmap_of_vmap_of_lists_and_of_channels_last():
    maps, _, boxes = samples()
    twice = torch.vmap(torch.vmap(lambda f, b: roi_ops.roi_align(f, b, 2), (None, 0)), (0, None))(maps, boxes)
    expected = [[roi_ops.roi_align(f, b, 2) for b in boxes] for f in maps]
    assert torch.equal(twice, torch.stack([torch.stack(row) for row in expected]))
    lists = [boxes[:, :1, 1:], boxes[:, 1:, 1:]]
    over_lists = torch.vmap(lambda f, a, b: roi_ops.roi_align(f, [a, b], 2, channels_last=True))(maps, *lists)
    expected = [roi_ops.roi_align(f, [a, b], 2) for f, a, b in zip(maps, *lists, strict=True)]
    assert torch.equal(over_lists, torch.stack(expected))


@pytest.mark.parametrize("index", [-1.0, 2.0, float("nan")])
def test_an_image_index_out_of_range_is_not_that_of_the_next_sample(index):
    maps, _, boxes = samples()
    boxes[1, 0, 0] = index
    with pytest.raises(ValueError, match="image index"):
        torch.vmap(lambda f, b: roi_ops.roi_align(f, b, 2))(maps, boxes)


def test_no_boxes_no_images_no_channels():
    for shape, count in (((3, 2, 4, 6, 6), 0), ((3, 0, 4, 6, 6), 0), ((3, 2, 0, 6, 6), 2)):
        out = torch.vmap(lambda f, b: roi_ops.roi_align(f, b, 2))(torch.zeros(shape), torch.ones(3, count, 5))
        assert out.shape == (3, count, shape[2], 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_gradients_is_a_loop(kind):
    leaves = [t[0].requires_grad_(kind != "pool" or i < 2) for i, t in enumerate(samples())]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    out = operator(kind)(*leaves)
    gradients = features((BATCH, *out.shape), 3)
    batched = torch.autograd.grad(out, wanted, gradients, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(out, wanted, g, retain_graph=True) for g in gradients]
    for found, *expected in zip(batched, *one_by_one, strict=True):
        assert torch.allclose(found, torch.stack(expected), atol=1e-12)


@pytest.mark.parametrize("name", ["roi_align", "roi_pool"])
def test_a_batch_of_gradients_is_that_of_torchvision(name):
    found = []
    for module in (roi_ops, torchvision.ops):
        f = samples()[0][0].requires_grad_()
        out = getattr(module, name)(f, BOXES[0], 2)
        found += torch.autograd.grad(out, f, features((BATCH, *out.shape), 3), is_grads_batched=True)
    assert torch.allclose(*found, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_torch_func_are_those_of_torch_autograd(kind):
    function, arguments = operator(kind), [t[0] for t in samples()]
    squares = lambda *tensors: function(*tensors).pow(2).sum()
    for i in range(2 if kind == "pool" else 3):
        of_one = lambda t, f, i=i: f(*arguments[:i], t, *arguments[i + 1 :])
        jacobian = torch.autograd.functional.jacobian(lambda t, of_one=of_one: of_one(t, function), arguments[i])
        assert torch.allclose(torch.func.jacrev(function, i)(*arguments), jacobian, atol=1e-12)
        leaf = arguments[i].clone().requires_grad_()
        first = torch.autograd.grad(of_one(leaf, squares), leaf, create_graph=True)[0]
        second = torch.autograd.grad(first.pow(2).sum(), leaf)[0]
        gradient = torch.func.grad(squares, i)
        assert torch.allclose(gradient(*arguments), first, atol=1e-12)
        of_gradient = torch.func.grad(lambda *tensors, g=gradient: g(*tensors).pow(2).sum(), i)
        assert torch.allclose(of_gradient(*arguments), second, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_of_grad_is_a_loop(kind):
    gradient = torch.func.grad(lambda *tensors: operator(kind)(*tensors).pow(2).sum(), 0 if kind == "pool" else 2)
    assert torch.allclose(torch.vmap(gradient)(*samples()), looped(gradient, (0, 0, 0), samples()), atol=1e-12)


def test_gradients_of_a_module_by_functional_call():
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = torch.nn.Conv2d(3, 2, 1).double(), roi_ops.RoIAlign(2, 1.0, 2)

        def forward(self, f):
            return self.pool(self.conv(f), BOXES[0]).pow(2).sum()

    head, f = Head(), samples()[0][0]
    found = torch.func.grad(lambda p: torch.func.functional_call(head, p, (f,)))(dict(head.named_parameters()))
    head(f).backward()
    for name, parameter in head.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-12)
