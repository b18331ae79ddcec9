"""Which objects are on an image of the built-in data set, and where: their geometry, exact to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detector.config.schema import ShapesConfig

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]

STAR_WAIST = 0.45  # inner radius of a star
RING_HOLE = 0.6  # inner radius of a ring
CROSS_ARM = 0.34  # half the width of the arms of a cross
ASPECTS = (0.65, 1.0)  # an object is squeezed to this share of its length
ATTEMPTS = 40  # positions tried for an object before it is given up
MAX_HIDDEN = 0.4  # largest share of an object's box that later objects may cover


@dataclass(frozen=True)
class Outline:
    """A plane figure in coordinates (u, v) of its own, around the origin.

    Attributes:
        name: of the class.
        inside: whether points (u, v), two arrays of one shape, are in the figure.
        area: of the figure.
        vertices: float64 [V, 2]: its convex hull has these corners; None: its hull is the unit disc.
    """

    name: str
    inside: Inside
    area: float
    vertices: np.ndarray | None


@dataclass(frozen=True)
class SceneObject:
    """An object on an image: point (u, v) of ``outline`` is at pixel coordinates ``centre + matrix @ (u, v)``."""

    label: int  # 1..K
    outline: Outline
    matrix: np.ndarray  # float64 [2, 2]
    centre: np.ndarray  # float64 [2]: x, y

    @property
    def box(self) -> np.ndarray:
        """float64 [4]: x1, y1, x2, y2, the exact extent of the whole figure."""
        low, high = extent(self.outline, self.matrix)
        return np.concatenate([self.centre + low, self.centre + high])

    @property
    def area(self) -> float:
        """Exact area of the whole figure in pixels."""
        return abs(float(np.linalg.det(self.matrix))) * self.outline.area


def extent(outline: Outline, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest (x, y) of the figure after ``matrix``, relative to its centre."""
    if outline.vertices is None:
        # The image of the unit disc reaches as far along an axis as that row of the matrix is long.
        reach = np.sqrt((matrix**2).sum(axis=1))
        return -reach, reach
    corners = outline.vertices @ matrix.T
    return corners.min(axis=0), corners.max(axis=0)


def polygon(name: str, vertices: np.ndarray) -> Outline:
    """A simple polygon with ``vertices`` float64 [V, 2]."""
    ends = np.roll(vertices, -1, axis=0)
    area = 0.5 * abs(float((vertices[:, 0] * ends[:, 1] - vertices[:, 1] * ends[:, 0]).sum()))  # shoelace formula

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        # A point is inside if a ray from it crosses the boundary an odd number of times.
        result = np.zeros(u.shape, dtype=bool)
        for (u1, v1), (u2, v2) in zip(vertices, ends, strict=True):
            if v1 != v2:
                result ^= ((v1 > v) != (v2 > v)) & (u < u1 + (v - v1) * ((u2 - u1) / (v2 - v1)))
        return result

    return Outline(name, inside, area, vertices)


def _points(count: int, *radii: float) -> np.ndarray:
    """``count`` corners around the origin from the top on, at ``radii`` in turn."""
    angle = 2 * math.pi * np.arange(count) / count - math.pi / 2
    radius = np.resize(radii, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _cross() -> np.ndarray:
    a = CROSS_ARM
    arm = np.array([[1, -a], [1, a], [a, a]])
    turns = [np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) for t in np.arange(4) * math.pi / 2]
    return np.concatenate([arm @ turn.T for turn in turns])


def _in_ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius = np.hypot(u, v)
    return (radius <= 1) & (radius >= RING_HOLE)


OUTLINES = (
    Outline("circle", lambda u, v: u * u + v * v <= 1, math.pi, None),
    polygon("rectangle", np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])),
    polygon("triangle", _points(3, 1.0)),
    polygon("star", _points(10, 1.0, STAR_WAIST)),
    Outline("ring", _in_ring, math.pi * (1 - RING_HOLE**2), None),
    polygon("cross", _cross()),
)
CLASS_NAMES = tuple(outline.name for outline in OUTLINES)


def draw_objects(rng: np.random.Generator, config: ShapesConfig) -> list[SceneObject]:
    """Random objects for one image, from back to front, all of them wholly on the image.

    Large objects are behind small ones, the IoU of two boxes is at most ``config.max_overlap``, and at most
    ``MAX_HIDDEN`` of a box is covered, so that every box can be told from what is seen. An object
    for which no position is found is left out: crowded images may hold fewer than were asked for, but one that is not
    empty holds at least one.
    """
    if rng.random() < config.empty_fraction:
        return []
    count = int(rng.integers(1, config.max_objects, endpoint=True))
    wanted = [_draw_figure(rng, config) for _ in range(count)]
    wanted.sort(key=lambda figure: -abs(float(np.linalg.det(figure[1]))))
    placed: list[SceneObject] = []
    boxes = np.zeros((0, 4))
    hidden = np.zeros(0)  # area of each box that is covered, counted twice where two objects cover it
    for label, matrix in wanted:
        low, high = extent(OUTLINES[label - 1], matrix)
        for _ in range(ATTEMPTS):
            centre = rng.uniform(-low, config.image_size - high)
            box = np.concatenate([centre + low, centre + high])
            common = _intersection(box, boxes)
            area, areas = np.prod(high - low), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
            overlap = common / (area + areas - common)
            if (overlap <= config.max_overlap).all() and (hidden + common <= MAX_HIDDEN * areas).all():
                placed.append(SceneObject(label, OUTLINES[label - 1], matrix, centre))
                boxes, hidden = np.vstack([boxes, box]), np.append(hidden + common, 0.0)
                break
    return placed


def _draw_figure(rng: np.random.Generator, config: ShapesConfig) -> tuple[int, np.ndarray]:
    """A random label and matrix; both sides of the box lie within ``min_object .. max_object``, if that is possible."""
    largest = min(config.max_object, config.image_size)
    label = int(rng.integers(1, len(OUTLINES), endpoint=True))
    angle, aspect = rng.uniform(0, 2 * math.pi), rng.uniform(*ASPECTS)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.diag([1.0, aspect])
    low, high = extent(OUTLINES[label - 1], matrix)
    # Log-uniform: as many objects between 16 and 32 pixels as between 32 and 64.
    side = math.exp(rng.uniform(math.log(config.min_object), math.log(largest)))
    side = min(max(side, config.min_object * (high - low).max() / (high - low).min()), largest)
    return label, matrix * (side / (high - low).max())


def _intersection(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """float64 [N]: area that ``box`` [4] shares with each of ``boxes`` [N, 4]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.prod(np.clip(sides, 0, None), axis=1)
