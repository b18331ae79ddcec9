"""What a backbone needs of a network, whatever library it is of: its maps, where weights come from, how it is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detector.exceptions import WeightsError
from detector.models.maps import Measured, measure

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of 0..1 RGB


class Network:
    """A network that gives maps of an image, as it is. Other kinds say where weights come from, and can be cut.

    Args:
        name: for messages, as in ``model.backbone=torchvision/resnet50``.
        module: ``module(images[B, 3, H, W])`` gives a map, a list or a dict of maps.
        measured: its maps; None: they are measured.
        weighted: the part of ``module`` that a file of weights is of; None: all of it.
    """

    def __init__(
        self, name: str, module: nn.Module, measured: Measured | None = None, weighted: nn.Module | None = None
    ):
        self.name, self.module = name, module
        self.measured = measure(module, name) if measured is None else measured
        self.weighted = module if weighted is None else weighted

    def normalization(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation of the 0..1 RGB images that the network was trained on.

        A network of yours says them as ``image_mean`` and ``image_std``; without, they are ImageNet's.
        """
        return getattr(self.module, "image_mean", IMAGENET[0]), getattr(self.module, "image_std", IMAGENET[1])

    def download(self, name: str) -> Mapping[str, Tensor]:
        """The published weights of that name, in the layout of files.

        Args:
            name: ``imagenet``, or one of :func:`detector.models.catalogue.published`.

        Raises:
            WeightsError: they cannot be had.
        """
        raise WeightsError(f"model.weights={name}: {self.name} has no published weights; give a file, or none")

    def of_file(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file under the names that ``weighted`` has, without those of the classifier."""
        return dict(state)

    def cut(self, keys: Sequence[Any]) -> list[Any]:
        """Leave out what only maps other than those of ``keys`` need; the new keys of the maps."""
        return list(keys)
