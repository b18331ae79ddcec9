"""Checkpoints of training runs: read without running code from them, and made into a detector again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detector.config.results_folder import checkpoint_file
from detector.config.schema import Config, parse
from detector.exceptions import ConfigError, WeightsError

if TYPE_CHECKING:
    from detector.training.module import DetectionModule


def load(checkpoint: str | Path, device: str | torch.device = "cpu") -> DetectionModule:
    """The detector of a checkpoint, in eval mode.

    Args:
        checkpoint: ``best.ckpt`` or ``last.ckpt`` of a run, or the run's folder (its best checkpoint).
        device: where to put it, e.g. ``"cuda"``.

    Returns:
        A module that takes a list of images (float32 [3, H, W], 0..1) and returns one dict an image with ``boxes``,
        ``labels`` and ``scores``. It knows its ``class_names``, ``category_ids`` and ``config``.

    Raises:
        WeightsError: the file is missing, damaged, or not a checkpoint of this project.
    """
    # Lightning is slow to import, and a folder of a run can be looked at without it.
    from detector.models.weights import mismatch
    from detector.training.module import DetectionModule

    path = checkpoint_file(checkpoint)
    content = read(path)
    facts = content["hyper_parameters"]
    module = DetectionModule(
        stored_config(path, content), facts["class_names"], facts["category_ids"], pretrained=False
    )
    problem = mismatch(content["state_dict"], module.state_dict())
    if problem:
        raise WeightsError(f"{path}: its weights do not fit the model it describes. {problem}.")
    module.load_state_dict(content["state_dict"])
    return module.to(device).eval()


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of this project, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such checkpoint. A run keeps its own in RUN/checkpoints/.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different type for each kind of damage
        raise WeightsError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}, {path.stat().st_size:,} bytes); it is "
            "something else, damaged or cut off, or holds more than tensors and plain values, which is never loaded"
        ) from None
    facts = content.get("hyper_parameters") if isinstance(content, dict) else None
    wanted = ("config", "class_names", "category_ids")
    if not isinstance(facts, dict) or "state_dict" not in content or any(key not in facts for key in wanted):
        raise WeightsError(
            f"{path}: not a checkpoint of this project: it lacks its weights, configuration or class names. "
            "Bare backbone weights go to model.weights of a training."
        )
    return content


def stored_config(path: str | Path, content: dict[str, Any]) -> Config:
    """The configuration that a checkpoint was trained with.

    Raises:
        WeightsError: it is not one that this version knows.
    """
    try:
        return parse(content["hyper_parameters"]["config"], Config)
    except ConfigError as error:
        raise WeightsError(f"{path}: its configuration is not one of this version: {error}") from None
