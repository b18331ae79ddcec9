"""The CUDA kernels on the emulator against the reference: the seven functions, no GPU needed."""

import pytest
import torch
from cases import FORMS, relative, rois
from cuda_emulator.build import compiler
from cuda_emulator.emulated import emulator, operators

from roi_ops import reference
from roi_ops.cuda import arguments, plan, programs
from roi_ops.geometry import LINEAR_KINDS, MAX_KINDS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="no host compiler")]

INF, NAN = float("inf"), float("nan")
SCALES = [0.25, 0.125]
DTYPES = tuple(programs.DTYPES)
# Relative to the largest value: kernels and reference round the same sums in another order, then once to storage.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = ("channels_last", "channels_last odd", "contiguous", "strided")


def maps_of(layout, dtype, seed=0, size=19):
    """Two levels [2, C, H, W]; the third layout has more channels than a slab, the last is a view."""
    channels = {"channels_last": 16, "channels_last odd": 5, "contiguous": 70, "strided": 3}[layout]
    generator, maps = torch.Generator().manual_seed(seed), []
    for n in (size, size // 2 + 1):
        f = torch.randn(2, channels, n, n + 4, generator=generator, dtype=torch.float64).to(dtype)
        if layout.startswith("channels_last"):
            f = f.to(memory_format=torch.channels_last)
        if layout == "strided":
            f = torch.zeros(2, channels, 2 * n, 2 * n + 8, dtype=dtype)[:, :, ::2, ::2].copy_(f)
        maps.append(f)
    return maps


def boxes_of(dtype, seed=1, count=1, size=(76, 92)):
    """Every form of box ``count`` times, and boxes that are none."""
    good = rois(list(FORMS) * count, size, 2, seed)
    bad = torch.tensor([[0, NAN, 1, 5, 5], [1, 1, 1, INF, 5], [0, 20, 2, 10, 30]], dtype=torch.float64)
    return torch.cat([good, bad]).to(torch.float64 if dtype == torch.float64 else torch.float32)


def geometry(kind, bins=(3, 2), ratio=2, scales=SCALES):
    return scales, kind, *bins, ratio, 2, 1 + len(scales), 28.0, 2.0


def same(ours, expected, tolerance):
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    strides = zip(ours.stride(), expected.stride(), ours.shape, strict=True)
    assert all(a == b or n == 1 for a, b, n in strides)
    assert relative(ours.double(), expected.double()) <= tolerance


def check(maps, boxes, geom, channels_last=False):
    """All functions of a kind against the reference."""
    dtype, ops = maps[0].dtype, operators()
    tolerance = TOLERANCE[dtype]
    exact = max(TOLERANCE[boxes.dtype] * 10, 1e-13)  # box gradients are not rounded to storage, but sum over channels
    if geom[1] in LINEAR_KINDS:
        expected = reference.linear_forward(maps, boxes, channels_last, *geom)
        same(ops.linear_forward(maps, boxes, channels_last, *geom), expected, tolerance)
        grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        for ours, theirs in zip(
            ops.linear_backward_features(grad, maps, boxes, *geom),
            reference.linear_backward_features(grad, maps, boxes, *geom),
            strict=True,
        ):
            same(ours, theirs, tolerance)
        expected = reference.linear_backward_boxes(grad, maps, boxes, *geom)
        same(ops.linear_backward_boxes(grad, maps, boxes, *geom), expected, exact)
        return
    expected, argmax = reference.max_forward(maps, boxes, channels_last, *geom)
    ours, places = ops.max_forward(maps, boxes, channels_last, *geom)
    same(ours, expected, tolerance)
    assert torch.equal(places, argmax)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    same(ops.max_gather(maps, argmax, boxes, *geom), reference.max_gather(maps, argmax, boxes, *geom), tolerance)
    for ours, theirs in zip(
        ops.max_backward_features(grad, argmax, maps, boxes, *geom),
        reference.max_backward_features(grad, argmax, maps, boxes, *geom),
        strict=True,
    ):
        same(ours, theirs, tolerance)
    expected = reference.max_backward_boxes(grad, argmax, maps, boxes, *geom)
    same(ops.max_backward_boxes(grad, argmax, maps, boxes, *geom), expected, exact)


def test_structs_are_laid_out_as_in_device_code():
    for name, size in arguments.sizes().items():
        assert emulator().sizeof(name) == size, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", LINEAR_KINDS + MAX_KINDS)
def test_all_functions_equal_the_reference(kind, dtype, layout):
    maps = maps_of(layout, dtype)
    for ratio in (2, 0) if kind.startswith("align") else (0,):
        check(maps, boxes_of(dtype), geometry(kind, ratio=ratio), channels_last=ratio == 0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["align", "pool", "align_max"])
@pytest.mark.parametrize("bins", [(7, 7), (1, 1), (14, 3), (2, 40)])
def test_pooled_sizes(kind, bins, channels_last):
    check(maps_of("contiguous", torch.float32), boxes_of(torch.float32), geometry(kind, bins), channels_last)
    check(maps_of("channels_last", torch.float64), boxes_of(torch.float64), geometry(kind, bins), channels_last)


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi", "align_max"])
def test_boxes_whose_rows_do_not_fit_their_table(kind, monkeypatch):
    """A table of a few entries makes small maps huge: the axes go through it in chunks."""
    monkeypatch.setattr(plan, "TABLE_BUDGET", 64)
    for ratio in (0, 5):
        check(maps_of("channels_last", torch.float32), boxes_of(torch.float32), geometry(kind, ratio=ratio))
    check(maps_of("contiguous", torch.float64), boxes_of(torch.float64), geometry(kind, ratio=0), True)


@pytest.mark.parametrize("kind", ["align", "pool"])
def test_results_that_leave_shared_memory_in_parts(kind, monkeypatch):
    monkeypatch.setattr(plan, "TILE_BUDGET", 1024)
    check(maps_of("channels_last", torch.float32), boxes_of(torch.float32), geometry(kind, (5, 4)))
    check(maps_of("contiguous", torch.float16), boxes_of(torch.float16), geometry(kind, (5, 4)), True)


@pytest.mark.parametrize("kind", ["align", "align_max"])
def test_one_level_and_one_tile_and_many(kind):
    for size in (1, 16, 40):
        f = torch.randn(1, 4, size, size + 1, generator=torch.Generator().manual_seed(3))
        boxes = rois(list(FORMS), (size, size + 1), 1, 4).float()
        check([f], boxes, geometry(kind, scales=[1.0]))


@pytest.mark.parametrize("kind", ["align", "pool"])
def test_more_roi_than_a_block_takes_at_a_time(kind):
    """Over 256 RoIs on one image and level, of which some tiles see few."""
    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(700, 2, generator=generator) * 30
    boxes = torch.cat([torch.randint(2, (700, 1), generator=generator), corner, corner + 6], 1)
    f = torch.randn(2, 3, 33, 34, generator=generator)
    check([f], boxes, geometry(kind, scales=[1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["align", "pool"])
@pytest.mark.parametrize("slots", [1, 4])
def test_crowded_tiles_are_split(kind, dtype, slots, monkeypatch):
    """Two hundred boxes on two spots of each image: several tiles are crowded, with slots for some or for all."""
    monkeypatch.setattr(plan, "CROWD_LEAST", slots)
    generator = torch.Generator().manual_seed(7)
    spot = torch.tensor([[8.0, 10.0], [26.0, 4.0]])[torch.randint(2, (400,), generator=generator)]
    corner = spot + torch.rand(400, 2, generator=generator) * 3
    boxes = torch.cat([torch.randint(2, (400, 1), generator=generator), corner, corner + 7], 1)
    f = torch.randn(2, 33, 30, 40, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    emulator().launched.clear()
    check([f], boxes.to(torch.float64 if dtype == torch.float64 else torch.float32), geometry(kind, scales=[1.0]))
    assert f"add_parts_{programs.NAMES[dtype]}" in emulator().launched


def test_gradients_of_any_strides():
    maps, boxes, geom = maps_of("channels_last", torch.float32), boxes_of(torch.float32), geometry("align")
    for grad in (
        torch.ones(()).expand(len(boxes), 16, 3, 2),
        torch.randn(3, 2, len(boxes), 16).permute(2, 3, 0, 1),
        torch.randn(len(boxes), 16, 3, 2).to(memory_format=torch.channels_last),
        torch.randn(len(boxes), 16, 3, 2, dtype=torch.float64),
    ):
        expected = reference.linear_backward_features(grad, maps, boxes, *geom)
        for ours, theirs in zip(operators().linear_backward_features(grad, maps, boxes, *geom), expected, strict=True):
            same(ours, theirs, 1e-6)
        expected = reference.linear_backward_boxes(grad, maps, boxes, *geom)
        same(operators().linear_backward_boxes(grad, maps, boxes, *geom), expected, 1e-5)


def test_an_image_that_does_not_exist_pools_to_zero():
    f = torch.ones(2, 4, 9, 9)
    boxes = torch.tensor([[i, 1, 1, 6, 6] for i in (0.0, -1.0, 2.0, NAN, 1e30, 1.0)])
    out = operators().linear_forward([f], boxes, False, *geometry("align", scales=[1.0]))
    assert out.flatten(1).any(1).tolist() == [True, False, False, False, False, True]
    out, argmax = operators().max_forward([f], boxes, False, *geometry("pool", scales=[1.0]))
    assert out.flatten(1).any(1).tolist() == [True, False, False, False, False, True]
    assert (argmax[1:5] == -1).all()
    grad = torch.ones(6, 4, 3, 2)
    (d_features,) = operators().linear_backward_features(grad, [f], boxes, *geometry("align", scales=[1.0]))
    expected = reference.linear_backward_features(grad[::5], [f], boxes[::5], *geometry("align", scales=[1.0]))
    assert relative(d_features, expected[0]) < 1e-6


def test_values_that_are_no_numbers_stay_where_they_are():
    """An infinite gradient reaches the pixels of its own bin only; a NaN is no maximum."""
    f = torch.zeros(1, 1, 8, 8)
    boxes = torch.tensor([[0.0, 0, 0, 8, 8]])
    grad = torch.zeros(1, 1, 4, 4)
    grad[0, 0, 0, 0] = INF
    geom = geometry("align", (4, 4), scales=[1.0])
    (d,) = operators().linear_backward_features(grad, [f], boxes, *geom)
    assert torch.isinf(d[0, 0, :2, :2]).all()
    assert not d[0, 0, 3:, 3:].any()
    f[0, 0, 0, 0], f[0, 0, 1, 1] = NAN, -2.0
    out, argmax = operators().max_forward([f - 1], boxes, False, *geometry("pool", (8, 8), scales=[1.0]))
    assert argmax[0, 0, 0, 0] == 1
    assert out[0, 0, 0, 0] == -1


@pytest.mark.parametrize("kind", LINEAR_KINDS + MAX_KINDS)
def test_nothing_to_pool_launches_nothing_that_fails(kind):
    for images, channels, count in ((1, 3, 0), (0, 3, 2), (2, 0, 2), (0, 0, 0)):
        f, boxes = torch.zeros(images, channels, 5, 6), torch.zeros(count, 5)
        ops, geom = operators(), geometry(kind, scales=[1.0])
        if kind in LINEAR_KINDS:
            out, extra = ops.linear_forward([f], boxes, False, *geom), ()
            assert not ops.linear_backward_boxes(out, [f], boxes, *geom).any()
            (d,) = ops.linear_backward_features(out, [f], boxes, *geom)
        else:
            out, argmax = ops.max_forward([f], boxes, False, *geom)
            extra = (argmax,)
            assert not ops.max_backward_boxes(out, *extra, [f], boxes, *geom).any()
            assert ops.max_gather([f], argmax, boxes, *geom).shape == out.shape
            (d,) = ops.max_backward_features(out, *extra, [f], boxes, *geom)
        assert out.shape == (count, channels, 3, 2)
        assert not out.any()
        assert d.shape == f.shape
        assert not d.any()


@pytest.mark.parametrize("kind", ["align", "pool", "align_max", "prroi"])
def test_results_repeat_to_the_bit(kind):
    maps, boxes, geom = maps_of("channels_last", torch.float32), boxes_of(torch.float32, count=4), geometry(kind)
    runs = []
    for _ in range(3):
        if kind in LINEAR_KINDS:
            out = operators().linear_forward(maps, boxes, False, *geom)
            found = [out, *operators().linear_backward_features(out, maps, boxes, *geom)]
            found.append(operators().linear_backward_boxes(out, maps, boxes, *geom))
        else:
            out, argmax = operators().max_forward(maps, boxes, False, *geom)
            found = [out, argmax, *operators().max_backward_features(out, argmax, maps, boxes, *geom)]
            found.append(operators().max_backward_boxes(out, argmax, maps, boxes, *geom))
        runs.append(found)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_images_do_not_depend_on_each_other():
    """The gradient of an image is the same to the bit whatever other images and their boxes are in the batch."""
    maps, geom = maps_of("channels_last", torch.float32), geometry("align")
    boxes = boxes_of(torch.float32, count=3)[:27]
    grad = torch.randn(27, 16, 3, 2, generator=torch.Generator().manual_seed(6))
    together = operators().linear_backward_features(grad, maps, boxes, *geom)
    mine = boxes[:, 0] == 1
    alone = boxes[mine].clone()
    alone[:, 0] = 0
    for a, b in zip(
        operators().linear_backward_features(grad[mine], [m[1:] for m in maps], alone, *geom), together, strict=True
    ):
        assert torch.equal(a[0], b[1])


def test_the_emulators_half_types_round_as_torch_does():
    """Through a kernel: one bin a pixel copies the map, of which float32 storage makes float16."""
    values = torch.cat([torch.randn(500), torch.tensor([0.0, -0.0, 65504, 6e-8, 3e-8, 6.1e-5, 1e-7, 1e30])])
    for dtype in (torch.float16, torch.bfloat16):
        f = values.to(dtype).reshape(1, 4, 1, 127)
        boxes = torch.tensor([[0.0, 0, 0, 126, 0]])
        out, _ = operators().max_forward([f], boxes, False, *geometry("pool", (1, 127), scales=[1.0]))
        finite = torch.isfinite(f)
        assert torch.equal(out[finite], f[finite])
        args = ([f], torch.tensor([[0.0, 0, 0, 8, 1]]), False, *geometry("align", scales=[1.0]))
        mean, expected = operators().linear_forward(*args), reference.linear_forward(*args)
        assert relative(mean.double(), expected.double()) <= torch.finfo(dtype).eps
