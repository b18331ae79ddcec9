"""A run whose losses are no longer finite is stopped, and what it was looking at is kept."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from detector.errors import TrainingError
from detector.files import replacing

BATCH_FILE = "nonfinite_batch.pt"


def check_finite(
    losses: dict[str, Tensor], batch: tuple[list[Tensor], list[dict[str, Tensor]]], trainer: pl.Trainer
) -> None:
    """Do nothing if every loss is finite; otherwise save the batch in the run folder and raise.

    Args:
        losses: scalars by name.
        batch: the images and targets that they are of.
        trainer: knows the run folder, the step and the data.

    Raises:
        TrainingError: naming the losses, the images and the saved batch.
    """
    finite = torch.stack(list(losses.values())).isfinite().tolist()
    if all(finite):
        return
    images, targets = batch
    path = Path(trainer.default_root_dir) / BATCH_FILE
    saved = f"The batch is saved as {path}."
    try:
        with replacing(path) as temporary:
            torch.save({"images": images, "targets": targets, "losses": losses}, temporary)
    except (OSError, RuntimeError) as error:  # a full disk; torch.save has errors of its own for it
        saved = f"The batch could not be saved ({str(error).splitlines()[0]})."
    wrong = ", ".join(
        f"{name}={loss.item()}" for (name, loss), good in zip(losses.items(), finite, strict=True) if not good
    )
    files = "\n".join(f"  {name}" for name in image_names(targets, trainer))
    raise TrainingError(
        f"step {trainer.global_step + 1}: not finite: {wrong}. Images of this batch:\n{files}\n"
        f"{saved} Where the losses grew before, start anew with a lower optim.lr, more optim.warmup_steps or "
        "optim.clip_norm=1; otherwise look at the images and boxes."
    )


def image_names(targets: list[dict[str, Tensor]], trainer: pl.Trainer) -> list[str]:
    """The files of a training batch by their image ids; the ids where there is no data module to ask."""
    ids = [int(target["image_id"]) for target in targets]
    dataset = getattr(getattr(trainer, "datamodule", None), "train_dataset", None)
    if dataset is None:
        return [f"image {i}" for i in ids]
    place = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    return [f"{dataset.file_path(place[i])} (image {i})" for i in ids]
