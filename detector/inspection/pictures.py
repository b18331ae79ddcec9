"""Looking into every image file of a data set: damage, sizes, and pictures that occur twice."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detector.data.images import ORIENTATION, SIDEWAYS
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
        problems: of damaged files and wrong sizes, one or none an image.
    """

    paths: list[Path]
    digests: list[str]
    thumbnails: np.ndarray
    sizes: np.ndarray
    problems: list[Problem]


def look_at(
    folder: Path,
    names: Sequence[str],
    image_ids: Sequence[int],
    sizes: np.ndarray,
    threads: int,
    progress: Callable[[float], object],
) -> Pictures:
    """Open and decode every file.

    Args:
        folder: that ``names`` are relative to.
        names: of the files; a file that is not there has no digest and no problem.
        image_ids: ids of the images.
        sizes: ``[M, 2]``, height and width that the annotation file gives.
        threads: that decode.
        progress: told the share that is done.
    """
    paths = [folder / name for name in names]
    digests, problems = [], []
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    stored = np.zeros((len(paths), 2), dtype=np.int64)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        found = pool.map(look, paths, map(tuple, sizes.tolist()))
        for i, (digest, thumbnail, size, kind, what) in enumerate(found):
            digests.append(digest)
            if thumbnail is not None:
                thumbnails[i], stored[i] = thumbnail, size
            if kind:
                problems.append(Problem(kind, what, names[i], int(image_ids[i])))
            progress((i + 1) / len(paths))
    return Pictures(paths, digests, thumbnails, stored, problems)


def look(path: Path, size: tuple[int, int]) -> tuple[str, np.ndarray | None, tuple[int, int], str, str]:
    """Digest, thumbnail, stored (height, width), kind of problem and words of one file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "", None, (0, 0), "", ""
    except OSError as error:
        return "", None, (0, 0), "damaged_file", f"the file {path} cannot be read: {error.strerror}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                height, width = image.height, image.width
                sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
                image.draft("L", (4 * THUMBNAIL, 4 * THUMBNAIL))  # a JPEG is decoded small, which is faster
                grey = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    except Exception as error:  # Pillow's decoders raise what they like
        return "", None, (0, 0), "damaged_file", f"the image cannot be read: {error or type(error).__name__}"
    digest = hashlib.sha256(content).hexdigest()
    if (height, width) == size or (sideways and (width, height) == size):
        return digest, grey, (height, width), "", ""
    return (
        digest,
        grey,
        (height, width),
        "wrong_size",
        (f"the file is {width} x {height} pixels (width x height), the annotation file says {size[1]} x {size[0]}"),
    )


class Twins(NamedTuple):
    """Two images that show the same: (number of the split, row of the image) of each."""

    first: tuple[int, int]
    second: tuple[int, int]
    same_file: bool  # the files are equal; else only the pictures are


def find_twins(splits: Sequence[Pictures], progress: Callable[[float], object]) -> list[Twins]:
    """Images that occur twice, in one split or in two, each with the first one like it."""
    place = [(s, i) for s, split in enumerate(splits) for i in range(len(split.paths))]
    digests = [splits[s].digests[i] for s, i in place]
    groups = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest:
            groups[digest].append(row)
    twins = {(group[0], row): True for group in groups.values() for row in group[1:]}

    alone = np.array(sorted(group[0] for group in groups.values()), dtype=np.int64)
    everything = np.concatenate([split.thumbnails for split in splits]).reshape(len(place), THUMBNAIL**2)
    thumbnails = everything[alone].astype(np.float32)
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    length = np.linalg.norm(thumbnails, axis=1, keepdims=True)
    thumbnails /= np.maximum(length, 1e-6)  # a picture of one colour is like no other
    for start in range(0, len(alone), ROWS):
        alike = thumbnails[start : start + ROWS] @ thumbnails[: start + ROWS].T
        for a, b in np.argwhere(alike >= ALIKE).tolist():
            first, second = int(alone[b]), int(alone[start + a])
            if first < second and same_picture(*(splits[s].paths[i] for s, i in (place[first], place[second]))):
                twins[first, second] = False
        progress(min(start + ROWS, len(alone)) / len(alone))
    return [Twins(place[a], place[b], same) for (a, b), same in sorted(twins.items())]


def same_picture(first: Path, second: Path) -> bool:
    """Whether two files look the same but for compression and size."""
    small = []
    for path in (first, second):
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            image.draft("RGB", (CLOSE_LOOK, CLOSE_LOOK))
            scaled = image.convert("RGB").resize((CLOSE_LOOK, CLOSE_LOOK), Image.Resampling.BOX)
            small.append(np.asarray(scaled, dtype=np.float32))
    return float(np.abs(small[0] - small[1]).mean()) <= DIFFERENCE
