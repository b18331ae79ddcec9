"""A trained detector for use from Python: images in, boxes with names out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.config.schema import Config
from detector.config.targets import word_of
from detector.data.images import SHOWN, Reading, image_tensor, read_image
from detector.exceptions import DataError
from detector.models.checkpoint import TrainedModel, load_trained_model
from detector.models.device import choose_device, precision_of
from detector.plots.boxes import draw_boxes

ACCEPTED = "give a path, a PIL image, an array or a tensor, or a list of them"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections of one image, highest score first; tensors are on the CPU.

    Attributes:
        boxes: float32 [N, 4], x1, y1, x2, y2 in pixels of the image.
        scores: float32 [N], 0..1.
        labels: int64 [N], 1..K.
        names: the class name of each.
        reading: how the image was read, if it was a file.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: list[str]
    reading: Reading = SHOWN

    def __len__(self) -> int:
        return len(self.names)

    def above(self, score_thresh: float) -> Prediction:
        """The detections of at least this score."""
        kept = self.scores >= score_thresh
        names = [name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep]
        return Prediction(self.boxes[kept], self.scores[kept], self.labels[kept], names, self.reading)

    def draw(self, image: Any) -> Image.Image:
        """A copy of ``image``, in which they were found, with boxes, names and scores."""
        pixels = (as_image(image, self.reading) * 255).round().byte().permute(1, 2, 0).numpy()
        texts = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        return draw_boxes(pixels, self.boxes.tolist(), self.labels.tolist(), texts)


class Detector:
    """A trained detector. ``detector.load(checkpoint)`` makes one.

    Calling it with images gives a list with a :class:`Prediction` for each::

        detector = detector.load("runs/train/NAME")
        for prediction in detector(["a.jpg", "b.jpg"]):
            print(prediction.boxes, prediction.scores, prediction.names)

    Attributes:
        module: the network, in eval mode.
        class_names: ``class_names[label - 1]`` is the name of a label.
        category_ids: their category ids in the annotation file that it was trained on.
    """

    def __init__(self, module: TrainedModel):
        self.module = module
        self.class_names = module.class_names
        self.category_ids = module.category_ids

    @property
    def config(self) -> Config:
        """The configuration that it was trained with."""
        return self.module.config

    @property
    def reading(self) -> Reading:
        """How image files are read: as in training."""
        data = self.config.data
        return Reading.of(data.exif, data.white)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.module.parameters()).device

    def __call__(self, images: Any, *, score_thresh: float = 0.0, batch_size: int = 8) -> list[Prediction]:
        """Detect the objects of one image or a sequence of them.

        Args:
            images: paths, PIL images, arrays ([H, W, 3] RGB or [H, W] grey; uint8, or floats in 0..1) or tensors
                ([3, H, W]; uint8, or floats in 0..1). Kinds and sizes may be mixed. Files and PIL images are turned as
                EXIF says, unless it was trained on images as they are stored (:attr:`reading`).
            score_thresh: leave out detections of lower scores; detections below ``config.model.head.score_thresh``
                never appear.
            batch_size: number of images that go through the network together. They are padded to a common size, which
                changes the last digits of the numbers.

        Raises:
            DataError: an image cannot be read or is none of these.
        """
        batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
        single = isinstance(images, (str, Path, Image.Image, np.ndarray, Tensor)) and not batch
        if not single and (isinstance(images, Mapping | bytes) or not isinstance(images, Iterable)):
            raise DataError(f"{type(images).__name__} is no image and no sequence of images: {ACCEPTED}")
        images = [images] if single else list(images)
        found: list[Prediction] = []
        for start in range(0, len(images), batch_size):
            outputs = self.raw([as_image(image, self.reading) for image in images[start : start + batch_size]])
            found += [self.prediction(output).above(score_thresh) for output in outputs]
        return found

    def raw(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """``boxes``, ``labels`` and ``scores`` of each of a batch of float32 images [3, H, W], on the CPU.

        Runs under the autocast that the detector was trained with, as evaluation does.
        """
        if not images:
            return []
        with torch.inference_mode(), precision_of(self.module):
            outputs = self.module([image.to(self.device, non_blocking=True) for image in images])
        return [{key: value.cpu() for key, value in output.items()} for output in outputs]

    def prediction(self, output: dict[str, Tensor]) -> Prediction:
        """An output of :meth:`raw` with class names."""
        names = [self.class_names[label - 1] for label in output["labels"].tolist()]
        return Prediction(output["boxes"], output["scores"], output["labels"], names, self.reading)

    def __repr__(self) -> str:
        model, roi = self.config.model, word_of(self.config.roi.kind)
        network = f"model={model.name}, backbone={word_of(model.backbone)}, roi={roi}"
        return f"Detector({network}, classes={self.class_names}, device={self.device})"


def load(checkpoint: str | Path, device: str | torch.device | None = None, trust: str = "") -> Detector:
    """The detector of a checkpoint.

    Args:
        checkpoint: ``best.ckpt`` or ``last.ckpt`` of a run, or the run's folder (its best checkpoint).
        device: such as ``"cpu"`` or ``"cuda"``; None: a GPU if there is one.
        trust: a module, as ``"my_ops"``, whose classes the checkpoint may name as parts of its network; several with
            commas. A checkpoint runs no code by itself; this runs that of the module.

    Raises:
        WeightsError: the file is missing, damaged, or not a checkpoint of this project.
        CheckpointError: its network needs a class that ``trust`` does not allow.
    """
    return Detector(load_trained_model(checkpoint, device or choose_device("auto"), trust))


def as_image(image: Any, reading: Reading = SHOWN) -> Tensor:
    """Any image that :class:`Detector` accepts, as float32 [3, H, W] in 0..1 on the CPU.

    Args:
        image: the image.
        reading: how files and PIL images are read.

    Raises:
        DataError: it is not an image, or its values are not in 0..1.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image).expanduser(), reading=reading)
    if isinstance(image, Image.Image):
        return image_tensor(image, reading)
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if image.ndim != 3 or image.shape[2] not in (3, 4):
            raise DataError(f"an array of shape {image.shape} is not an image: [H, W, 3] (RGB) or [H, W] (grey) is")
        image = torch.from_numpy(np.array(image[:, :, :3])).permute(2, 0, 1)
    if not isinstance(image, Tensor):
        raise DataError(f"{type(image).__name__} is not an image: {ACCEPTED}")
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise DataError(f"a tensor of shape {tuple(image.shape)} is not an image: [3, H, W] is")
    if image.dtype == torch.uint8:
        return image.cpu().float() / 255
    if not image.is_floating_point():
        raise DataError(f"an image of {image.dtype}: give uint8 (0..255) or floats in 0..1")
    if not (image.amin() >= 0 and image.amax() <= 1):  # NaN included
        raise DataError(
            f"an image of floats from {image.amin():g} to {image.amax():g}: they must be in 0..1; "
            "values of 0..255 belong in uint8"
        )
    return image.cpu().float()
