"""An exponential moving average of the weights: what is evaluated, kept and loaded instead of the newest weights."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Lightning's weight averaging after every optimiser step, with a warm-up that ``EMAWeightAveraging`` lacks.

    The first step copies the weights. Step n + 1 moves the average by ``1 - min(decay, (1 + n) / (10 + n))`` towards
    them, so that the random initial weights are soon forgotten (the rule of TensorFlow's ``ExponentialMovingAverage``).
    Running statistics of batch norm are averaged as weights are; counters are copied.

    A checkpoint holds the average as ``state_dict``, which is what :func:`detector.load` reads, and the weights that
    training goes on with as ``current_model_state``.

    Args:
        decay: 0 to 1; the average is of about the last ``1 / (1 - decay)`` steps.
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=True, multi_avg_fn=self._move)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average on the device of the training, where the module itself goes later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    @torch.no_grad()
    def _move(self, averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, weights)
            return
        steps = int(count)
        torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + steps) / (10 + steps)))
