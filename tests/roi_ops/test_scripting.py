"""``torch.jit.script`` of the functions, the modules, and torchvision's detectors with our poolers."""

import io

import pytest
import torch
from tiny_rcnn import tiny_rcnn

import roi_ops

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
ROIS = torch.tensor([[0, 1.0, 1, 5, 5], [1, 2, 2, 7, 7.5]])
FORMS = {"one tensor": ROIS, "a list": [ROIS[:1, 1:], ROIS[1:, 1:]]}


def feature():
    return torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "prroi_pool"])
def test_functions(name, form):
    """The eager function is the expected value, whose tests compare it with torchvision's."""
    function, boxes, x = getattr(roi_ops, name), FORMS[form], feature()
    scripted = torch.jit.script(function)
    for _ in range(3):  # the first calls are profiled, later ones optimised
        values = scripted(x, boxes, 2, 0.5), function(x, boxes, 2, 0.5)
        assert torch.equal(*values)
        assert torch.equal(*(torch.autograd.grad(v.square().sum(), x)[0] for v in values))
    maps = [x, x[..., ::2, ::2]]
    levels = {"canonical_scale": 4.0, "canonical_level": 1.0, "channels_last": True}
    function = getattr(roi_ops, f"multiscale_{name}")
    found = torch.jit.script(function)(maps, boxes, (2, 3), [1.0, 0.5], **levels)
    assert torch.equal(found, function(maps, boxes, (2, 3), [1.0, 0.5], **levels))
    assert found.is_contiguous(memory_format=torch.channels_last)


def calls_it(x: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
    return roi_ops.roi_align(x, boxes, 3, sampling_ratio=2, aligned=True, mode="max")


def test_functions_that_call_ours():
    expected = calls_it(feature(), FORMS["a list"])
    assert torch.equal(torch.jit.script(calls_it)(feature(), FORMS["a list"]), expected)


@pytest.mark.parametrize(
    "module", [roi_ops.RoIAlign(3, 1, 2), roi_ops.RoIPool((3, 2), 0.5), roi_ops.PrRoIPool([3, 3], 1.0)], ids=str
)
def test_modules(module):
    scripted = torch.jit.script(module)
    for boxes in FORMS.values():
        assert torch.equal(scripted(feature(), boxes), module(feature(), boxes))


def test_wrong_arguments_are_told_what_is_wanted():
    scripted = torch.jit.script(roi_ops.roi_align)
    with pytest.raises(RuntimeError, match=r"boxes must be Tensor\[K, 5\]"):
        scripted(feature(), ROIS[:, 1:], 2)
    with pytest.raises(RuntimeError, match="2 images but 1 lists of boxes"):
        scripted(feature(), [ROIS[:, 1:]], 2)
    pooler = torch.jit.script(roi_ops.MultiScaleRoIAlign(["a"], 3, 2))
    with pytest.raises(torch.jit.Error, match=r"no feature map named \[a\]; there are \[b\]"):
        pooler({"b": feature()}, FORMS["a list"], [(16, 18), (16, 18)])


@pytest.mark.filterwarnings("ignore:RCNN always returns")
@pytest.mark.parametrize("kind", ["align", "align_max", "pool", "prroi"])
def test_detectors(kind):
    """Images that are resized by whole numbers: torchvision's own scripted resize rounds other factors otherwise."""
    model = roi_ops.replace_roi_pooling(tiny_rcnn(), kind)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for sides in ([(64, 96), (64, 64)], [(32, 48)], [(64, 80)]):
            inputs = [torch.rand(3, *size, generator=generator) for size in sides]
            expected, (_, found) = model(inputs), scripted(inputs)
            assert len(expected[0]["boxes"]) > 2
            for a, b in zip(found, expected, strict=True):
                for key, value in b.items():
                    torch.testing.assert_close(a[key], value, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match=r"replace them before torch\.jit\.script"):
        roi_ops.replace_roi_pooling(scripted)
