"""Looking into every image file of a data set: damage, sizes, and pictures that occur twice."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detector.data.annotations import Annotations
from detector.data.images import ORIENTATION, SIDEWAYS, quiet_open
from detector.data.problems import Problem

THUMBNAIL = 16  # side of the grey thumbnails that are compared, pixels
ALIKE = 0.99  # correlation of two thumbnails from which the pictures are compared
CLOSE_LOOK, DIFFERENCE = 128, 5.0  # side, and mean difference of 255 up to which two pictures are the same one
ROWS = 256  # thumbnails that are compared with all others at once


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is in M image files.

    Attributes:
        paths: the files.
        digests: SHA-256 of each file's content; "" for a file that cannot be read.
        thumbnails: uint8 ``[M, 16, 16]``, grey.
        sizes: int64 ``[M, 2]``: height, width as they are stored; 0 for a file that cannot be read.
        problems: of damaged files and wrong sizes, at most one per image.
    """

    paths: list[Path]
    digests: list[str]
    thumbnails: np.ndarray
    sizes: np.ndarray
    problems: list[Problem]


def look_at(folder: Path, read: Annotations, threads: int, progress: Callable[[float], object]) -> Pictures:
    """Open and decode the file of every image.

    Args:
        folder: that the file names are relative to. A file that is not there has no digest and no problem.
        read: with the sizes that the annotation file gives.
        threads: that decode.
        progress: told the share that is done.
    """
    names = read.file_names.tolist()
    paths = [folder / name for name in names]
    digests, problems = [], []
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    stored = np.zeros((len(paths), 2), dtype=np.int64)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for i, picture in enumerate(pool.map(look, paths, map(tuple, read.sizes.tolist()))):
            digests.append(picture.digest)
            stored[i] = picture.size
            if picture.thumbnail is not None:
                thumbnails[i] = picture.thumbnail
            if picture.kind:
                problems.append(Problem(picture.kind, picture.what, names[i], int(read.image_ids[i])))
            progress((i + 1) / len(paths))
    return Pictures(paths, digests, thumbnails, stored, problems)


class Picture(NamedTuple):
    """What is in one image file, by default one that cannot be read; see :class:`Pictures`."""

    kind: str = ""  # of the problem
    what: str = ""  # the problem in words
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    thumbnail: np.ndarray | None = None


def look(path: Path, size: tuple[int, int]) -> Picture:
    """What is in a file that should hold an image of ``size`` (height, width)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Picture()
    except OSError as error:
        return Picture("damaged_file", f"the file {path} cannot be read: {error.strerror}")
    try:
        with quiet_open(io.BytesIO(content)) as image:
            height, width = image.height, image.width
            sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
            image.draft("L", (4 * THUMBNAIL, 4 * THUMBNAIL))  # a JPEG is decoded small, which is faster
            grey = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    except Exception as error:  # Pillow's decoders raise what they like
        return Picture("damaged_file", f"the image cannot be read: {error or type(error).__name__}")
    kind = what = ""
    if (height, width) != size and not (sideways and (width, height) == size):
        kind = "wrong_size"
        what = f"the file is {width} x {height} pixels (width x height), the annotation file says {size[1]} x {size[0]}"
    return Picture(kind, what, hashlib.sha256(content).hexdigest(), (height, width), grey)


class Twins(NamedTuple):
    """Two images that show the same: (number of the split, row of the image) of each."""

    first: tuple[int, int]
    second: tuple[int, int]
    same_file: bool  # the files are equal; else only the pictures are


def find_twins(splits: Sequence[Pictures], progress: Callable[[float], object]) -> list[Twins]:
    """Images that occur twice, in one split or in two, each with the first one like it."""
    images = [(s, i) for s, split in enumerate(splits) for i in range(len(split.paths))]
    digests = [splits[s].digests[i] for s, i in images]
    groups = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest:
            groups[digest].append(row)
    twins = {(group[0], row): True for group in groups.values() for row in group[1:]}

    alone = np.array(sorted(group[0] for group in groups.values()), dtype=np.int64)
    everything = np.concatenate([split.thumbnails for split in splits]).reshape(len(images), THUMBNAIL**2)
    thumbnails = everything[alone].astype(np.float32)
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    length = np.linalg.norm(thumbnails, axis=1, keepdims=True)
    thumbnails /= np.maximum(length, 1e-6)  # a picture of one colour is like no other
    for start in range(0, len(alone), ROWS):
        alike = thumbnails[start : start + ROWS] @ thumbnails[: start + ROWS].T
        for a, b in np.argwhere(alike >= ALIKE).tolist():
            first, second = int(alone[b]), int(alone[start + a])
            if first < second and same_picture(*(splits[s].paths[i] for s, i in (images[first], images[second]))):
                twins[first, second] = False
        progress(min(start + ROWS, len(alone)) / len(alone))
    return [Twins(images[a], images[b], same) for (a, b), same in sorted(twins.items())]


def same_picture(first: Path, second: Path) -> bool:
    """Whether two files look the same but for compression and size."""
    small = []
    for path in (first, second):
        with quiet_open(path) as image:
            image.draft("RGB", (CLOSE_LOOK, CLOSE_LOOK))
            scaled = image.convert("RGB").resize((CLOSE_LOOK, CLOSE_LOOK), Image.Resampling.BOX)
            small.append(np.asarray(scaled, dtype=np.float32))
    return float(np.abs(small[0] - small[1]).mean()) <= DIFFERENCE
