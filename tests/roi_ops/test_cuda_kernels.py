"""What is special about the CUDA kernels, on the emulator and on a GPU: tables, tiles, crowds, launches.

That they equal the reference is in test_kernels.py; what needs a GPU is in test_cuda_device.py.
"""

import pytest
import torch
from cases import FORMS, relative, rois
from cuda_emulator.emulated import emulator
from kernel_problems import DTYPES, KINDS, NAN, CudaKernels, Problem

from roi_ops import reference
from roi_ops.cuda import arguments, plan, programs
from roi_ops.geometry import LINEAR_KINDS, Geometry

INF = float("inf")


def problem(kind, dtype=torch.float32, layouts=("channels_last",), output=(3, 2), ratio=2, channels=16, count=1):
    """Two levels of two images, every form of box ``count`` times."""
    boxes = rois(list(FORMS) * count, (38, 46), 2, 1, 0.5)
    return Problem(kind, dtype, (2, channels, 38, 46), layouts, boxes, output, ratio, levels=2)


def one_map(boxes, kind, shape, dtype=torch.float32, layout="contiguous"):
    """One map in image coordinates, 3 x 2 bins."""
    return Problem(kind, dtype, shape, [layout], boxes, (3, 2), 2, scale=1.0)


def test_structs_are_laid_out_as_in_device_code(cuda_kernels):
    if isinstance(cuda_kernels, CudaKernels):
        pytest.skip("the compiler of the emulator tells")
    for name, size in arguments.sizes().items():
        assert emulator().sizeof(name) == size, name


@pytest.mark.parametrize("output", [(7, 7), (1, 1), (14, 3), (2, 40), (128, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_pooled_sizes(cuda_kernels, kind, output):
    problem(kind, output=output).assert_equals_reference(cuda_kernels)
    problem(kind, torch.float64, ["contiguous"], output).assert_equals_reference(cuda_kernels, True)


@pytest.mark.parametrize("kind", ["align", "align_aligned", "prroi", "align_max"])
def test_boxes_whose_rows_do_not_fit_their_table(cuda_kernels, kind, monkeypatch):
    """A table of a few entries makes small maps huge: the axes go through it in chunks."""
    monkeypatch.setattr(plan, "TABLE_BUDGET", 64)
    for ratio in (0, 5):
        problem(kind, ratio=ratio).assert_equals_reference(cuda_kernels)
    problem(kind, torch.float64, ["contiguous"], ratio=0).assert_equals_reference(cuda_kernels, True)


@pytest.mark.parametrize("kind", ["align", "pool"])
def test_results_that_leave_shared_memory_in_parts(cuda_kernels, kind, monkeypatch):
    monkeypatch.setattr(plan, "TILE_BUDGET", 1024)
    problem(kind, output=(5, 4), channels=40).assert_equals_reference(cuda_kernels)
    problem(kind, torch.float16, ["contiguous"], (5, 4)).assert_equals_reference(cuda_kernels, True)


@pytest.mark.parametrize("size", [1, 16, 40])
@pytest.mark.parametrize("kind", ["align", "align_max"])
def test_one_tile_and_many(cuda_kernels, kind, size):
    boxes = rois(list(FORMS), (size, size + 1), 1, 4)
    one_map(boxes, kind, (1, 4, size, size + 1)).assert_equals_reference(cuda_kernels)


@pytest.mark.parametrize("kind", ["align", "pool"])
def test_more_rois_than_a_block_takes_at_a_time(cuda_kernels, kind):
    """Over 256 RoIs on one image and level, of which some tiles see few."""
    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(700, 2, generator=generator) * 30
    boxes = torch.cat([torch.randint(2, (700, 1), generator=generator), corner, corner + 6], 1)
    one_map(boxes, kind, (2, 3, 33, 34)).assert_equals_reference(cuda_kernels)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["align", "pool", "align_max"])
@pytest.mark.parametrize("slots", [1, 4])
def test_crowded_tiles_are_split(cuda_kernels, kind, dtype, slots, monkeypatch):
    """Four hundred boxes on two spots of each image: several tiles are crowded, with slots for some or for all."""
    monkeypatch.setattr(plan, "CROWD_LEAST", slots)
    generator = torch.Generator().manual_seed(7)
    spot = torch.tensor([[8.0, 10.0], [26.0, 4.0]])[torch.randint(2, (400,), generator=generator)]
    corner = spot + torch.rand(400, 2, generator=generator) * 3
    boxes = torch.cat([torch.randint(2, (400, 1), generator=generator), corner, corner + 7], 1)
    crowd = one_map(boxes, kind, (2, 33, 30, 40), dtype, "channels_last")
    if isinstance(cuda_kernels, CudaKernels):  # the emulator is not built for a GPU
        crowd.assert_equals_reference(cuda_kernels)
    else:
        emulator().launched.clear()
        crowd.assert_equals_reference(cuda_kernels)
        assert f"add_parts_{programs.NAMES[dtype]}" in emulator().launched


@pytest.mark.parametrize("rois_per_image", [1, 65, 100_000])
def test_the_workspace_of_crowds_is_bounded(rois_per_image):
    """A quarter of what the gradients take in float32, or four tiles an image."""
    maps = [torch.empty(2, 256, 200 >> i, 272 >> i, device="meta") for i in range(4)]
    geometry = Geometry([0.25, 0.125, 0.0625, 0.03125], "align", 7, 7, 2, 2, 5, 224.0, 4.0)
    tiles = plan.backward(maps, 2 * rois_per_image, geometry, False)
    assert 4 * tiles.partial <= sum(m.numel() for m in maps) * 1.1
    assert (tiles.partial > 0) == (2 * rois_per_image > plan.CROWD)


def test_rows_too_far_apart_for_an_int_are_read_as_any_strides_are():
    far = torch.empty_strided((1, 8, 2, 2), (2**33, 1, 2**32, 8), device="meta")
    near = torch.empty_strided((1, 8, 2, 2), (2**33, 1, 2**30, 8), device="meta")
    assert plan.layout_of([far]) == plan.PLANAR
    assert plan.layout_of([near]) == plan.VECTOR
    assert plan.layout_of([near, far]) == plan.PLANAR


@pytest.mark.parametrize("name", ["of one value", "batch innermost", "channels_last", "float64"])
def test_gradients_of_any_strides_and_dtype(cuda_kernels, name):
    p = problem("align")
    k, c, h, w = p.grad.shape
    p.grad = {
        "of one value": torch.ones(()).expand(k, c, h, w),
        "batch innermost": torch.randn(h, w, k, c).permute(2, 3, 0, 1),
        "channels_last": torch.randn(k, c, h, w).to(memory_format=torch.channels_last),
        "float64": torch.randn(k, c, h, w, dtype=torch.float64),
    }[name]
    p.assert_equals_reference(cuda_kernels)


def test_an_image_that_does_not_exist_pools_to_zero(cuda_kernels):
    boxes = torch.tensor([[i, 1, 1, 6, 6] for i in (0.0, -1.0, 2.0, NAN, 1e30, 1.0)])
    there = [0, 5]
    for kind in ("align", "pool"):
        p = one_map(boxes, kind, (2, 4, 9, 9))
        results = p.results(cuda_kernels)
        assert results["forward"].flatten(1).any(1).nonzero().flatten().tolist() == there
        if kind == "pool":
            assert (results["argmax"][1:5] == -1).all()
        p.boxes, p.grad = p.boxes[there], p.grad[there]
        assert relative(results["level 0"], p.results(reference)["level 0"]) < 1e-6


def test_values_that_are_no_numbers_stay_where_they_are(cuda_kernels):
    """An infinite gradient reaches the pixels of its own bin only; a NaN is no maximum."""
    p = Problem("align", torch.float32, (1, 1, 8, 8), ["contiguous"], torch.tensor([[0.0, 0, 0, 8, 8]]), (4, 4), 2,
                scale=1.0)  # fmt: skip
    p.grad = torch.zeros(1, 1, 4, 4)
    p.grad[0, 0, 0, 0] = INF
    gradient = p.results(cuda_kernels)["level 0"]
    assert torch.isinf(gradient[0, 0, :2, :2]).all()
    assert not gradient[0, 0, 3:, 3:].any()
    f = torch.full((1, 1, 8, 8), -1.0)
    f[0, 0, 0, 0], f[0, 0, 1, 1] = NAN, -3.0
    geometry = ([1.0], "pool", 8, 8, 0, 0, 0, 224.0, 4.0)
    out, argmax = cuda_kernels.max_forward([f], p.boxes, False, *geometry)
    assert argmax[0, 0, 0, 0] == 1
    assert out[0, 0, 0, 0] == -1


@pytest.mark.parametrize("kind", KINDS)
def test_results_repeat_to_the_bit(cuda_kernels, kind):
    p = problem(kind, count=8)
    first, second = p.results(cuda_kernels), p.results(cuda_kernels)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_images_do_not_depend_on_each_other(cuda_kernels, kind):
    """The gradient of an image is the same to the bit whatever other images and their boxes are in the batch."""
    p = problem(kind, count=20)
    together = p.results(cuda_kernels)
    mine = p.boxes[:, 0] == 1
    assert mine.sum() > plan.CROWD
    p.boxes, p.grad, p.features = p.boxes[mine].clone(), p.grad[mine], [f[1:] for f in p.features]
    p.boxes[:, 0] = 0
    alone = p.results(cuda_kernels)
    for level in ("level 0", "level 1"):
        assert torch.equal(alone[level][0], together[level][1])
    assert torch.equal(alone["forward"], together["forward"][mine])


def test_the_emulators_half_types_round_as_torch_does(cuda_kernels):
    """Through a kernel: one bin a pixel copies the map, and means are rounded to storage."""
    values = torch.cat([torch.randn(500), torch.tensor([0.0, -0.0, 65504, 6e-8, 3e-8, 6.1e-5, 1e-7, 1e30])])
    for dtype in (torch.float16, torch.bfloat16):
        f = values.to(dtype).reshape(1, 4, 1, 127)
        boxes = torch.tensor([[0.0, 0, 0, 126, 0]])
        out, _ = cuda_kernels.max_forward([f], boxes, False, [1.0], "pool", 1, 127, 0, 0, 0, 224.0, 4.0)
        finite = torch.isfinite(f)
        assert torch.equal(out[finite], f[finite])
        args = ([f], torch.tensor([[0.0, 0, 0, 8, 1]]), False, [1.0], "align", 3, 2, 2, 0, 0, 224.0, 4.0)
        mean, expected = cuda_kernels.linear_forward(*args), reference.linear_forward(*args)
        assert relative(mean.double(), expected.double()) <= torch.finfo(dtype).eps
