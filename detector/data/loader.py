"""A DataLoader for images of different sizes whose errors stay readable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import Target
from detector.data.samplers import StepBatchSampler
from detector.exceptions import DataError

Batch = tuple[list[Tensor], list[Target]]


TRIES = 8  # images in a row that cannot be read are no longer an accident of single files


@dataclass
class Mended:
    """What was loaded, an item or a batch, with other images in the place of those that could not be read."""

    content: Any
    errors: list[str]  # what was wrong with those


class _Guarded(Dataset[Any]):
    """``dataset``, but a :class:`DataError` is returned as an item instead of raised.

    With ``skip``, items are asked for by (number of the draw, index), and one that cannot be read is replaced by the
    next that can.
    """

    def __init__(self, dataset: Dataset[Any], skip: bool) -> None:
        self.dataset = dataset
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return self.replace(key, error) if self.skip else error

    def replace(self, key: tuple[int, int], error: DataError) -> Mended | DataError:
        """Another item, which depends on ``key`` only, for one that raises ``error``."""
        draw, index = key
        errors = [str(error)]
        for step in range(1, TRIES):
            try:
                return Mended(self.dataset[draw, (index + step) % len(self)], errors)
            except DataError as another:
                errors.append(str(another))
        others = f"The {TRIES - 1} images after it cannot be read either: is the folder still there?"
        return DataError(f"{errors[0]}\n{others}")


def collate(items: list[Any]) -> Batch | DataError | Mended:
    """Lists of images and of targets, as torchvision's detectors take them; or the first error among ``items``."""
    errors: list[str] = []
    pairs = []
    for item in items:
        if isinstance(item, DataError):
            return item
        if isinstance(item, Mended):
            errors += item.errors
        pairs.append(item.content if isinstance(item, Mended) else item)
    batch = [image for image, _ in pairs], [target for _, target in pairs]
    return Mended(batch, errors) if errors else batch


def apart(worker: int) -> None:
    """Give a loader process a process group of its own.

    A signal to the whole group, as `timeout` and batch systems send it, is for the process that trains: that one ends
    its step, writes a checkpoint and ends its loaders. They would die at once, and the step with them.
    """
    os.setpgid(0, 0)


class DetectionLoader(DataLoader[Any]):
    """Yields ``(list of images, list of targets)``; keyword arguments are those of ``DataLoader``.

    PyTorch turns an exception in a loader process into one whose message is a traceback. A :class:`DataError` is meant
    for the user, so it travels as a value and is raised here.

    Args:
        dataset: of pairs (image, target).
        on_skip: called with what is wrong with each image that cannot be read; another one takes its place. None: the
            error is raised.
    """

    def __init__(self, dataset: Dataset[Any], on_skip: Callable[[str], None] | None = None, **arguments: Any) -> None:
        super().__init__(_Guarded(dataset, on_skip is not None), collate_fn=collate, worker_init_fn=apart, **arguments)
        self.on_skip = on_skip

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            if isinstance(batch, Mended):
                for error in batch.errors:
                    if self.on_skip:
                        self.on_skip(error)
                batch = batch.content
            yield batch


class StepLoader(DetectionLoader):
    """Batches of a :class:`StepBatchSampler`; each iteration goes on where the one before it ended.

    Lightning keeps the state in its checkpoints and puts it back, so that a resumed run goes on with the next batch.

    Attributes:
        next_step: step of the batch that is handed out next, whatever loader processes have prepared.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepBatchSampler, **arguments: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, **arguments)
        self.stream = sampler
        self.next_step = sampler.start_step

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.stream.start_step = self.next_step
        try:
            for batch in super().__iter__():
                self.next_step += 1
                yield batch
        except DataError as error:
            if self.on_skip:
                raise
            raise DataError(
                f"{error} Or go on without it: with data.on_error=skip the next image takes its place, and "
                "skipped.txt names it."
            ) from None

    def state_dict(self) -> dict[str, int]:
        """The step whose batch comes next."""
        return {"step": self.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration start where the state was taken."""
        self.next_step = state["step"]
