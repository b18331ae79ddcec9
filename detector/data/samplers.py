"""The order in which training sees the images: a stream of batches that is a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Borders between the groups of shapes, as height / width. They lie between the usual formats (9:16, 2:3, 3:4, 1:1, 4:3,
# 3:2, 16:9), so that images of one format stay together.
ASPECT_BORDERS = (0.6, 0.87, 1.15, 1.6)

Key = tuple[int, int]  # (pass over the data, index of the image)


class StepBatchSampler(Sampler[list[Key]]):
    """Batches for the steps ``start_step .. total_steps - 1`` of an endless stream over the data.

    The stream is one pass after another, each a new permutation in which every image occurs once. Batch n is a function
    of (seed, n) only, so a run that is resumed at step n sees what an uninterrupted one would have seen, and training
    by steps needs no epochs. Batches are always full: the one at the end of a pass is filled from the next pass, which
    also serves data sets smaller than a batch.

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
        self._orders: dict[int, np.ndarray] = {}  # of the latest passes

    def set_position(self, step: int) -> None:
        """Let the next iteration start at ``step``."""
        self.start_step = step

    def batch(self, step: int) -> list[Key]:
        """The keys of this process's batch at ``step``."""
        start = (step * self.world + self.rank) * self.batch_size
        keys = []
        for position in range(start, start + self.batch_size):
            round_, place = divmod(position, len(self.groups))
            keys.append((round_, int(self._order(round_)[place])))
        return keys

    def _order(self, round_: int) -> np.ndarray:
        """int64 [M]: the images of pass ``round_`` in the order they are taken."""
        if round_ not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            self._orders[round_] = self._make_order(round_)
        return self._orders[round_]

    def _make_order(self, round_: int) -> np.ndarray:
        count, step_size = len(self.groups), self.batch_size * self.world
        order = np.random.default_rng([self.seed, round_]).permutation(count)
        head = min(-round_ * count % step_size, count)  # fills the last batch of the pass before
        rest = order[head:]
        full: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for group in range(self.groups.max() + 1):
            members = np.flatnonzero(self.groups[rest] == group)
            whole = len(members) // step_size * step_size
            full.extend(members[:whole].reshape(-1, step_size))
            left.append(members[whole:])
        full.sort(key=lambda places: places[-1])  # in the order in which the shuffled images fill them
        return np.concatenate([order[:head], *(rest[places] for places in full), rest[np.concatenate(left)]])

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


class ShardSampler(Sampler[int]):
    """The images of one process in evaluation: an unbroken part of ``range(length)``; each image is in one part."""

    def __init__(self, length: int, rank: int = 0, world: int = 1) -> None:
        self.part = range(length * rank // world, length * (rank + 1) // world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.part)

    def __len__(self) -> int:
        return len(self.part)
