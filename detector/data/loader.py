"""A DataLoader for images of different sizes whose errors stay readable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import Target
from detector.data.samplers import StepBatchSampler
from detector.errors import DataError

Batch = tuple[list[Tensor], list[Target]]


class _Guarded(Dataset[Any]):
    """``dataset``, but a :class:`DataError` is returned as an item instead of raised."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def collate(items: list[Any]) -> Batch | DataError:
    """Lists of images and of targets, as torchvision's detectors take them; or the first error among ``items``."""
    for item in items:
        if isinstance(item, DataError):
            return item
    return [image for image, _ in items], [target for _, target in items]


class DetectionLoader(DataLoader[Any]):
    """Yields ``(list of images, list of targets)``; keyword arguments are those of ``DataLoader``.

    PyTorch turns an exception in a loader process into one whose message is a traceback. A :class:`DataError` is meant
    for the user, so it travels as a value and is raised here.
    """

    def __init__(self, dataset: Dataset[Any], **arguments: Any) -> None:
        super().__init__(_Guarded(dataset), collate_fn=collate, **arguments)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


class StepLoader(DetectionLoader):
    """Batches of a :class:`StepBatchSampler`, with the position in its stream as state.

    Lightning keeps the state in its checkpoints and puts it back, so that a resumed run goes on with the next batch.
    """

    def __init__(self, dataset: Dataset[Any], sampler: StepBatchSampler, **arguments: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, **arguments)
        self.stream = sampler
        self.next_step = sampler.start_step  # of the next batch to be handed out, whatever is in preparation

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.next_step = self.stream.start_step
        for batch in super().__iter__():
            self.next_step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The step whose batch comes next."""
        return {"step": self.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration start where the state was taken."""
        self.stream.set_position(state["step"])
        self.next_step = state["step"]
