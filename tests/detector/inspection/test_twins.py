"""Copies of images, and images that look nearly alike."""

import io

import numpy as np
import pytest
from PIL import Image

from detector.inspection import twins
from detector.inspection.pictures import look
from detector.inspection.twins import Marked, find_twins, groups, same_boxes, shared

BOXES = ((10.0, 20.0, 50.0, 60.0), (60.0, 20.0, 100.0, 80.0))


def photograph(seed, height=90, width=120):
    """Smooth random colours, as a photograph has them."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def mark(tmp_path):
    """mark(image, boxes, classes, **how it is saved) -> the picture as the doctor hands it over."""
    numbers = iter(range(10**6))

    def marked(image, boxes=BOXES, classes=("cat", "dog"), suffix="png", **options):
        path = tmp_path / f"{next(numbers)}.{suffix}"
        image.save(path, **options)
        found = look(path, 65535)
        shares = np.array(boxes, dtype=float).reshape(-1, 4) / np.array([image.width, image.height] * 2)
        return Marked(found.digest, found.thumbnail, found.flat, tuple(classes), shares, found.size)

    return marked


def find(*splits):
    return [tuple(pair) for pair in find_twins(splits, lambda share: None)]


def test_copies(mark):
    scaled = tuple(tuple(2 * v for v in box) for box in BOXES)
    train = [mark(photograph(1)), mark(photograph(0)), mark(photograph(2)), mark(Image.new("RGB", (120, 90), "grey"))]
    val = [
        mark(photograph(3)),
        mark(photograph(0)),
        mark(photograph(0), suffix="jpg", quality=60),
        mark(photograph(0, 180, 240), scaled, suffix="jpg", quality=90),
        mark(Image.new("RGB", (120, 90), (129, 128, 128))),
        mark(photograph(1)),
    ]
    assert find(train, val) == [
        ((0, 0), (1, 5), "file"),
        ((0, 1), (1, 1), "file"),
        ((0, 1), (1, 2), "picture"),
        ((0, 1), (1, 3), "picture"),
    ]


@pytest.mark.parametrize(
    ("boxes", "classes"),
    [
        (((10, 20, 50, 60), (60, 20, 100, 83)), ("cat", "dog")),
        (BOXES, ("cat", "cat")),
        (BOXES[:1], ("cat",)),
        ((), ()),
    ],
)
def test_pictures_that_look_the_same_with_other_boxes_are_no_copies(mark, boxes, classes):
    pictures = [mark(photograph(0)), mark(photograph(0), boxes, classes, suffix="jpg")]
    assert find(pictures) == [((0, 0), (0, 1), "alike")]


def test_without_a_box_only_equal_files_are_copies(mark):
    pictures = [mark(photograph(0), (), ()), mark(photograph(0), (), (), suffix="jpg"), mark(photograph(0), (), ())]
    assert find(pictures) == [((0, 0), (0, 1), "alike"), ((0, 0), (0, 2), "file")]


def test_equal_files_are_copies_whatever_their_boxes_are(mark):
    assert find([mark(photograph(0))], [mark(photograph(0), (), ())]) == [((0, 0), (1, 0), "file")]


def test_a_picture_that_differs_in_one_place_is_no_copy(mark):
    """The same form filled in with something else: all boxes are where they were."""
    other = photograph(0)
    other.paste((255, 255, 255), (20, 30, 30, 36))
    assert find([mark(photograph(0)), mark(other)]) == [((0, 0), (0, 1), "alike")]


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("scale", [0.5, 0.8, 1, 1.7])
def test_photographs_compressed_again_are_copies(mark, quality, scale):
    """Detailed pictures, with noise: what compression and scaling change must not count."""
    rng = np.random.default_rng(3)
    pixels = np.asarray(photograph(5, 240, 320), dtype=float) + rng.normal(0, 6, (240, 320, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    again = Image.open(buffer).resize((round(320 * scale), round(240 * scale)), Image.Resampling.LANCZOS)
    ratio = np.array([again.width / 320, again.height / 240] * 2)
    boxes = np.rint(np.array(BOXES) * ratio)
    assert find([mark(image), mark(again, boxes)]) == [((0, 0), (0, 1), "picture")]


@pytest.mark.parametrize(
    ("shift", "scale", "same"),
    [(0.5, 1, True), (1.0, 1, False), (1.0, 2, True), (4.0, 2, False)],  # in pixels of the second picture
)
def test_boxes_are_the_same_up_to_rounding(mark, shift, scale, same):
    """To half a pixel; in a scaled picture to one pixel of the smaller one. The order of the boxes does not count."""
    moved = np.array(BOXES[::-1]) * scale + [0, 0, 0, shift]
    pictures = mark(photograph(0), classes=("a", "a")), mark(photograph(0, 90 * scale, 120 * scale), moved, ("a", "a"))
    assert same_boxes(*pictures) is same


def test_frames_of_a_fixed_camera_are_compared_with_few_others(mark, monkeypatch):
    """The work for each frame does not grow with their number."""
    compared = []
    mean = twins.alike
    monkeypatch.setattr(twins, "alike", lambda near, *rest: compared.append(len(near)) or mean(near, *rest))
    background, frames = photograph(0), []
    for k in range(60):
        frame = background.copy()
        x, y = 3 + 10 * (k % 10), 3 + 13 * (k // 10)
        frame.paste((255, 0, 0), (x, y, x + 8, y + 6))
        frames.append(mark(frame, ((x, y, x + 8, y + 6),), ("car",)))
    frames.append(mark(background, ((3, 3, 11, 9),), ("car",), suffix="jpg"))
    found = find(frames[:40], frames[40:])
    assert [pair for pair in found if pair[2] != "alike"] == []
    assert groups(find_twins([frames], lambda share: None)) == [[(0, k) for k in range(61)]]
    assert max(compared) <= 4


def test_a_copy_is_found_in_another_cell(mark):
    """Pictures whose coarse form is at the border of a cell of the grid fall on either side of it."""
    for seed in range(60):
        image = photograph(seed)
        assert find([mark(image), mark(image, suffix="jpg", quality=70)]) == [((0, 0), (0, 1), "picture")]


def test_images_that_splits_share(mark):
    """All of training that validation has, also where they are copies of each other; pictures alike do not count."""
    same, jpeg = photograph(0), {"suffix": "jpg", "quality": 70}
    train = [mark(same), mark(photograph(1)), mark(same), mark(same, **jpeg), mark(photograph(2))]
    val = [mark(photograph(1), BOXES[:1], ("cat",), **jpeg), mark(photograph(3)), mark(same)]
    assert [tuple(pair) for pair in shared(find_twins([train, val], lambda share: None))] == [
        ((0, 0), (1, 2), "file"),
        ((0, 2), (1, 2), "file"),
        ((0, 3), (1, 2), "picture"),
    ]


def test_twins_of_nothing():
    empty = Marked("", np.zeros((48, 48, 3), np.uint8), True, (), np.zeros((0, 4)), (5, 5))
    assert find([], []) == []
    assert find([empty, empty]) == []
