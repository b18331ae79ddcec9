"""The device that a configuration means on this machine, and the precision that a model runs in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from detector.exceptions import ConfigError

if TYPE_CHECKING:
    from detector.models.checkpoint import TrainedModel

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
NO_GPU = (
    "accelerator=gpu: PyTorch finds no usable GPU here; use accelerator=cpu or auto, or check "
    "the driver and that PyTorch is built for CUDA"
)


def gpu_count() -> int:
    """Number of GPUs that PyTorch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_accelerator(accelerator: str, no_gpu: str = NO_GPU) -> str:
    """``"gpu"`` or ``"cpu"``, whichever ``accelerator=auto|cpu|gpu`` means here.

    Raises:
        ConfigError: ``gpu``, and PyTorch can use none; the message is ``no_gpu``.
    """
    if accelerator == "auto":
        return "gpu" if gpu_count() else "cpu"
    if accelerator == "gpu" and not gpu_count():
        raise ConfigError(no_gpu)
    return accelerator


def choose_device(accelerator: str) -> torch.device:
    """The device that ``accelerator=auto|cpu|gpu`` means here.

    Raises:
        ConfigError: ``gpu``, and PyTorch can use none.
    """
    return torch.device("cuda" if choose_accelerator(accelerator) == "gpu" else "cpu")


def precision_of(module: TrainedModel) -> contextlib.AbstractContextManager[None]:
    """The autocast that ``module`` was trained with, except that half precision is left to GPUs."""
    device = next(module.parameters()).device
    dtype = AUTOCAST.get(module.config.trainer.precision)
    if dtype is None or (dtype is torch.float16 and device.type != "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
