"""Checkpoints of training runs: read without running code from them, and made into a detector again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector.config.defaults import parse_partial
from detector.config.results_folder import checkpoint_file
from detector.config.schema import Config, to_dict
from detector.config.stored import from_file
from detector.config.targets import check_trust, targets_of
from detector.exceptions import CheckpointError, ConfigError, WeightsError
from detector.models.faster_rcnn import build_model, check_eval_mode
from detector.models.initial.tensors import mismatch, read_tensors

FACTS = ("config", "class_names", "category_ids")  # what "hyper_parameters" of a checkpoint holds


def hyper_parameters(config: Config, class_names: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """What :class:`Checkpoint` reads besides the weights, as plain values: they load with ``weights_only=True``."""
    return dict(zip(FACTS, (to_dict(config), list(class_names), list(category_ids)), strict=True))


def stored_config(content: Mapping[str, Any], where: str = "the checkpoint") -> Config:
    """The configuration that a checkpoint holds as plain values.

    Loggers and callbacks are left out, which may be of another version: what only watched the training says nothing
    about the weights.

    Args:
        content: nested, as it is stored.
        where: the file, for messages.

    Raises:
        WeightsError: it is not one that this version knows.
    """
    try:
        return parse_partial({k: v for k, v in content.items() if k not in ("logger", "callbacks")}, Config)
    except ConfigError as error:
        raise WeightsError(f"{where}: its configuration is not one of this version: {error}") from None


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of a run holds.

    Attributes:
        path: the file.
        content: everything in it, on the CPU; ``content["state_dict"]`` has the weights.
    """

    path: Path
    content: dict[str, Any]

    @cached_property
    def config(self) -> Config:
        """The configuration that it was trained with; classes that it names are not trusted.

        Raises:
            WeightsError: it is not one that this version knows.
        """
        return from_file(stored_config(self.content["hyper_parameters"]["config"], str(self.path)), "")

    @property
    def class_names(self) -> list[str]:
        """``class_names[label - 1]`` is the name of a label; label 0 is the background."""
        return list(self.content["hyper_parameters"]["class_names"])

    @property
    def category_ids(self) -> list[int]:
        """``category_ids[label - 1]`` is the category of a label in the annotations that it was trained on."""
        return list(self.content["hyper_parameters"]["category_ids"])


class TrainedModel(nn.Module):
    """The network of a checkpoint and what its numbers mean; the names of its weights are those of the file.

    Attributes:
        model: torchvision's ``FasterRCNN``, without its initial weights.
        config, class_names, category_ids: those of :class:`Checkpoint`.

    Raises:
        CheckpointError: it names a class that ``trust`` does not allow; see :func:`load_trained_model`.
    """

    def __init__(self, checkpoint: Checkpoint, trust: str = ""):
        super().__init__()
        check_model_trust(checkpoint.config, trust, f"{checkpoint.path}: ")
        self.config = from_file(checkpoint.config, trust)
        self.class_names, self.category_ids = checkpoint.class_names, checkpoint.category_ids
        architecture = replace(self.config.model, weights="none")  # the file of the initial weights may be gone
        self.model = build_model(architecture, self.config.roi, num_classes=len(self.class_names) + 1)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detections of ``images`` (float32 [3, H, W], 0..1, any sizes), which the module must be in eval mode for.

        Returns:
            One dict per image: ``boxes`` float32 [N, 4] xyxy in its pixels, ``labels`` int64 [N] in 1..K, ``scores``
            float32 [N], highest first.

        Raises:
            RuntimeError: the module is in training mode.
        """
        check_eval_mode(self)
        return self.model(images)


def check_model_trust(config: Config, trust: str, prefix: str = "") -> None:
    """Raise :class:`CheckpointError` unless ``trust`` allows every class that the network of ``config`` is made of.

    Args:
        config: that a checkpoint holds.
        trust: as in :func:`load_trained_model`.
        prefix: of the message.
    """
    try:
        check_trust({**targets_of(config.model, "model"), **targets_of(config.roi, "roi")}, trust)
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}{error}") from error.__cause__


def load_trained_model(checkpoint: str | Path, device: str | torch.device = "cpu", trust: str = "") -> TrainedModel:
    """The detector of a checkpoint, in eval mode.

    Args:
        checkpoint: ``best.ckpt`` or ``last.ckpt`` of a run, or the run's folder (its best checkpoint).
        device: where to put it, e.g. ``"cuda"``.
        trust: a module whose classes the checkpoint may name as parts of its network, or several with commas. Their
            code is run.

    Raises:
        WeightsError: the file is missing, damaged, or not a checkpoint of this project.
        CheckpointError: its network needs a class that ``trust`` does not allow.
    """
    stored = read_checkpoint(checkpoint_file(checkpoint))
    module = TrainedModel(stored, trust)
    weights = stored.content["state_dict"]
    problem = mismatch(weights, module.state_dict())
    if problem:
        raise WeightsError(f"{stored.path}: its weights do not fit the model it describes. {problem}.")
    module.load_state_dict(weights)
    return module.to(device).eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project without running code from it.

    Raises:
        WeightsError: the file is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such checkpoint. A run keeps its own in RUN/checkpoints/.")
    content = read_tensors(path, str(path), finite=False)  # a run that went wrong may be looked at
    facts = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(facts, dict) or "state_dict" not in content or any(key not in facts for key in FACTS):
        raise WeightsError(
            f"{path}: not a checkpoint of this project: it lacks its weights, configuration or class names. "
            "Bare backbone weights go to model.weights of a training."
        )
    return Checkpoint(path, content)
