"""A DataLoader for images of different sizes whose errors stay readable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import Target
from detector.data.samplers import StepBatchSampler
from detector.exceptions import DataError, TransformError

Batch = tuple[list[Tensor], list[Target]]

TRIES = 8  # images in a row that cannot be read are no longer an accident of single files


class Loaded(NamedTuple):
    """What a loader process hands over: an item or a batch, and what was wrong with images that it skipped.

    The content is a :class:`DataError` if an image could not be read and was not skipped.
    """

    content: Any
    skipped: tuple[str, ...] = ()


class _CatchingDataset(Dataset[Loaded]):
    """``dataset`` with each item as :class:`Loaded`, so that its :class:`DataError` is a value.

    With ``skip``, items are asked for by (number of the draw, index), and one that cannot be read is replaced by the
    next that can: it depends on the key only.
    """

    def __init__(self, dataset: Dataset[Any], skip: bool) -> None:
        self.dataset = dataset
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Loaded:
        errors: list[str] = []
        for attempt in range(TRIES):
            try:
                return Loaded(self.dataset[(key[0], (key[1] + attempt) % len(self)) if attempt else key], tuple(errors))
            except DataError as error:
                if not self.skip or isinstance(error, TransformError):
                    return Loaded(error)
                errors.append(str(error))
        others = f"The {TRIES - 1} images after it cannot be read either: is the folder still there?"
        return Loaded(DataError(f"{errors[0]}\n{others}"))


def collate(items: list[Loaded]) -> Loaded:
    """Lists of images and of targets, as torchvision's detectors take them; or the first error among ``items``."""
    for item in items:
        if isinstance(item.content, DataError):
            return item
    images, targets = (list(part) for part in zip(*(item.content for item in items), strict=True))
    return Loaded((images, targets), tuple(error for item in items for error in item.skipped))


def start_process_group(worker: int) -> None:
    """Give a loader process a process group of its own.

    `timeout` and batch systems send a signal to the whole group. It is for the process that trains, which ends its
    step, writes a checkpoint and ends its loader processes. They would die at once, and the step with them.
    """
    os.setpgid(0, 0)


class DetectionLoader(DataLoader[Any]):
    """Yields ``(list of images, list of targets)``; keyword arguments are those of ``DataLoader``.

    PyTorch's ``DataLoader`` turns an exception of a loader process into one whose message is a traceback (see
    ``test_damaged_image_is_one_message_from_any_process``). A :class:`DataError` is meant for the user, so it travels
    as a value and is raised here.

    Args:
        dataset: of pairs (image, target).
        on_skip: called with what is wrong with each image that cannot be read; another one takes its place. None: the
            error is raised.
    """

    def __init__(self, dataset: Dataset[Any], on_skip: Callable[[str], None] | None = None, **arguments: Any) -> None:
        # Lightning makes a loader anew, from its attributes, for predictions.
        caught = dataset if isinstance(dataset, _CatchingDataset) else _CatchingDataset(dataset, on_skip is not None)
        arguments = {**arguments, "collate_fn": collate, "worker_init_fn": start_process_group}
        super().__init__(caught, **arguments)
        self.on_skip = on_skip

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for loaded in super().__iter__():
            for error in loaded.skipped:
                if self.on_skip:
                    self.on_skip(error)
            yield content_of(loaded)


def content_of(loaded: Loaded) -> Any:
    """The batch; raises its :class:`DataError`."""
    if isinstance(loaded.content, DataError):
        raise loaded.content
    return loaded.content


class StepLoader(DetectionLoader):
    """Batches of a :class:`StepBatchSampler`; each iteration goes on where the one before it ended.

    Lightning keeps the state in its checkpoints and puts it back, so that a resumed run goes on with the next batch.

    Attributes:
        next_batch: number of the batch that is handed out next, whatever loader processes have prepared.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepBatchSampler, **arguments: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, **arguments)
        self.stream = sampler
        self.next_batch = sampler.start_batch

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.stream.start_batch = self.next_batch
        try:
            for batch in super().__iter__():
                self.next_batch += 1
                yield batch
        except DataError as error:
            if self.on_skip or isinstance(error, TransformError):
                raise
            raise DataError(
                f"{error} Or go on without it: with data.on_error=skip the next image takes its place, and "
                "skipped.txt names it."
            ) from None

    def state_dict(self) -> dict[str, int]:
        """The number of the batch that comes next."""
        return {"step": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration start where the state was taken."""
        self.next_batch = state["step"]
