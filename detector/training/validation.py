"""What an evaluation by a Trainer collects batch by batch, gathers from all processes, and makes numbers of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch.distributed
from torch import Tensor

from detector.data.coco import Target
from detector.evaluation.detections import Detections
from detector.exceptions import DataError
from detector.training.batches import image_id


@dataclass(frozen=True)
class BatchOutcome:
    """What became of one batch of validation images.

    Attributes:
        detections: in its images, whose ids are ``detections.images``.
        losses: means over the batch by name; empty if they are not wanted.
        targets: the true boxes by image id, on the CPU; empty where there is an annotation file.
        sizes: height and width of the images of ``targets``.
    """

    detections: Detections
    losses: dict[str, float] = field(default_factory=dict)
    targets: dict[int, Target] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)


class ImageIds:
    """The ids of the images of an evaluation in one process, batch by batch.

    Images whose targets have no ``image_id`` are numbered, as distributed samplers deal them out.

    Args:
        rank: of the process.
        world_size: number of processes.
        needed: the ids are those of an annotation file.
    """

    def __init__(self, rank: int, world_size: int, needed: bool):
        self.rank, self.world_size, self.needed = rank, world_size, needed
        self.named = self.unnamed = 0  # images so far

    def of(self, targets: Sequence[Target]) -> list[int]:
        """The id of each target's image.

        Raises:
            DataError: an id is lacking and needed, or lacking in some targets only, or no whole number.
        """
        given = [image_id(target) for target in targets]
        ids = [found for found in given if found is not None]
        self.named += len(ids)
        if len(ids) == len(given):
            new: list[int] = []
        elif self.needed:
            raise DataError("a target has no image_id: which image of the annotations is it?")
        else:
            if not self.unnamed and self.world_size > 1 and self.rank == 0:
                warnings.warn(
                    "the targets have no image_id: images that the sampler repeats, to give each process as many, "
                    "count twice", stacklevel=2,
                )  # fmt: skip
            new = [n * self.world_size + self.rank for n in range(self.unnamed, self.unnamed + len(given) - len(ids))]
            self.unnamed += len(new)
        if self.named and self.unnamed:
            raise DataError(
                f"{self.named} targets have an image_id and {self.unnamed} have none: give it to all of them, or to "
                "none"
            )
        return ids or new


def true_boxes(images: Sequence[Tensor], targets: Sequence[Target], ids: Sequence[int]) -> dict[str, Any]:
    """``targets`` and ``sizes`` of a :class:`BatchOutcome`."""
    kept = ("boxes", "labels", "area", "iscrowd")
    on_cpu = [{key: target[key].cpu() for key in kept if key in target} for target in targets]
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    return {"targets": dict(zip(ids, on_cpu, strict=True)), "sizes": dict(zip(ids, sizes, strict=True))}


def gather(own: list[BatchOutcome], trainer: pl.Trainer) -> list[BatchOutcome]:
    """The batches of all processes, on rank 0, in the order of the ranks; nothing elsewhere."""
    if trainer.world_size == 1:
        return own
    shards: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(own, shards)
    return [outcome for shard in shards or [] for outcome in shard]


def mean_losses(outcomes: Sequence[BatchOutcome]) -> dict[str, float]:
    """The mean of each loss over the images, and ``loss``, their sum.

    A batch weighs as many images as are new in it: of those that come a second time, to give each process as many, the
    losses are part of a mean that cannot be taken apart. A batch without a new image does not count. The sums
    are exact, so that the order of the batches, and which process had them, make no difference.
    """
    seen: set[int] = set()
    weights: list[int] = []
    for outcome in outcomes:
        new = set(outcome.detections.images.tolist()) - seen
        seen |= new
        weights.append(len(new))
    names = outcomes[0].losses if outcomes else {}
    means = {
        name: math.fsum(w * o.losses[name] for w, o in zip(weights, outcomes, strict=True)) / sum(weights)
        for name in names
    }
    return {"loss": sum(means.values()), **means} if means else {}
