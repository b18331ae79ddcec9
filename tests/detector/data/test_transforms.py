"""Augmentation: the boxes stay where the objects are."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detector.config.defaults import default
from detector.config.schema import AugmentConfig
from detector.data import transforms
from detector.data.box_transforms import MIN_VISIBLE
from detector.data.transforms import MIN_CROP, Augment, item_rng, rescale, turn_hue
from detector.exceptions import ConfigError

OFF = {"horizontal_flip": 0.0, "vertical_flip": 0.0, "scale_jitter": [1.0, 1.0], "iou_crop": 0.0, "photometric": 0.0}


def config(**changes):
    return default(AugmentConfig, **{**OFF, **changes})


def picture_of(boxes, height=96, width=128):
    """A black image with a white rectangle in each of ``boxes`` (whole pixels), and its target."""
    image = torch.zeros(3, height, width)
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 1
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    target = {
        "boxes": boxes,
        "labels": torch.arange(1, len(boxes) + 1),
        "image_id": torch.tensor(42),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) / 2,  # half of the box, as a mask's may be
        "iscrowd": torch.arange(len(boxes)) % 2,
    }
    return image, target


def check_contract(image, target):
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    assert image.shape[0] == 3
    assert target.keys() == {"boxes", "labels", "image_id", "area", "iscrowd"}
    assert all(type(v) is torch.Tensor for v in target.values())
    boxes, count = target["boxes"], len(target["labels"])
    assert boxes.shape == (count, 4)
    assert boxes.dtype == target["area"].dtype == torch.float32
    assert target["labels"].dtype == target["iscrowd"].dtype == target["image_id"].dtype == torch.int64
    assert len(target["area"]) == len(target["iscrowd"]) == count
    height, width = image.shape[1:]
    assert (boxes >= 0).all()
    assert (boxes[:, 0::2] <= width).all()
    assert (boxes[:, 1::2] <= height).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert int(target["image_id"]) == 42


def seen(image):
    """x1, y1, x2, y2 of what is white in ``image``, and not padding of at most 0.5; to a pixel at blurred edges."""
    bright = image.mean(dim=0)
    rows, columns = bright.max(dim=1).values, bright.max(dim=0).values

    def extent(profile):
        lit = torch.nonzero(profile > 0.75).flatten()
        return float(lit[0]), float(lit[-1] + 1)

    (y1, y2), (x1, x2) = extent(rows), extent(columns)
    return [x1, y1, x2, y2]


ALL_ON = st.builds(
    lambda h, v, low, high, crop, colour: config(
        horizontal_flip=h, vertical_flip=v, scale_jitter=[low, low + high], iou_crop=crop, photometric=colour
    ),
    *[st.sampled_from([0.0, 0.5, 1.0])] * 2,
    st.floats(0.2, 1.2),
    st.floats(0, 1),
    *[st.sampled_from([0.0, 1.0])] * 2,
)


@st.composite
def box_lists(draw, least=0, most=4, height=96, width=128):
    boxes = []
    for _ in range(draw(st.integers(least, most))):
        x1, y1 = draw(st.integers(0, width - 12)), draw(st.integers(0, height - 12))
        boxes.append([x1, y1, draw(st.integers(x1 + 10, width)), draw(st.integers(y1 + 10, height))])
    return boxes


@given(ALL_ON, box_lists(), st.integers(0, 2**32))
def test_result_keeps_the_contract_and_labels_stay_with_their_boxes(augment, boxes, seed):
    image, target = picture_of(boxes)
    with item_rng(seed):
        new_image, new = Augment(augment)(image, target)
    check_contract(new_image, new)
    assert new_image.min() >= 0
    assert new_image.max() <= 1
    kept = new["labels"] - 1  # picture_of numbers the boxes
    assert len(set(kept.tolist())) == len(kept)
    assert torch.equal(new["iscrowd"], target["iscrowd"][kept])
    # The area is still half of the box, whatever was scaled or cut.
    torch.testing.assert_close(
        new["area"], (new["boxes"][:, 2:] - new["boxes"][:, :2]).prod(dim=1) / 2, rtol=1e-3, atol=1e-3
    )


@given(ALL_ON, box_lists(1, 1), st.integers(0, 2**32))
def test_a_white_rectangle_still_fills_its_box(augment, boxes, seed):
    augment.photometric = 0.0
    image, target = picture_of(boxes)
    assume(image.mean() < 0.5)
    with item_rng(seed):
        image, target = Augment(augment)(image, target)
    if len(target["boxes"]):
        assert seen(image) == pytest.approx(target["boxes"][0].tolist(), abs=1.01)


@given(ALL_ON, box_lists(), st.integers(0, 2**32))
def test_input_is_left_alone(augment, boxes, seed):
    image, target = picture_of(boxes)
    before = image.clone(), {k: v.clone() for k, v in target.items()}
    with item_rng(seed):
        Augment(augment)(image, target)
    assert torch.equal(image, before[0])
    assert all(torch.equal(target[k], v) for k, v in before[1].items())


@given(box_lists())
def test_no_augmentation_changes_nothing(boxes):
    image, target = picture_of(boxes)
    new_image, new = Augment(config())(image, target)
    check_contract(new_image, new)
    assert torch.equal(new_image, image)
    assert all(torch.equal(new[k], target[k]) for k in target)


def test_no_augmentation_keeps_boxes_below_a_pixel():
    image, target = picture_of([[5, 5, 20, 20]])
    target["boxes"] = torch.tensor([[5.0, 5.0, 5.3, 5.2]])
    assert torch.equal(Augment(config())(image, target)[1]["boxes"], target["boxes"])


@pytest.mark.parametrize("flip", ["horizontal_flip", "vertical_flip"])
@given(boxes=box_lists())
def test_flipping_twice_is_the_identity(flip, boxes):
    image, target = picture_of(boxes)
    once = Augment(config(**{flip: 1.0}))
    new_image, new = once(*once(image, target))
    assert torch.equal(new_image, image)
    assert torch.equal(new["boxes"], target["boxes"])


def test_flips_by_hand():
    image, target = picture_of([[10, 20, 30, 50]])
    flipped, new = Augment(config(horizontal_flip=1.0))(image, target)
    assert new["boxes"].tolist() == [[98, 20, 118, 50]]  # 128 - 30, 128 - 10
    assert torch.equal(flipped, image.flip(2))
    flipped, new = Augment(config(vertical_flip=1.0))(image, target)
    assert new["boxes"].tolist() == [[10, 46, 30, 76]]  # 96 - 50, 96 - 20
    assert torch.equal(flipped, image.flip(1))


@given(box_lists(), st.floats(0.1, 3), st.integers(0, 2**32))
def test_rescaling_keeps_the_size_of_the_image(boxes, factor, seed):
    image, target = picture_of(boxes)
    with item_rng(seed):
        new_image, new = rescale(image, target, factor)
    assert new_image.shape == image.shape
    assert len(new["boxes"]) == len(new["labels"])
    if factor <= 1:  # nothing is cut off, apart from boxes that no longer have a side
        ratio = round(96 * factor) * round(128 * factor) / (96 * 128)
        torch.testing.assert_close(new["area"], target["area"][new["labels"] - 1] * ratio)


def test_shrinking_pads_with_the_mean_colour_and_moves_the_box_along():
    image, target = picture_of([[0, 0, 128, 96]])
    image[0] = 0.25
    places = set()
    for seed in range(20):
        with item_rng(seed):
            new_image, new = rescale(image, target, 0.5)
        x1, y1, x2, y2 = (int(v) for v in new["boxes"][0])
        assert (x2 - x1, y2 - y1) == (64, 48)
        torch.testing.assert_close(new_image[:, y1:y2, x1:x2], image[:, :48, :64])
        outside = torch.ones(96, 128, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        torch.testing.assert_close(
            new_image[:, outside], torch.tensor([0.25, 1, 1])[:, None].expand(3, int(outside.sum()))
        )
        places.add((x1, y1))
    assert len(places) > 15


@given(st.integers(0, 60), st.floats(1.05, 3))
def test_boxes_of_which_a_crop_leaves_too_little_are_dropped(offset, factor):
    cells = [[x, y, x + 16, y + 16] for x in range(0, 128, 16) for y in range(0, 96, 16)]
    image, target = picture_of(cells)
    scale = torch.tensor([round(128 * factor) / 128, round(96 * factor) / 96] * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "_random_offset", lambda room: max(0, min(room, offset)))
        _, new = rescale(image, target, factor)
    left, top = min(offset, round(128 * factor) - 128), min(offset, round(96 * factor) - 96)
    moved = target["boxes"] * scale - torch.tensor([left, top, left, top])
    cut = torch.stack([moved[:, 0::2].clamp(0, 128), moved[:, 1::2].clamp(0, 96)], dim=2).flatten(1)
    share = ((cut[:, 2:] - cut[:, :2]) / (moved[:, 2:] - moved[:, :2])).prod(dim=1)
    assume(((share - MIN_VISIBLE).abs() > 1e-4).all())
    kept = share > MIN_VISIBLE
    assert new["labels"].tolist() == (1 + torch.nonzero(kept).flatten()).tolist()
    torch.testing.assert_close(new["boxes"], cut[kept], atol=1e-4, rtol=1e-5)


def test_iou_crop_cuts_and_keeps_objects_whose_centre_it_holds():
    boxes = [[4, 4, 30, 30], [60, 40, 90, 80], [100, 10, 126, 40]]
    image, target = picture_of(boxes)
    crop = Augment(config(iou_crop=1.0))
    sizes, counts = set(), set()
    for seed in range(60):
        with item_rng(seed):
            new_image, new = crop(image, target)
        check_contract(new_image, new)
        sizes.add(tuple(new_image.shape[1:]))
        counts.add(len(new["labels"]))
        assert len(new["labels"]) >= 1
    assert len(sizes) > 20
    assert counts == {1, 2, 3}


@pytest.mark.parametrize(("boxes", "shape"), [([], (96, 128)), ([[1, 1, 3, 3]], (MIN_CROP - 1, 4))])
def test_iou_crop_leaves_empty_and_tiny_images_alone(boxes, shape):
    image, target = picture_of(boxes, *shape)
    for seed in range(10):
        with item_rng(seed):
            new_image, new = Augment(config(iou_crop=1.0))(image, target)
        assert torch.equal(new_image, image)
        assert torch.equal(new["boxes"], target["boxes"])


def test_photometric_changes_colours_within_its_strength_and_no_box():
    image, target = picture_of([[10, 20, 30, 50]])
    image = image * 0.5
    only_brightness = config(photometric=1.0, brightness=0.2, contrast=0.0, saturation=0.0, hue=0.0)
    tops = []
    for seed in range(40):
        with item_rng(seed):
            new_image, new = Augment(only_brightness)(image, target)
        assert torch.equal(new["boxes"], target["boxes"])
        tops.append(float(new_image.max()))
    assert min(tops) >= 0.4 - 1e-6
    assert max(tops) <= 0.6 + 1e-6
    assert max(tops) - min(tops) > 0.1


def test_hue_turns_red_to_green_to_blue_and_leaves_grey_alone():
    image = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn_hue(image, 1 / 3), image[[2, 0, 1]])
    torch.testing.assert_close(turn_hue(image, -1 / 3), image[[1, 2, 0]])
    torch.testing.assert_close(turn_hue(image, 0.0), image)
    grey = image[:1].expand(3, 5, 6)
    torch.testing.assert_close(turn_hue(grey, 0.11), grey)


@pytest.mark.parametrize("turn", [-0.05, 0.02, 0.4])
def test_hue_turns_by_its_angle_and_keeps_lightness_and_chroma(turn):
    image = 0.4 + 0.2 * torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def polar(x):
        across, along = math.sqrt(3) * (x[1] - x[2]), 2 * x[0] - x[1] - x[2]
        return torch.complex(along, across)  # 0 on the grey axis; its angle is the hue, red being 0

    turned = turn_hue(image, turn)
    torch.testing.assert_close(turned.mean(dim=0), image.mean(dim=0))
    wanted = polar(image) * complex(math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn))
    torch.testing.assert_close(polar(turned), wanted)


@settings(max_examples=20)
@given(st.floats(0.05, 0.95))
def test_probabilities(probability):
    image, target = picture_of([[10, 20, 30, 50]], 4 * 8, 4 * 8)
    flip = Augment(config(horizontal_flip=probability))
    with item_rng(7):
        flipped = sum(float(flip(image, target)[1]["boxes"][0, 0]) != 10 for _ in range(300))
    assert abs(flipped / 300 - probability) < 4.5 * math.sqrt(probability * (1 - probability) / 300)


def test_transforms_happen_independently_of_each_other():
    image, target = picture_of([[10, 20, 30, 50]])
    both = Augment(config(horizontal_flip=0.5, vertical_flip=0.5))
    with item_rng(3):
        corners = [tuple(both(image, target)[1]["boxes"][0, :2].tolist()) for _ in range(200)]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert set(counts) == {(10, 20), (98, 20), (10, 46), (98, 46)}
    assert min(counts.values()) > 30  # of 50 expected; 3.3 standard deviations


def test_switching_one_transform_on_leaves_the_draws_of_the_others():
    image, target = picture_of([[10, 20, 30, 50]])
    for seed in range(20):
        results = []
        for colour in (0.0, 1.0):
            with item_rng(seed):
                results.append(Augment(config(iou_crop=1.0, photometric=colour))(image, target)[1]["boxes"])
        assert torch.equal(*results)


def test_item_rng_depends_on_its_key_only_and_puts_the_state_back():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    draws = {}
    for key in [(0, 1, 2), (0, 2, 1), (0, 1, 2), (1, 0, 0), (2**31, 5, 10**6)]:
        with item_rng(*key):
            draw = torch.rand(4)
        assert torch.equal(draws.setdefault(key, draw), draw)
        assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(d.tolist()) for d in draws.values()}) == 4


def test_item_rng_puts_the_state_back_after_an_error():
    def fails():
        with item_rng(1):
            torch.rand(3)
            raise RuntimeError("x")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="x"):
        fails()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("jitter", [[1.5, 0.5], [1.0], [0.5, 1.0, 2.0]])
def test_scale_jitter_that_is_no_range(jitter):
    with pytest.raises(ConfigError, match=r"augment.scale_jitter=.*low <= high"):
        Augment(config(scale_jitter=jitter))


def wrapped(boxes, image):
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=F.get_size(image))


@given(box_lists(), st.floats(0.1, 2), st.integers(16, 160), st.integers(0, 2**32))
def test_large_scale_jitter_gives_squares_with_the_boxes_moved_along(boxes, factor, side, seed):
    assume(factor != 1)  # [1, 1] turns it off
    image, target = picture_of(boxes)
    with item_rng(seed):
        new_image, new = Augment(config(large_scale=[factor, factor], crop_size=side))(image, target)
    check_contract(new_image, new)
    assert new_image.shape == (3, side, side)
    torch.testing.assert_close(
        new["area"], (new["boxes"][:, 2:] - new["boxes"][:, :2]).prod(dim=1) / 2, rtol=1e-3, atol=1e-3
    )


def test_large_scale_jitter_by_hand():
    """128 x 96 fits into 64 pixels at half its size; at a factor of 1 it is padded by 16 rows, and nothing is cut."""
    image, target = picture_of([[16, 32, 80, 64]])
    with item_rng(0):
        _, new = Augment(config(large_scale=[1.0, 1.000001], crop_size=64))(image, target)
    (x1, y1, x2, y2) = new["boxes"][0].tolist()
    assert (x1, x2, y2 - y1) == (8, 40, 16)
    assert 16 <= y1 <= 32
