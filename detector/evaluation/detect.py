"""Running a trained detector over a data set."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.data.coco import Target
from detector.data.loader import DetectionLoader
from detector.evaluation.detections import Detections
from detector.exceptions import DataError
from detector.models.checkpoint import TrainedModel
from detector.models.device import precision_of
from detector.terminal import image_progress


@dataclass
class DetectorRun:
    """What a detector found in a data set.

    Attributes:
        detections: everything it found, with COCO category ids.
        samples: ``(image, target, output)`` of the images that were asked for, on the CPU.
        images_per_second: of the whole loop, loading included.
    """

    detections: Detections
    samples: list[tuple[Tensor, Target, dict[str, Tensor]]] = field(default_factory=list)
    images_per_second: float = 0.0


def run_detector(
    module: TrainedModel,
    loader: DetectionLoader,
    category_ids: Sequence[int],
    sample: Collection[int] = (),
    progress_bar: bool = False,
) -> DetectorRun:
    """Detect the objects of all images of ``loader``.

    Runs on the device of ``module``, under the autocast that it was trained with, except that half precision is left
    to GPUs. Images of one batch are padded to a common size, so the numbers depend a little on the batch size.

    Args:
        module: in eval mode.
        loader: gives images and targets in the order of the data set.
        category_ids: ``category_ids[k - 1]`` is the category of label k in the annotations.
        sample: positions in the data set whose image, target and output are kept.
        progress_bar: show images per second and time left on the terminal.
    """
    device = next(module.parameters()).device
    parts: list[Detections] = []
    result = DetectorRun(Detections.empty())
    done, start = 0, time.perf_counter()
    with torch.inference_mode(), precision_of(module), image_progress(progress_bar) as bar:
        task = bar.add_task("detecting", total=len(loader.dataset), speed="")  # type: ignore[arg-type]
        for images, targets in loader:
            outputs = module([image.to(device, non_blocking=True) for image in images])
            parts.append(Detections.from_model(outputs, [int(t["image_id"]) for t in targets], category_ids))
            for position, (image, target, output) in enumerate(zip(images, targets, outputs, strict=True), start=done):
                if position in sample:
                    result.samples.append((image, target, {key: value.cpu() for key, value in output.items()}))
            done += len(images)
            result.images_per_second = done / (time.perf_counter() - start)
            bar.update(task, completed=done, speed=f"{result.images_per_second:.1f} images/s")
    result.detections = Detections.concat(parts)
    return result


def match_categories(
    names: Sequence[str],
    ids: Sequence[int],
    data_names: Sequence[str],
    data_ids: Sequence[int],
    detector: str,
    data: str,
) -> tuple[list[int], str]:
    """The category id in a data set of each class of a detector.

    The categories are the same if ids and names are. If they are not, classes are matched by name, provided that
    both have the very same set of names, each once: exporters renumber categories, names say what is meant.

    Args:
        names: the detector's class names; ``names[k - 1]`` is label k.
        ids: their category ids in the data that it was trained on.
        data_names: the class names of the data set.
        data_ids: their category ids.
        detector: the checkpoint, for messages.
        data: the annotation file, for messages.

    Returns:
        One category id per class of the detector, and a sentence if ids differ (else ``""``).

    Raises:
        DataError: the classes are not the same; shows both.
    """
    if dict(zip(ids, names, strict=True)) == dict(zip(data_ids, data_names, strict=True)):
        return list(ids), ""
    own, other = set(names), set(data_names)
    if own == other and len(own) == len(names) == len(data_names):
        id_of = dict(zip(data_names, data_ids, strict=True))
        matched = [id_of[name] for name in names]
        changes = ", ".join(f"{name} {a} -> {b}" for name, a, b in zip(names, ids, matched, strict=True))
        return matched, f"Category ids are not those of the training data; classes are matched by name: {changes}."
    lines = [
        f"the classes of {detector} and of {data} are not the same:",
        f"  detector:    {listed(names, ids)}",
        f"  annotations: {listed(data_names, data_ids)}",
    ]
    if own - other:
        lines.append(f"  only the detector has {', '.join(sorted(own - other))}")
    if other - own:
        lines.append(f"  only the annotations have {', '.join(sorted(other - own))}")
    raise DataError("\n".join([*lines, "Evaluate on annotations with the same class names (their ids may differ)."]))


def listed(names: Sequence[str], ids: Sequence[int]) -> str:
    """Categories as ``1 cat, 3 dog``."""
    return ", ".join(f"{i} {name}" for i, name in zip(ids, names, strict=True)) or "none"
