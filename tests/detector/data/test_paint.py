"""What is painted is what is annotated."""

import colorsys

import numpy as np
import pytest

from detector.config.defaults import default
from detector.config.schema import ShapesConfig
from detector.data.paint import coverage, hsv_to_rgb, paint
from detector.data.scene import CLASS_NAMES, OUTLINES, SceneObject, draw_objects


def random_object(outline, seed, size=96):
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(0, 6.3), rng.uniform(8, 24)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return SceneObject(1, outline, scale * turn @ np.diag([1, rng.uniform(0.65, 1)]), rng.uniform(30, size - 30, 2))


@pytest.mark.parametrize("outline", OUTLINES, ids=CLASS_NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_painted_area_and_extent_are_those_of_the_annotation(outline, seed):
    obj = random_object(outline, seed)
    samples = 16
    rows, columns, alpha, _, _ = coverage(obj, 96, samples)
    assert alpha.min() >= 0
    assert alpha.max() == 1
    assert alpha.sum() == pytest.approx(obj.area, rel=0.01)
    # The outermost painted sample, to the width of a sample and what a sharp corner leaves between two of them.
    x1, y1, x2, y2 = obj.box
    painted_x, painted_y = (
        np.flatnonzero(alpha.any(axis=0)) + columns.start,
        np.flatnonzero(alpha.any(axis=1)) + rows.start,
    )
    for edge, first in ((x1, painted_x[0]), (y1, painted_y[0])):
        assert first <= edge + 0.5
        assert edge <= first + 1
    for edge, last in ((x2, painted_x[-1]), (y2, painted_y[-1])):
        assert last + 0.5 >= edge - 1
        assert edge >= last


def test_an_edge_inside_a_pixel_covers_its_share():
    rectangle = next(outline for outline in OUTLINES if outline.name == "rectangle")
    obj = SceneObject(1, rectangle, np.diag([5.0, 4.0]), np.array([10.25, 12.5]))  # x 5.25..15.25, y 8.5..16.5
    rows, columns, alpha, u, v = coverage(obj, 32)
    assert (rows, columns) == (slice(8, 17), slice(5, 16))
    assert alpha[4].tolist() == [0.75] + [1.0] * 9 + [0.25]
    assert alpha[:, 5].tolist() == [0.5] + [1.0] * 7 + [0.5]
    assert u[4, 0] == pytest.approx((5.5 - 10.25) / 5)  # pixel centres in the object's own coordinates
    assert v[0, 0] == pytest.approx((8.5 - 12.5) / 4)


def test_nothing_outside_the_box_is_painted():
    config = default(ShapesConfig, empty_fraction=0.0, difficulty=0.0)
    for seed in range(10):
        (obj, *_) = objects = draw_objects(np.random.default_rng(seed), config)
        with_object = paint(np.random.default_rng(seed), objects[:1], 128, 0.0)
        without = paint(np.random.default_rng(seed), [], 128, 0.0)
        changed = np.argwhere((with_object != without).any(axis=2))
        x1, y1, x2, y2 = obj.box
        assert len(changed) > 0.8 * obj.area
        assert changed.min(axis=0) == pytest.approx([y1, x1], abs=1.3)
        assert changed.max(axis=0) + 1 == pytest.approx([y2, x2], abs=1.3)
        assert (changed.min(axis=0) >= np.floor([y1, x1])).all()
        assert (changed.max(axis=0) < np.ceil([y2, x2])).all()


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_objects_stand_out_from_their_background(difficulty):
    """The colour of an object differs from what is behind it by more than the texture and noise around it."""
    config = default(ShapesConfig, empty_fraction=0.0, max_objects=1)
    for seed in range(12):
        (obj,) = draw_objects(np.random.default_rng(seed), config)
        image = paint(np.random.default_rng(seed), [obj], 128, difficulty) / 255
        behind = paint(np.random.default_rng(seed), [], 128, difficulty) / 255
        rows, columns, alpha, _, _ = coverage(obj, 128)
        inside = alpha == 1
        difference = image[rows, columns][inside].mean(axis=0) - behind[rows, columns][inside].mean(axis=0)
        assert np.linalg.norm(difference) > 0.25


def test_colours_are_those_of_the_standard_library():
    values = np.random.default_rng(0).uniform(-1, 2, (50, 3))
    values[:, 1:] = values[:, 1:].clip(0, 1)
    expected = [colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in values]
    np.testing.assert_allclose(hsv_to_rgb(*values.T), expected, atol=1e-12)


@pytest.mark.parametrize(("difficulty", "spread"), [(0.0, 0.01), (0.5, 0.07)])
def test_a_class_has_its_colour_unless_the_data_are_hard(difficulty, spread):
    """Hue of the middle of crosses, whose class is the last of six: around 5/6."""
    outline = OUTLINES[-1]
    obj = SceneObject(6, outline, np.diag([20.0, 20.0]), np.array([32.0, 32.0]))
    hues = []
    for seed in range(20):
        pixel = paint(np.random.default_rng(seed), [obj], 64, difficulty)[32, 32] / 255
        hues.append(colorsys.rgb_to_hsv(*pixel)[0])
    away = np.abs((np.array(hues) - 5 / 6 + 0.5) % 1 - 0.5)
    assert np.median(away) < spread
    assert difficulty == 0 or away.max() > 0.03


def test_difficulty_adds_clutter():
    spread = [
        np.mean([paint(np.random.default_rng(s), [], 64, d).std(axis=(0, 1)).mean() for s in range(5)])
        for d in (0, 0.5, 1)
    ]
    assert spread[0] == 0
    assert spread[0] < spread[1] < spread[2]
