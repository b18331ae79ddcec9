"""Paints an image of the built-in data set: textured objects over a cluttered background, anti-aliased."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from detector.data.scene import OUTLINES, SceneObject

# Samples per pixel and axis. Edges in the image and in the annotation agree to 1 / (2 * SAMPLES) pixel.
SAMPLES = 4
# Smallest distance in RGB between an object's colour and the background behind it, at difficulty 0 and 1.
CONTRAST = (0.7, 0.3)
STROKES = 8  # lines and blots on the background at difficulty 1


def paint(rng: np.random.Generator, objects: list[SceneObject], size: int, difficulty: float) -> np.ndarray:
    """The image as uint8 [size, size, 3], RGB. ``objects`` are given from back to front."""
    image = _background(rng, size, difficulty)
    for obj in objects:
        _paint_object(rng, image, obj, difficulty)
    image += rng.normal(0, 0.03 * difficulty, image.shape)  # sensor noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def coverage(
    obj: SceneObject, size: int, samples: int = SAMPLES
) -> tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray]:
    """Where an object is on an image of ``size`` x ``size`` pixels.

    Returns:
        Rows and columns of its window; how much of each pixel there it covers, float64 [h, w] in 0..1; and the figure's
        own coordinates u and v at the pixel centres, float64 [h, w].
    """
    x1, y1, x2, y2 = obj.box
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(size, math.ceil(x2)), min(size, math.ceil(y2))
    height, width = bottom - top, right - left
    x = left + (np.arange(width * samples) + 0.5) / samples - obj.centre[0]
    y = top + (np.arange(height * samples) + 0.5) / samples - obj.centre[1]
    (a, b), (c, d) = np.linalg.inv(obj.matrix)
    u = a * x[None, :] + b * y[:, None]
    v = c * x[None, :] + d * y[:, None]
    alpha = obj.outline.inside(u, v).reshape(height, samples, width, samples).mean(axis=(1, 3))
    u, v = (w.reshape(height, samples, width, samples).mean(axis=(1, 3)) for w in (u, v))
    return slice(top, bottom), slice(left, right), alpha, u, v


def _paint_object(rng: np.random.Generator, image: np.ndarray, obj: SceneObject, difficulty: float) -> None:
    rows, columns, alpha, u, v = coverage(obj, image.shape[0])
    window = image[rows, columns]
    behind = (window * alpha[..., None]).sum(axis=(0, 1)) / alpha.sum()
    least = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * difficulty
    colour = _colour(rng, (obj.label - 1) / len(OUTLINES), difficulty, behind, least)
    # The second colour of the texture is a shade of the first, on the side away from the background.
    strength = rng.uniform(0.1, 0.3)
    shade = np.clip(colour + strength * np.sign(colour.mean() - behind.mean()) * rng.uniform(0.3, 1, 3), 0, 1)
    amount = _texture(rng, u, v)[..., None]
    light = 1 + 0.15 * difficulty * (u * rng.uniform(-1, 1) + v * rng.uniform(-1, 1))[..., None]  # lit from one side
    surface = (colour + (shade - colour) * amount) * light
    window += (surface - window) * alpha[..., None]


def _colour(rng: np.random.Generator, hue: float, difficulty: float, behind: np.ndarray, least: float) -> np.ndarray:
    """A random colour (float64 [3]) at least ``least`` away from ``behind``; the farthest of 50 if none is.

    Its hue (0..1) is ``hue`` at difficulty 0, within a sixteenth of the circle of it at 0.5, and any at 1: each class
    has its typical colour, and the harder the data, the less it tells.
    """
    hues = hue + 0.5 * difficulty**3 * rng.uniform(-1, 1, 50)
    colours = hsv_to_rgb(hues, rng.uniform(0.4, 1, 50), rng.uniform(0.3, 1, 50))
    distance = np.linalg.norm(colours - behind, axis=1)
    good = np.flatnonzero(distance >= least)
    return colours[good[0] if len(good) else distance.argmax()]


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """float64 [N, 3] in 0..1 for three arrays [N]; a full circle of hues is 1, and hues wrap around."""
    sector = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _texture(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How much of the second colour is where, 0..1, in the object's own coordinates: it turns with the object."""
    kind = rng.integers(5)
    frequency, phase = rng.uniform(4, 9), rng.uniform(0, 2 * math.pi, 2)
    if kind == 0:  # plain
        return np.zeros_like(u)
    if kind == 1:  # stripes
        angle = rng.uniform(0, math.pi)
        return 0.5 + 0.5 * np.sin(frequency * (u * math.cos(angle) + v * math.sin(angle)) + phase[0])
    if kind == 2:  # checks
        return 0.5 + 0.5 * np.tanh(6 * np.sin(frequency * u + phase[0]) * np.sin(frequency * v + phase[1]))
    if kind == 3:  # dots
        return 1 / (1 + np.exp(-8 * (np.cos(frequency * u + phase[0]) + np.cos(frequency * v + phase[1]) - 0.8)))
    return 0.5 + 0.5 * np.clip(u * math.cos(phase[0]) + v * math.sin(phase[0]), -1, 1)  # from one colour to the other


def _background(rng: np.random.Generator, size: int, difficulty: float) -> np.ndarray:
    """float64 [size, size, 3]: clouds of two colours, with strokes and blots that are none of the classes."""
    base = rng.uniform(0.1, 0.9, 3)
    other = np.clip(base + difficulty * rng.uniform(-0.5, 0.5, 3), 0, 1)
    amount = _clouds(rng, size)[..., None]
    image = base + (other - base) * amount
    image += 0.12 * difficulty * (_clouds(rng, size, finest=4)[..., None] - 0.5)  # grain
    for _ in range(rng.binomial(STROKES, difficulty)):
        alpha = _stroke(rng, size)[..., None] * rng.uniform(0.3, 0.9)
        image += (np.clip(base + 0.7 * difficulty * rng.uniform(-1, 1, 3), 0, 1) - image) * alpha
    return np.clip(image, 0, 1)


def _clouds(rng: np.random.Generator, size: int, finest: int = 16) -> np.ndarray:
    """float64 [size, size] in 0..1: random grids of ever smaller cells, down to ``finest`` pixels, added up."""
    total = np.zeros((size, size), dtype=np.float32)
    cell, weight = max(size / 2, finest), 1.0
    while cell >= finest:
        count = max(2, round(size / cell) + 1)
        grid = Image.fromarray(rng.random((count, count), dtype=np.float32))
        total += weight * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
        cell, weight = cell / 2, weight * 0.6
    total -= total.min()
    return (total / max(float(total.max()), 1e-6)).astype(np.float64)


def _stroke(rng: np.random.Generator, size: int) -> np.ndarray:
    """float64 [size, size] in 0..1: the coverage of a random bent line or a soft blot."""
    if rng.random() < 0.4:
        x, y = np.arange(size) - rng.uniform(0, size), np.arange(size) - rng.uniform(0, size)
        radius = size * rng.uniform(0.03, 0.12, 2)
        return np.exp(-0.5 * ((x[None, :] / radius[0]) ** 2 + (y[:, None] / radius[1]) ** 2))
    canvas = Image.new("L", (2 * size, 2 * size))
    angle, bend, step = rng.uniform(0, 2 * math.pi), rng.uniform(-0.35, 0.35), size * rng.uniform(0.1, 0.25)
    points = [tuple(rng.uniform(0, 2 * size, 2))]
    for i in range(8):
        x, y = points[-1]
        points.append((x + step * math.cos(angle + bend * i), y + step * math.sin(angle + bend * i)))
    ImageDraw.Draw(canvas).line(points, fill=255, width=int(rng.integers(2, 7)), joint="curve")
    return np.asarray(canvas.reduce(2), dtype=np.float64) / 255
