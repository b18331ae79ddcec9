"""The geometry of the built-in data set: boxes and areas are exact, objects keep the distances that are configured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.config.defaults import default
from detector.config.schema import ShapesConfig
from detector.data.scene import CLASS_NAMES, MAX_HIDDEN, OUTLINES, SceneObject, draw_objects, extent


def object_at(outline, matrix=((10.0, 0.0), (0.0, 10.0)), centre=(32.0, 32.0)):
    return SceneObject(1, outline, np.array(matrix), np.array(centre))


def dense_points(outline, count=500):
    """Points of the figure on a fine grid of its own coordinates, and the area of a cell."""
    axis = (np.arange(count) + 0.5) / count * 3 - 1.5
    u, v = np.meshgrid(axis, axis)
    inside = outline.inside(u, v)
    return np.stack([u[inside], v[inside]], axis=1), (3 / count) ** 2


@pytest.mark.parametrize("outline", OUTLINES, ids=CLASS_NAMES)
def test_area_is_that_of_the_figure(outline):
    points, cell = dense_points(outline)
    assert len(points) * cell == pytest.approx(outline.area, rel=1e-2)


@pytest.mark.parametrize("outline", OUTLINES, ids=CLASS_NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_extent_is_that_of_the_turned_and_squeezed_figure(outline, seed):
    matrix = np.random.default_rng(seed).normal(size=(2, 2))
    points, cell = dense_points(outline)
    moved = points @ matrix.T
    low, high = extent(outline, matrix)
    step = np.abs(matrix).sum(axis=1) * np.sqrt(cell)  # how far the image of a grid cell reaches
    assert (moved.min(axis=0) >= low - 1e-12).all()
    assert (moved.max(axis=0) <= high + 1e-12).all()
    # A grid misses up to a few cells of a sharp corner.
    assert np.abs(moved.min(axis=0) - low).max() < 6 * step.max()
    assert np.abs(moved.max(axis=0) - high).max() < 6 * step.max()


def test_known_boxes():
    by_name = dict(zip(CLASS_NAMES, OUTLINES, strict=True))
    half = np.sqrt(0.5)
    turned = ((10 * half, -10 * half), (10 * half, 10 * half))  # by 45 degrees
    assert object_at(by_name["circle"], turned).box == pytest.approx([22, 22, 42, 42])
    assert object_at(by_name["rectangle"], turned).box == pytest.approx(
        [32 - 200**0.5, 32 - 200**0.5, 32 + 200**0.5, 32 + 200**0.5]
    )
    # An equilateral triangle in the unit circle, one corner up: width sqrt(3), from -1 to 1/2.
    assert object_at(by_name["triangle"]).box == pytest.approx([32 - 75**0.5, 22, 32 + 75**0.5, 37])
    assert object_at(by_name["triangle"]).area == pytest.approx(100 * 3 * 3**0.5 / 4)
    assert object_at(by_name["cross"]).area == pytest.approx(100 * (4 - 4 * 0.66**2))
    # Ellipse with half axes 20 and 10: the matrix' rows are the reaches.
    assert object_at(by_name["circle"], ((20, 0), (0, 10))).box == pytest.approx([12, 22, 52, 42])


configs = st.builds(
    ShapesConfig,
    image_size=st.integers(64, 200),
    min_object=st.integers(4, 20),
    max_object=st.integers(20, 90),
    max_objects=st.integers(1, 15),
    max_overlap=st.floats(0, 1),
    empty_fraction=st.just(0.0),
)


@given(configs, st.integers(0, 1000))
def test_objects_keep_to_the_configuration(config, seed):
    objects = draw_objects(np.random.default_rng(seed), config)
    assert 1 <= len(objects) <= config.max_objects
    boxes = np.stack([obj.box for obj in objects])
    assert boxes.min() >= -1e-9
    assert boxes.max() <= config.image_size + 1e-9
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.max() <= config.max_object + 1e-9
    if config.max_object >= 2 * config.min_object:
        assert sides.min() >= config.min_object - 1e-9
    hidden = np.zeros(len(boxes))
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes[:i]):
            common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
            union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common
            assert common / union <= config.max_overlap + 1e-9
            hidden[j] += common / np.prod(b[2:] - b[:2])
    assert hidden.max() <= MAX_HIDDEN + 1e-9


def test_share_of_empty_images_and_all_classes_and_counts_occur():
    config = default(ShapesConfig, empty_fraction=0.3)
    drawn = [draw_objects(np.random.default_rng(i), config) for i in range(400)]
    assert 0.22 < np.mean([not objects for objects in drawn]) < 0.38
    assert {obj.label for objects in drawn for obj in objects} == {1, 2, 3, 4, 5, 6}
    assert {len(objects) for objects in drawn} == {0, 1, 2, 3, 4, 5, 6}
    assert draw_objects(np.random.default_rng(0), default(ShapesConfig, empty_fraction=1.0)) == []
