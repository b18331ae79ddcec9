"""The progress bar: losses, images per second, time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from detector.training.callbacks.monitor import Monitor

SHORT = {
    "loss": "loss",
    "loss_classifier": "cls",
    "loss_box_reg": "box",
    "loss_objectness": "obj",
    "loss_rpn_box_reg": "rpn",
}
LINES = 20  # without a terminal a whole training prints about so many lines
SECONDS = 30.0  # and at least one in so many seconds
SPEED_SECONDS = 300.0  # the time left is estimated from the speed of so many seconds


class ProgressDisplay(pl.Callback):
    """Shows how training goes, on rank 0.

    Lightning's ``RichProgressBar`` counts the batches of an epoch instead of the optimiser steps of the run, and writes
    nothing to a log file (``test_without_a_terminal_lines_are_printed``).

    Args:
        console: where to; its ``is_terminal`` decides between a bar and lines.
        monitor: has the numbers.
    """

    def __init__(self, console: Console, monitor: Monitor):
        self.console = console
        self.monitor = monitor
        self._time_left = TimeRemainingColumn(compact=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}", style="cyan"),
            TextColumn("{task.fields[speed]}", style="green"),
            self._time_left,
            console=console,
            refresh_per_second=4,
            speed_estimate_period=SPEED_SECONDS,
            disable=not console.is_terminal,
        )
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._line_step = 0  # step of the last line printed
        self._line_time = 0.0

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Be silent on ranks other than 0."""
        self.console.quiet = self.console.quiet or not trainer.is_global_zero

    # ------------------------------------------------------------------------------------------ training
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar."""
        self._line_time = time.monotonic()
        self._training = self._open("train", trainer.max_steps, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar, or print a line."""
        assert self._training is not None
        step, last, now = trainer.global_step, trainer.max_steps, time.monotonic()
        losses = "  ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in self.monitor.metrics.items())
        speed = self._speed()
        self._bar.update(self._training, completed=step, losses=losses, speed=speed)
        if self.console.is_terminal or step != self.monitor.row or step == self._line_step:
            return
        if step - self._line_step >= last // LINES or now - self._line_time > SECONDS or step in (1, last):
            self._line_step, self._line_time = step, now
            left = self._time_left.render(self._bar.tasks[0])
            self.console.print(f"step {step}/{last}  {losses}  {speed}  {left} left", highlight=False)

    def _speed(self) -> str:
        monitor = self.monitor
        if not monitor.images_per_s:
            return ""
        waiting = f", {monitor.waiting:.0%} waiting for data" if monitor.waiting >= 0.1 else ""
        memory = f", {monitor.gpu_memory:.1f} GB" if monitor.gpu_memory else ""
        return f"{monitor.images_per_s:.1f} images/s{memory}{waiting}"

    # ---------------------------------------------------------------------------------------- evaluation
    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar of the evaluation."""
        self._evaluation = self._open("evaluate", int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar of the evaluation."""
        assert self._evaluation is not None
        self._bar.advance(self._evaluation)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar of the evaluation and print the headline numbers."""
        assert self._evaluation is not None
        self._bar.remove_task(self._evaluation)
        if self._training is None:
            self._close()
        result: Any = getattr(module, "result", None)
        if result is not None:
            numbers = ((name, result.metrics[name]) for name in ("AP", "AP50", "AP75"))
            shown = "  ".join(f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in numbers)
            self.console.print(f"step {trainer.global_step}: {shown}", highlight=False)

    # --------------------------------------------------------------------------------------------- ends
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message that follows stands below it."""
        self._close()

    def _open(self, name: str, total: int, completed: int = 0) -> TaskID:
        self._bar.start()
        return self._bar.add_task(name, total=total, completed=completed, losses="", speed="")

    def _close(self) -> None:
        self._bar.stop()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._training = None
