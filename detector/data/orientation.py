"""Whether pictures that EXIF turns were annotated as they are stored, or as viewers show them: what a file tells.

Where turning exchanges width and height, the size of an entry tells it for its picture. Upside-down and square pictures
have one size both ways. Those of one file were most likely annotated with one tool, so the others tell for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from detector.data.images import SIDEWAYS, header_of

# Files whose headers are read before it is taken that none of a data set is turned. A header costs 0.05 ms from memory
# and much more from a network; if a hundredth of the pictures is turned, they are missed once in 10^8 data sets.
SAMPLE = 2000


class Headers:
    """Sizes and EXIF orientations of M image files, each opened when it is asked for.

    Attributes:
        sizes: int64 ``[M, 2]``: height and width as stored; 0 for a file that was not opened or cannot be read.
        orientation: int64 ``[M]``, 1..8; 0 where the size is 0.
        opened: bool ``[M]``.
    """

    def __init__(self, folder: Path, names: np.ndarray) -> None:
        self.folder, self.names = folder, names
        self.sizes = np.zeros((len(names), 2), dtype=np.int64)
        self.orientation = np.zeros(len(names), dtype=np.int64)
        self.opened = np.zeros(len(names), dtype=bool)

    def open(self, rows: np.ndarray) -> None:
        """Read the headers of ``rows`` (int ``[m]``) that have not been read."""
        for row in rows[~self.opened[rows]].tolist():
            *self.sizes[row], self.orientation[row] = header_of(self.folder / str(self.names[row]))
        self.opened[rows] = True

    @property
    def sideways(self) -> np.ndarray:
        """bool ``[M]``: pictures whose width and height differ, and are exchanged when they are shown."""
        return np.isin(self.orientation, SIDEWAYS) & (self.sizes[:, 0] != self.sizes[:, 1])


class Evidence(NamedTuple):
    """How the pictures of an annotation file that EXIF turns were annotated.

    Attributes:
        exif: "apply": as viewers show them. "ignore": as they are stored. "auto": the file does not tell, or both.
        shown: row of an entry with the size of the picture as it is shown; -1: there is none.
        stored: the same for the size as it is stored.
        undecided: rows of the pictures that EXIF turns without a change of size.
    """

    exif: str
    shown: int
    stored: int
    undecided: np.ndarray


NO_EVIDENCE = Evidence("auto", -1, -1, np.zeros(0, dtype=np.int64))


def first_told(*exif: str) -> str:
    """The first of ``exif`` that is not "auto"; "auto" if there is none."""
    return next((one for one in exif if one != "auto"), "auto")


def find_evidence(headers: Headers, sizes: np.ndarray) -> Evidence:
    """What the entries of an annotation file tell.

    Args:
        headers: of its images. If none of :data:`SAMPLE` of them, spread over the file, is turned, no others are
            opened; what is open already counts anyway.
        sizes: int64 ``[M, 2]``: height and width that the entries say.
    """
    count = len(sizes)
    known = headers.opened.all()
    sample = np.unique(np.linspace(0, count - 1, count if known else min(count, SAMPLE)).round().astype(np.int64))
    headers.open(sample)
    if not (headers.orientation[sample] > 1).any():
        return NO_EVIDENCE
    headers.open(np.arange(count))
    same = (headers.sizes == sizes).all(axis=1)
    shown = headers.sideways & (headers.sizes[:, ::-1] == sizes).all(axis=1)
    stored = headers.sideways & same
    exif = {(True, False): "apply", (False, True): "ignore"}.get((bool(shown.any()), bool(stored.any())), "auto")
    first = lambda rows: int(rows.argmax()) if rows.any() else -1
    undecided = np.flatnonzero((headers.orientation > 1) & same & ~stored)
    return Evidence(exif, first(shown), first(stored), undecided)
