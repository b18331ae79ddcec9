"""The order in which training sees the images: a stream of batches that is a pure function of the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Borders between the groups of shapes, as height / width. They lie between the usual formats (9:16, 2:3, 3:4, 1:1, 4:3,
# 3:2, 16:9), so that images of one format stay together.
ASPECT_BORDERS = (0.6, 0.87, 1.15, 1.6)

Key = tuple[int, int]  # (number of the draw: no image has one twice, index of the image)


class StepBatchSampler(Sampler[list[Key]]):
    """Batches for the steps ``start_step .. total_steps - 1`` of an endless stream over the data.

    The stream is one pass after another, each a new permutation in which every image occurs once. Batch n is a function
    of (seed, n) only, so a run that is resumed at step n sees what an uninterrupted one would have seen, and training
    by steps needs no epochs. Batches are always full: the one at the end of a pass is filled from the next pass, which
    also serves data sets smaller than a batch.

    With ``repeats`` an image occurs ``repeats[i]`` times a pass on average: rounded down or up, at random in each pass.
    All factors are raised by less than one image in total, so that all passes have the same length. Without it a key
    is (pass, image).

    Within a pass, images are put into batches with images of like shape (see :data:`ASPECT_BORDERS`), as padding to a
    common size costs time; the few that are left over at the end of a pass share batches.

    With several processes, step n takes ``world`` batches from the stream, one each, of like shape too.

    Args:
        sizes: (height, width) of every image.
        batch_size: images a batch.
        seed: of the order.
        rank: number of this process, 0 .. world - 1.
        world: number of processes.
        start_step: first step that is yielded.
        total_steps: the stream ends before this step; None: never.
        group: put images of like shape together.
        repeats: float [M], at least 1 each; None: every image once.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]] | np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        total_steps: int | None = None,
        group: bool = True,
        repeats: np.ndarray | None = None,
    ) -> None:
        if len(sizes) == 0:
            raise ValueError("no images to draw batches from")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not among {world} processes")
        aspect = np.divide(*np.asarray(sizes, dtype=np.float64).T)
        self.groups = np.digitize(aspect, ASPECT_BORDERS) if group else np.zeros(len(aspect), dtype=int)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start_step = start_step
        self.total_steps = total_steps
        self.length = len(aspect)  # of a pass
        self.repeats = None
        self.most = 1  # times that an image occurs in a pass
        if repeats is not None and (repeats > 1).any():
            self.length = math.ceil(repeats.sum())
            self.repeats = repeats * (self.length / repeats.sum())
            self.most = math.ceil(self.repeats.max())
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of the latest passes

    def set_position(self, step: int) -> None:
        """Let the next iteration start at ``step``."""
        self.start_step = step

    def batch(self, step: int) -> list[Key]:
        """The keys of this process's batch at ``step``."""
        start = (step * self.world + self.rank) * self.batch_size
        keys = []
        for position in range(start, start + self.batch_size):
            round_, place = divmod(position, self.length)
            images, copies = self._order(round_)
            keys.append((round_ * self.most + int(copies[place]), int(images[place])))
        return keys

    def _order(self, round_: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of pass ``round_`` in the order they are taken, and which time each is seen: int64 [length]."""
        if round_ not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            rng = np.random.default_rng([self.seed, round_])
            images, copies = self._draw(rng)
            order = self._grouped(round_, self.groups[images])
            self._orders[round_] = images[order], copies[order]
        return self._orders[round_]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images of a pass in random order, and which time each is seen."""
        images = rng.permutation(len(self.groups))
        if self.repeats is None:
            return images, np.zeros_like(images)
        # Systematic sampling: marks at distance 1 on the line on which the images lie with their factors as lengths.
        ends = np.cumsum(self.repeats[images])
        ends[-1] = self.length
        marks = np.floor(ends + rng.random()).astype(np.int64)
        counts = marks - np.concatenate([[0], marks[:-1]])
        copies = np.arange(self.length) - np.repeat(np.cumsum(counts) - counts, counts)
        shuffled = rng.permutation(self.length)
        return np.repeat(images, counts)[shuffled], copies[shuffled]

    def _grouped(self, round_: int, groups: np.ndarray) -> np.ndarray:
        """Places int64 [length] of a shuffled pass, put together by ``groups`` (int64 [length]) as far as it goes."""
        step_size = self.batch_size * self.world
        head = min(-round_ * self.length % step_size, self.length)  # fills the last batch of the pass before
        full: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for group in range(self.groups.max() + 1):
            members = head + np.flatnonzero(groups[head:] == group)
            whole = len(members) // step_size * step_size
            full.extend(members[:whole].reshape(-1, step_size))
            left.append(members[whole:])
        full.sort(key=lambda places: places[-1])  # in the order in which the shuffled images fill them
        return np.concatenate([np.arange(head), *full, *left])

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.start_step
        while self.total_steps is None or step < self.total_steps:
            yield self.batch(step)
            step += 1

    def __len__(self) -> int:
        """Number of steps of the whole run, those before ``start_step`` included.

        Lightning compares it with a count that goes on after a resume.
        """
        if self.total_steps is None:
            raise TypeError("the stream of batches has no end: total_steps is None")
        return self.total_steps


def shard(length: int, batch_size: int, rank: int = 0, world: int = 1) -> range:
    """The images of process ``rank`` in evaluation: an unbroken part of ``range(length)``; each image is in one part.

    Parts consist of the very batches that a single process would make, so that every image is padded alike and gets
    the same detections whatever the number of processes. A part may be empty.
    """
    batches = -(-length // batch_size)
    first, last = (min(length, batches * r // world * batch_size) for r in (rank, rank + 1))
    return range(first, last)
