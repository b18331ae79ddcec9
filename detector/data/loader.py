"""A DataLoader for images of different sizes whose errors stay readable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import Target
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
