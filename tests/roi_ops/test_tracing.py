"""Graphs that are recorded once and run with other numbers of boxes and other sizes, beside torchvision's."""

import pytest
import torch
import torchvision.ops
from torch._dynamo.testing import CompileCounter

import roi_ops
from roi_ops.modules import KINDS, make_pooler

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")


class Function(torch.nn.Module):
    """Pools [2, 1, 8, 8] with a list of boxes for each image."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, fine, coarse, first, second):
        return self.function(fine, [first, second], 2)


class Pooler(torch.nn.Module):
    """Pools a pyramid; its scales are given or found from the sizes."""

    def __init__(self, kind, scales):
        super().__init__()
        self.pooler = make_pooler(kind, ["0", "1"], 2, canonical_scale=8, canonical_level=2, spatial_scales=scales)

    def forward(self, fine, coarse, first, second):
        return self.pooler({"0": fine, "1": coarse}, [first, second], [(32, 32), (30, 31)])


FUNCTIONS = {
    "roi_align": Function(roi_ops.roi_align),
    "roi_align max": Function(lambda *args: roi_ops.roi_align(*args, mode="max")),
    "roi_pool": Function(roi_ops.roi_pool),
    "prroi_pool": Function(roi_ops.prroi_pool),
    "torchvision's roi_align": Function(torchvision.ops.roi_align),
    "torchvision's roi_pool": Function(torchvision.ops.roi_pool),
} | {f"{kind} {scales}": Pooler(kind, scales) for kind in KINDS for scales in ([0.25, 0.125], None)}

# Numbers of boxes of the two images: when the graph is recorded, and when it runs.
SPLITS = [((3, 4), [(4, 3), (0, 2), (2, 0), (1, 1), (0, 0)]), ((0, 2), [(2, 3)]), ((2, 0), [(2, 3)])]


def arguments(first, second):
    """The maps are 0 in the first image and 1 in the second: pooled values say of which image a box is."""
    boxes = torch.tensor([[5.0, 5, 7, 7], [4, 4, 6.5, 7]]).repeat(4, 1)
    image = torch.tensor([0.0, 1]).view(2, 1, 1, 1)
    return image.expand(2, 1, 8, 8), image.expand(2, 1, 4, 4), boxes[:first], boxes[:second]


def assert_each_image_has_its_boxes(graph, splits):
    for first, second in splits:
        out = graph(*arguments(first, second))
        assert out.shape == (first + second, 1, 2, 2)
        assert torch.allclose(out, torch.tensor([0.0] * first + [1.0] * second).view(-1, 1, 1, 1), atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("recorded", "splits"), SPLITS, ids=str)
def test_a_traced_call_takes_other_numbers_of_boxes(name, recorded, splits):
    traced = torch.jit.trace(FUNCTIONS[name], arguments(*recorded), check_trace=False)
    assert_each_image_has_its_boxes(traced, splits)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "name", ["roi_align", "roi_pool", "torchvision's roi_align", "align [0.25, 0.125]", "prroi None"]
)
def test_an_exported_call_takes_other_numbers_of_boxes(name, strict):
    count = {0: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(
        FUNCTIONS[name], arguments(3, 4), dynamic_shapes=(None, None, count, count), strict=strict
    )
    assert_each_image_has_its_boxes(exported.module(), SPLITS[0][1])


def test_a_traced_call_has_the_gradients_of_each_call():
    traced = torch.jit.trace(FUNCTIONS["roi_align"], arguments(3, 4), check_trace=False)
    for split in ((4, 3), (0, 2)):
        found = []
        for function in (traced, FUNCTIONS["torchvision's roi_align"]):
            fine, *rest = arguments(*split)
            fine = fine.clone().requires_grad_()
            found += torch.autograd.grad(function(fine, *rest).sum(), fine)
        assert torch.allclose(*found)


# Two images each, and the numbers of their boxes: upright and lying, either image the larger one.
SIZES = [((211, 333), (190, 300), 5, 3), ((400, 250), (420, 200), 9, 14), ((600, 799), (620, 640), 33, 12),
         ((290, 911), (301, 777), 4, 40), ((512, 480), (352, 500), 21, 8)]  # fmt: skip


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_poolers_serve_all_sizes_with_two_graphs(dynamic):
    torch._dynamo.reset()
    names, counter, generator = list("0123"), CompileCounter(), torch.Generator().manual_seed(0)
    pooler = roi_ops.MultiScaleRoIAlign(names, 3, 2)
    compiled = torch.compile(pooler, fullgraph=True, backend=counter, dynamic=dynamic)
    for *images, first, second in SIZES:
        height, width = (-(-max(side) // 32) * 32 for side in zip(*images, strict=True))
        maps = {n: torch.rand(2, 3, height >> i, width >> i, generator=generator) for i, n in enumerate(names, 2)}
        corners = [torch.rand(n, 2, 2, generator=generator).sort(1).values for n in (first, second)]
        boxes = [(c * torch.tensor([w, h])).flatten(1) for c, (h, w) in zip(corners, images, strict=True)]
        theirs = torchvision.ops.MultiScaleRoIAlign(names, 3, 2)  # anew: it keeps the scales of its first batch
        expected = theirs(maps, boxes, [(max(s[0] for s in images), max(s[1] for s in images))])
        assert torch.allclose(compiled(maps, boxes, images), expected, atol=1e-5)
    assert counter.frame_count <= 2
