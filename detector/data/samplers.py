"""The order in which training sees the images: a stream of batches that is a pure function of the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Borders between the groups of shapes, as height / width. They lie between the usual formats (9:16, 2:3, 3:4, 1:1, 4:3,
# 3:2, 16:9), so that images of one format stay together.
ASPECT_BORDERS = (0.6, 0.87, 1.15, 1.6)

Key = tuple[int, int]  # (number of the draw, index of the image); no two draws of an image have one number


class EpochOrder:
    """The images of one epoch after another, as an endless sequence of keys; a pure function of the seed.

    Each epoch is a new permutation in which every image occurs once. With ``repeats`` an image occurs ``repeats[i]``
    times per epoch on average: rounded down or up, at random in each epoch. All factors are raised by less than one
    image in total, so that all epochs have the same length. Without ``repeats`` a key is (epoch, image).

    Within an epoch, the images of a batch have like shapes (see :data:`ASPECT_BORDERS`), as padding to a common size
    costs time; the few images that are left over at the end of an epoch share batches.

    Args:
        sizes: (height, width) of every image.
        images_per_batch: images per batch, over all processes.
        seed: of the order.
        group: put images of like shape together.
        repeats: float [M], at least 1 each; None: every image once.

    Attributes:
        length: keys per epoch.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]] | np.ndarray,
        images_per_batch: int,
        seed: int,
        group: bool = True,
        repeats: np.ndarray | None = None,
    ) -> None:
        if len(sizes) == 0:
            raise ValueError("no images to draw batches from")
        aspect = np.divide(*np.asarray(sizes, dtype=np.float64).T)
        self.groups = np.digitize(aspect, ASPECT_BORDERS) if group else np.zeros(len(aspect), dtype=int)
        self.images_per_batch = images_per_batch
        self.seed = seed
        self.length = len(aspect)
        self.repeats = None
        self.most = 1  # the largest number of times that an image occurs in an epoch
        if repeats is not None and (repeats > 1).any():
            self.length = math.ceil(repeats.sum())
            self.repeats = repeats * (self.length / repeats.sum())
            self.most = math.ceil(self.repeats.max())
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the latest ones

    def key(self, position: int) -> Key:
        """The key at ``position`` (from 0) of the sequence."""
        epoch, within = divmod(position, self.length)
        images, copies = self._epoch(epoch)
        return epoch * self.most + int(copies[within]), int(images[within])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch in their order, and which occurrence of its image each is: int64 [length]."""
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                self._epochs.clear()
            images, copies = self._draw(np.random.default_rng([self.seed, epoch]))
            order = self._grouped(epoch, self.groups[images])
            self._epochs[epoch] = images[order], copies[order]
        return self._epochs[epoch]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch in random order, and which occurrence of its image each is."""
        images = rng.permutation(len(self.groups))
        if self.repeats is None:
            return images, np.zeros_like(images)
        # Systematic sampling: marks at distance 1 on the line on which the images lie with their factors as lengths.
        ends = np.cumsum(self.repeats[images])
        ends[-1] = self.length
        marks = np.floor(ends + rng.random()).astype(np.int64)
        counts = np.diff(marks, prepend=0)
        copies = np.arange(self.length) - np.repeat(np.cumsum(counts) - counts, counts)
        shuffled = rng.permutation(self.length)
        return np.repeat(images, counts)[shuffled], copies[shuffled]

    def _grouped(self, epoch: int, groups: np.ndarray) -> np.ndarray:
        """Positions int64 [length] of a shuffled epoch, whole batches of one of the ``groups`` (int64 [length])
        first."""
        size = self.images_per_batch
        head = min(-epoch * self.length % size, self.length)  # fills the last batch of the epoch before
        full: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for group in range(self.groups.max() + 1):
            members = head + np.flatnonzero(groups[head:] == group)
            whole = len(members) // size * size
            full.extend(members[:whole].reshape(-1, size))
            left.append(members[whole:])
        full.sort(key=lambda positions: positions[-1])  # in the order in which the shuffled images fill them
        return np.concatenate([np.arange(head), *full, *left])


class StepBatchSampler(Sampler[list[Key]]):
    """The batches of one process; batch n of all processes takes ``images_per_batch`` keys of an :class:`EpochOrder`.

    Batch n is a function of (seed, n) only, so a run that is resumed at batch n sees what an uninterrupted one would
    have seen. (The samplers of PyTorch and Lightning draw an epoch from a random state and start it anew after a
    resume: see ``test_a_resumed_lightning_run_sees_what_an_uninterrupted_one_sees``.) Batches are always full: the one
    at the end of an epoch of the data is filled from the next, which also serves data sets smaller than a batch.

    Args:
        order: of the images of all processes.
        rank: of this process, 0 .. world_size - 1.
        world_size: number of processes.
        batches: of one iteration. The next iteration goes on where it ended.
        epoch: iterations that are over.

    Attributes:
        start_batch: first batch of the next iteration, which ends before the next multiple of ``batches``.
    """

    def __init__(self, order: EpochOrder, rank: int = 0, world_size: int = 1, batches: int = 1, epoch: int = 0) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not among {world_size} processes")
        self.order = order
        self.batch_size = order.images_per_batch // world_size
        self.rank = rank
        self.batches = batches
        self.start_batch = epoch * batches

    def batch(self, number: int) -> list[Key]:
        """The keys of this process's part of batch ``number``, from 0."""
        start = number * self.order.images_per_batch + self.rank * self.batch_size
        return [self.order.key(position) for position in range(start, start + self.batch_size)]

    def __iter__(self) -> Iterator[list[Key]]:
        return map(self.batch, range(self.start_batch, (self.start_batch // self.batches + 1) * self.batches))

    def __len__(self) -> int:
        """Batches of a whole iteration: Lightning compares it with a count that goes on after a resume."""
        return self.batches


class ShardedBatches(Sampler[list[int]]):
    """The batches of process ``rank`` in evaluation: an unbroken part of those of ``range(length)``.

    They are the very batches that a single process would make, so that every image is padded alike and gets the same
    detections whatever the number of processes. Each is in one part; a part that would be empty has image 0, which is
    in the part of rank 0 too.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        starts = range(0, length, batch_size)
        first, last = (-(-len(starts) * r // world_size) for r in (rank, rank + 1))
        own = [list(range(start, min(start + batch_size, length))) for start in starts[first:last]]
        self.parts = own or [[0]]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)
