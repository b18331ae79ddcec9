"""Looking into every image file of a data set: damage, sizes, orientation, and what is needed to find twins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detector.data.annotations import Annotations
from detector.data.images import read_pixels
from detector.data.orientation import Headers
from detector.data.problems import Problem
from detector.exceptions import DataError

SIDE = 48  # of the thumbnails that are compared, pixels: 0.8 GB for the 118,000 images of COCO
FLAT = 4  # a picture with fewer values between its darkest and its lightest shows nothing that could be compared


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is in M image files.

    Attributes:
        paths: the files.
        digests: SHA-256 of each file's content; "" for a file that cannot be read.
        thumbnails: uint8 ``[M, SIDE, SIDE, 3]``, from the darkest to the lightest value of each picture, as stored.
        flat: bool ``[M]``: pictures of one colour, and files that cannot be read.
        headers: height, width and EXIF orientation of each.
        brightest: int64 ``[M]``: the largest value of a file with 16 bits; -1 for others.
        problems: of damaged files, at most one per image.
    """

    paths: list[Path]
    digests: list[str]
    thumbnails: np.ndarray
    flat: np.ndarray
    headers: Headers
    brightest: np.ndarray
    problems: list[Problem]


def look_at(folder: Path, read: Annotations, white: int, threads: int, progress: Callable[[float], object]) -> Pictures:
    """Open and decode the file of every image, as training does.

    Args:
        folder: that the file names are relative to. A file that is not there has no digest and no problem.
        read: with the file names.
        white: see :class:`~detector.data.images.Reading`.
        threads: that decode.
        progress: told the share that is done.
    """
    names = read.file_names.tolist()
    count = len(names)
    found = Pictures(
        paths=[folder / name for name in names],
        digests=[],
        thumbnails=np.zeros((count, SIDE, SIDE, 3), dtype=np.uint8),
        flat=np.ones(count, dtype=bool),
        headers=Headers(folder, read.file_names),
        brightest=np.full(count, -1),
        problems=[],
    )
    found.headers.opened[:] = True
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for i, picture in enumerate(pool.map(lambda path: look(path, white), found.paths)):
            found.digests.append(picture.digest)
            found.headers.sizes[i], found.headers.orientation[i] = picture.size, picture.orientation
            found.flat[i], found.brightest[i] = picture.flat, picture.brightest
            if picture.thumbnail is not None:
                found.thumbnails[i] = picture.thumbnail
            if picture.damage:
                found.problems.append(Problem("damaged_file", picture.damage, names[i], int(read.image_ids[i])))
            progress((i + 1) / count)
    return found


class Picture(NamedTuple):
    """What is in one image file, by default one that cannot be read; see :class:`Pictures`."""

    damage: str = ""  # in words
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 0
    brightest: int = -1
    flat: bool = True
    thumbnail: np.ndarray | None = None


def look(path: Path, white: int) -> Picture:
    """What is in an image file."""
    if not path.exists():
        return Picture()
    try:
        array, orientation, brightest = read_pixels(path, white)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError) as error:
        return Picture(str(error))
    small = shrunk(array)
    low, high = float(small.min()), float(small.max())
    flat = (high - low) * (255 if brightest < 0 else white) < FLAT
    thumbnail = ((small - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
    return Picture("", digest, array.shape[:2], orientation, brightest, flat, thumbnail)


def shrunk(array: np.ndarray) -> np.ndarray:
    """``array`` (uint8 or float32 [H, W, 3]) as float32 [SIDE, SIDE, 3] in 0..1, each value a mean over its part."""
    box = Image.Resampling.BOX
    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).resize((SIDE, SIDE), box), dtype=np.float32) / np.float32(255)
    planes = (Image.fromarray(np.ascontiguousarray(array[:, :, k])) for k in range(3))
    return np.stack([np.asarray(plane.resize((SIDE, SIDE), box)) for plane in planes], axis=2)


def wrong_sizes(read: Annotations, headers: Headers) -> list[Problem]:
    """The images whose file has another size than ``read`` says, both as it is stored and as EXIF turns it."""
    fits = (headers.sizes == read.sizes).all(axis=1)
    fits |= headers.sideways & (headers.sizes[:, ::-1] == read.sizes).all(axis=1)
    problems = []
    for row in np.flatnonzero(~fits & (headers.orientation > 0)).tolist():
        (height, width), (said_height, said_width) = headers.sizes[row].tolist(), read.sizes[row].tolist()
        what = (
            f"the file is {width} x {height} pixels (width x height), the annotation file says "
            f"{said_width} x {said_height}"
        )
        problems.append(Problem("wrong_size", what, str(read.file_names[row]), int(read.image_ids[row])))
    return problems
