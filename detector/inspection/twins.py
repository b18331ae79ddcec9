"""Images that occur twice in a data set, and images that look nearly alike but are not the same.

Copies are equal files, and pictures that look the same *and* have the same boxes: compressed again, scaled, in another
format. Frames of a fixed camera look the same while something small moves in them, and their boxes tell. Where nothing
is marked, nothing does: pictures without a box are copies only if their files are equal.

A picture is compared only with those in its cells of a grid of coarse pictures, and for copies of a grid of boxes; of
one cell, with a limited number. So the time is linear in the number of images.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from detector.inspection.pictures import SIDE

Image = tuple[int, int]  # number of the split, row of the image

ALIKE = 5.0  # mean difference of two thumbnails, of 255, up to which their pictures look alike
LOCAL = 32.0  # the largest difference of two copies, in the mean of the three colours
BLOCKS, CELL, MARGIN = 3, 64.0, 8.0  # coarse picture: blocks a side; side of a cell; how far copies are apart in it
PLACE, PLACE_MARGIN = 1 / 16, 1 / 64  # of the mean box, as a share of width and height: the same two
IN_CELL, COMPARED = 512, 128  # pictures that one is compared with, at most: in coarse form in a cell, and closely


@dataclass(frozen=True, eq=False)
class Marked:
    """A picture with its boxes.

    Attributes:
        digest: of the file; "" if it cannot be read.
        thumbnail: uint8 ``[SIDE, SIDE, 3]``, turned as its boxes are.
        flat: there is nothing in it that could be compared.
        classes: names of the boxes, sorted.
        boxes: float64 ``[N, 4]``, x1, y1, x2, y2 as shares of width and height, in the order of ``classes``.
        size: height and width in pixels.
    """

    digest: str
    thumbnail: np.ndarray
    flat: bool
    classes: tuple[str, ...]
    boxes: np.ndarray
    size: tuple[int, int]


class Twins(NamedTuple):
    """Two images that show the same or nearly the same."""

    first: Image
    second: Image
    kind: str  # "file": their files are equal; "picture": copies all the same; "alike": not the same

    @property
    def copy(self) -> bool:
        """Whether the two are one picture, and not only nearly alike."""
        return self.kind != "alike"


@dataclass(frozen=True)
class Shelf:
    """Pictures by the cells of a grid, so that those nearby are found."""

    cells: dict[Hashable, list[int]] = field(default_factory=lambda: defaultdict(list))

    def near(self, keys: Iterable[Hashable]) -> list[int]:
        """The pictures in the cells ``keys``, of an overfull one the last."""
        return [number for key in keys for number in self.cells.get(key, ())[-IN_CELL:]]


def find_twins(splits: Sequence[Sequence[Marked]], progress: Callable[[float], object]) -> list[Twins]:
    """Images that occur twice, in one split or in two, or look nearly alike, each with the first one like it.

    A copy is listed as such only.
    """
    images = [(s, i) for s, split in enumerate(splits) for i in range(len(split))]
    marked = [splits[s][i] for s, i in images]
    coarse = np.zeros((len(images), BLOCKS**2 + 4))  # the blocks, and the mean box in the same unit
    by_digest: dict[str, int] = {}
    root: dict[int, int] = {}  # the first copy of each copy
    originals, leaders = Shelf(), Shelf()
    twins = []
    for number, picture in enumerate(marked):
        progress(number / len(marked))
        if not picture.digest:
            continue
        equal = by_digest.setdefault(picture.digest, number)
        if equal != number:
            twins.append((root.get(equal, equal), number, "file"))
            continue
        if picture.flat:
            continue
        coarse[number, :-4] = blocks(picture.thumbnail)
        own, *others = cells(coarse[number, :-4], CELL, MARGIN)
        if len(picture.boxes):
            place = picture.boxes.mean(axis=0)
            coarse[number, -4:] = place * (MARGIN / PLACE_MARGIN)
            own_place, *other_places = cells(place, PLACE, PLACE_MARGIN)
            keys = itertools.product((own, *others), (own_place, *other_places), [picture.classes])
            near = alike(originals.near(keys), number, marked, coarse)
            near = [n for n in near if same_boxes(marked[n], picture) and is_copy(marked[n], picture)]
            if near:
                root[number] = near[0]
                twins.append((near[0], number, "picture"))
                continue
            originals.cells[own, own_place, picture.classes].append(number)
        near = alike(leaders.near((own, *others)), number, marked, coarse[:, :-4])
        if near:
            twins.append((near[0], number, "alike"))
        else:
            leaders.cells[own].append(number)
    progress(1.0)
    return [Twins(images[a], images[b], kind) for a, b, kind in sorted(twins)]


def groups(twins: Sequence[Twins]) -> list[list[Image]]:
    """The images of each first one of ``twins``, in order."""
    found = defaultdict(list)
    for pair in twins:
        found[pair.first].append(pair.second)
    return [[first, *sorted(others)] for first, others in sorted(found.items())]


def shared(twins: Sequence[Twins]) -> list[Twins]:
    """Each image of the first split that others have a copy of, with the first of these."""
    copies = [pair for pair in twins if pair.copy]
    looks = {pair.second for pair in copies if pair.kind == "picture"}  # the file of its first one is another
    found = []
    for group in groups(copies):
        other = next((image for image in group if image[0] > 0), None)
        kind = lambda image, other: "picture" if looks & {image, other} else "file"
        found += [Twins(image, other, kind(image, other)) for image in group if image[0] == 0 and other is not None]
    return found


# ---------------------------------------------------------------------------------------- one picture and another
def blocks(thumbnail: np.ndarray) -> np.ndarray:
    """float64 ``[BLOCKS²]``: the mean of each block of a thumbnail."""
    side = SIDE // BLOCKS
    return thumbnail.reshape(BLOCKS, side, BLOCKS, side, 3).mean(axis=(1, 3, 4), dtype=np.float64).ravel()


def cells(values: np.ndarray, side: float, margin: float) -> Iterator[tuple[int, ...]]:
    """The cell of ``values`` in a grid, and those that values within ``margin`` of each of them may be in."""
    at = values / side
    own = np.floor(at).astype(int)
    low, high = np.floor(at - margin / side).astype(int), np.floor(at + margin / side).astype(int)
    yield tuple(own.tolist())
    ways = [sorted({a, b, c}, key=lambda v: v != b) for a, b, c in zip(low, own, high, strict=True)]
    yield from itertools.islice(itertools.product(*([int(v) for v in way] for way in ways)), 1, None)


def alike(candidates: Sequence[int], number: int, marked: Sequence[Marked], coarse: np.ndarray) -> list[int]:
    """Those of the ``candidates`` that look like picture ``number``, in order."""
    if not candidates:
        return []
    rows = np.array(sorted(candidates))
    rows = rows[(np.abs(coarse[rows] - coarse[number]) <= MARGIN).all(axis=1)][:COMPARED]
    own = marked[number].thumbnail.astype(np.int16)
    return [row for row in rows.tolist() if np.abs(own - marked[row].thumbnail).mean() <= ALIKE]


def is_copy(first: Marked, second: Marked) -> bool:
    """Whether two pictures that look alike differ nowhere: a copy has no part that shows something else."""
    difference = np.abs(first.thumbnail.astype(np.int16) - second.thumbnail)
    return float(difference.mean(axis=2).max()) <= LOCAL


def same_boxes(first: Marked, second: Marked) -> bool:
    """Whether two pictures of the same classes have the same boxes, up to rounding to pixels of the smaller one."""
    if len(first.boxes) != len(second.boxes):
        return False
    # Edges of a picture of another size are rounded twice: as left and width.
    allowed = 0.51 if first.size == second.size else 1.01
    pixels = np.minimum(first.size, second.size)[[1, 0, 1, 0]]
    limit = np.minimum(allowed / pixels, PLACE_MARGIN)
    apart = np.abs(first.boxes[:, None] - second.boxes[None])
    near = (apart <= limit).all(axis=2) & (np.array(first.classes)[:, None] == np.array(second.classes))
    return bool(near.any(axis=0).all() and near.any(axis=1).all())
