"""A run whose losses or gradients are no longer finite stops, and its batch is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from detector.exceptions import DataError, TrainingError
from detector.files import replacing
from detector.training.batches import name_of

BATCH_FILE = Path("nonfinite_batch.pt")
# Steps in a row that float16's scaler may skip. Each halves the scale of the losses: from 65,536 at the start to 6e-5
# after so many steps, which is too small to be the reason.
MOST_SKIPS = 30
ADVICE = (
    "Where the losses grew before, start anew with a lower optim.lr, more optim.warmup_steps or optim.clip_norm=1; "
    "otherwise look at the images and boxes."
)


class Guard(pl.Callback):
    """Looks at the losses of each batch before their backward pass, and at the norm of gradients that are clipped.

    Reading a number from a GPU waits for the GPU. So the norm of a step is read together with the losses of the next
    batch. A step whose norm is not finite changes no weight all the same: the optimiser decides that on the device, by
    the flag ``found_inf`` that fused optimisers have for gradient scalers. The error follows at the next batch or
    before the next checkpoint, whichever comes first.

    The message names the losses that the module has in ``losses``, by name, or else their sum, and the images where
    the batch is (images, targets) with an ``image_id`` in each target. Lightning's ``detect_anomaly`` looks at every
    operation instead, which takes many times as long (``debug=nan``).

    Args:
        clip_norm: gradients of a larger norm are scaled down to it, as by Lightning's ``gradient_clip_val``, which is
            not to be given too; 0: the gradients are neither clipped nor looked at.
    """

    def __init__(self, clip_norm: float = 0.0) -> None:
        self.clip_norm = clip_norm
        self._batch: Any = None
        self._norm: Tensor | None = None  # float32 []: of the gradients of the last step, not read yet
        self._skips: Tensor | None = None  # int64 []: steps in a row that the scaler of float16 has skipped

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch for the message."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        """Check the losses of the batch, and the gradients of the step before it."""
        losses: Any = getattr(module, "losses", None)
        named = isinstance(losses, dict) and losses
        self.check(losses if named else {"loss": loss.detach()}, self._batch, trainer)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Clip the gradients. Lightning has removed the scale of float16 before this hook."""
        if self.clip_norm:
            scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
            (self.clip_scaled if scaled else self.clip)(optimizer, self.clip_norm)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raise :class:`TrainingError` if the gradients of the last step were not finite: no checkpoint is written."""
        norm, self._norm = self._norm, None
        if norm is not None and not norm.isfinite():
            raise bad_gradients(norm, trainer)

    def clip(self, optimizer: Optimizer, limit: float) -> None:
        """Scale the gradients down to the norm ``limit``; if it is not finite the step is skipped.

        A fused ``optimizer`` skips it itself. For others the gradients are removed, which waits for the norm.
        """
        self._norm = clip_gradients(optimizer, limit)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = (~self._norm.isfinite()).float()  # type: ignore[attr-defined]
        elif not self._norm.isfinite():
            optimizer.zero_grad()

    def clip_scaled(self, optimizer: Optimizer, limit: float) -> None:
        """The same for float16, where gradients that are not finite are nothing unusual: the scaler skips the step."""
        norm = clip_gradients(optimizer, limit)
        before = torch.zeros_like(norm, dtype=torch.int64) if self._skips is None else self._skips
        self._skips = torch.where(norm.isfinite(), 0, before + 1)

    def check(self, losses: dict[str, Tensor], batch: Any, trainer: pl.Trainer) -> None:
        """Do nothing if all is finite; otherwise save the batch in the Trainer's ``default_root_dir`` and raise.

        Args:
            losses: scalars by name.
            batch: that they are of, mostly images and targets.
            trainer: knows the run folder, the step and the data.

        Raises:
            TrainingError: naming the losses, or the step before them, the images and the saved batch.
        """
        norm, self._norm = self._norm, None
        good = [value.float().isfinite() for value in (*losses.values(), *([] if norm is None else [norm]))]
        lasting = [] if self._skips is None else [self._skips < MOST_SKIPS]
        finite = torch.stack([*good, *lasting]).tolist()
        if lasting and not finite.pop():
            raise TrainingError(
                f"step {trainer.global_step}: not finite: the gradients of {MOST_SKIPS} steps in a row, of losses that "
                "are. These steps changed no weight, and the scale of float16 is no longer the reason. Try "
                f"trainer.precision=bf16-mixed or 32; debug=nan names the operation. {ADVICE}"
            )
        if norm is not None and not finite.pop():
            raise bad_gradients(norm, trainer)
        if all(finite):
            return
        parts = {"images": batch[0], "targets": batch[1]} if is_pair(batch) else {"batch": batch}
        saved = save({**parts, "losses": losses}, trainer)
        wrong = ", ".join(
            f"{name}={loss.item()}" for (name, loss), good in zip(losses.items(), finite, strict=True) if not good
        )
        names = image_names(batch[1], trainer) if is_pair(batch) else []
        of = f" Images of this batch:\n{listed(names)}\n" if names else " "
        raise TrainingError(f"step {trainer.global_step + 1}: not finite: {wrong}.{of}{saved} {ADVICE}")


def clip_gradients(optimizer: Optimizer, limit: float) -> Tensor:
    """Scale the gradients down to the norm ``limit``; their norm before that, float32 []."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(parameters, limit)


def bad_gradients(norm: Tensor, trainer: pl.Trainer) -> TrainingError:
    """The error for the step just done, whose gradients had ``norm``; its batches are loaded again and saved, if the
    data are a :class:`DetectionDataModule`."""
    step, each = trainer.global_step, trainer.accumulate_grad_batches
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    said = (
        f"step {step}: not finite: the gradients (norm {norm.item()}), of losses that are. The step changed no weight."
    )
    if not hasattr(data, "training_batch"):
        return TrainingError(f"{said} {ADVICE}")
    numbers = range((step - 1) * each, step * each)
    names = [data.train_dataset.name_of(index) for number in numbers for index in data.training_indices(number)]
    try:
        batches = [data.training_batch(number) for number in numbers]
        images, targets = ([part for batch in batches for part in batch[side]] for side in (0, 1))
        saved = save({"images": images, "targets": targets, "losses": {"gradient_norm": norm}}, trainer)
    except DataError as error:
        saved = f"The batch could not be saved ({str(error).splitlines()[0]})."
    return TrainingError(
        f"{said} Images of this step:\n{listed(names)}\n{saved} debug=nan names the operation. {ADVICE}"
    )


def save(content: dict[str, Any], trainer: pl.Trainer) -> str:
    """Write ``content`` into the run folder, one file for each process; return a sentence that says where."""
    name = BATCH_FILE if trainer.world_size == 1 else f"{BATCH_FILE.stem}_{trainer.global_rank}{BATCH_FILE.suffix}"
    path = Path(trainer.default_root_dir) / name
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # a full disk; torch.save has errors of its own for it
        return f"The batch could not be saved ({str(error).splitlines()[0]})."
    return f"The batch is saved as {path}."


def listed(names: list[str]) -> str:
    """Each name in a line of its own."""
    return "\n".join(f"  {name}" for name in names)


def is_pair(batch: Any) -> bool:
    """Whether a batch is (images, targets) with a dict for each target."""
    return isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(t, dict) for t in batch[1])


def image_names(targets: list[dict[str, Tensor]], trainer: pl.Trainer) -> list[str]:
    """The files of a training batch by their image ids; the ids where there is no data module to ask."""
    dataset = getattr(getattr(trainer, "datamodule", None), "train_dataset", None)
    if dataset is None:
        return [name_of(target) for target in targets if "image_id" in target]
    ids = [int(target["image_id"]) for target in targets if "image_id" in target]
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    return [f"{dataset.name_of(index_of[i])} (image {i})" for i in ids]
