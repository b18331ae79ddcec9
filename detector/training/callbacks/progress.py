"""The progress bar: losses, images per second, time left; plain lines where there is no terminal or notebook."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from detector.terminal import progress
from detector.training.callbacks.monitor import Monitor, losses_of

SHORT = {
    "loss": "loss",
    "loss_classifier": "cls",
    "loss_box_reg": "box",
    "loss_objectness": "obj",
    "loss_rpn_box_reg": "rpn",
}
HEADLINE = ("AP", "AP50", "AP75", "loss")  # what is shown of an evaluation
MOST = 4  # numbers shown of an evaluation that has none of these
LINES = 20  # without a terminal a whole training prints about so many lines
SECONDS = 30.0  # and at least one in so many seconds
SPEED_SECONDS = 300.0  # the time left is estimated from the speed of so many seconds


class ProgressDisplay(pl.Callback):
    """Shows how training goes, on rank 0.

    Lightning's ``RichProgressBar`` counts the batches of an epoch instead of the optimiser steps of the run, and writes
    nothing to a log file (``test_without_a_terminal_lines_are_printed``). The Trainer needs
    ``enable_progress_bar=False``. A :class:`Monitor` among its callbacks gives the speed.

    Args:
        console: where to; there is a bar in a terminal and in a notebook, lines elsewhere. None: standard output.
    """

    def __init__(self, console: Console | None = None):
        self.console = console = console or Console(soft_wrap=not Console().is_terminal)
        self.monitor: Monitor | None = None
        self.metrics: dict[str, float] = {}  # the losses shown
        self._time_left = TimeRemainingColumn(compact=True)
        self._lines = not (console.is_terminal or console.is_jupyter)
        self._bar = progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}", style="cyan"),
            TextColumn("{task.fields[speed]}", style="green"),
            self._time_left,
            console=console,
            speed_estimate_period=SPEED_SECONDS,
            disable=self._lines,
        )
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._line_step = 0  # step of the last line printed
        self._line_time = 0.0

    def setup(self, trainer: Any, module: pl.LightningModule, stage: str) -> None:
        """Look for a monitor, and be silent on ranks other than 0."""
        self.monitor = next((callback for callback in trainer.callbacks if isinstance(callback, Monitor)), None)
        self.console.quiet = self.console.quiet or not trainer.is_global_zero

    # ------------------------------------------------------------------------------------------ training
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar."""
        self._line_time = time.monotonic()
        steps = trainer.estimated_stepping_batches
        self._training = self._open("train", None if steps == float("inf") else int(steps), trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or print a line."""
        if self._training is None:
            return
        step, now, monitor = trainer.global_step, time.monotonic(), self.monitor
        last = self._bar.tasks[0].total
        if monitor:
            new, self.metrics = step == monitor.row, monitor.metrics
        else:
            new = step % (trainer.log_every_n_steps or 1) == 0 or step in (1, last)
            self.metrics = losses_of(outputs, trainer) if new else self.metrics
        losses = "  ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in self.metrics.items())
        speed = self._speed(monitor) if monitor else ""
        self._bar.update(self._training, completed=step, losses=losses, speed=speed)
        if not self._lines or not new or step == self._line_step:
            return
        enough = last is not None and step - self._line_step >= last // LINES
        if enough or now - self._line_time > SECONDS or step in (1, last):
            self._line_step, self._line_time = step, now
            left = self._time_left.render(self._bar.tasks[0])
            total = "?" if last is None else int(last)
            self.console.print(f"step {step}/{total}  {losses}  {speed}  {left} left", highlight=False)

    @staticmethod
    def _speed(monitor: Monitor) -> str:
        if not monitor.images_per_s:
            return ""
        waiting = f", {monitor.waiting:.0%} waiting for data" if monitor.waiting >= 0.1 else ""
        memory = f", {monitor.gpu_memory:.1f} GB" if monitor.gpu_memory else ""
        return f"{monitor.images_per_s:.1f} images/s{memory}{waiting}"

    # ---------------------------------------------------------------------------------------- evaluation
    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar of the evaluation."""
        batches = sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)
        self._evaluation = self._open("evaluate", None if batches == float("inf") else int(batches))

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar of the evaluation."""
        assert self._evaluation is not None
        self._bar.update(self._evaluation, advance=1)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar of the evaluation and print the headline numbers."""
        assert self._evaluation is not None
        self._bar.remove_task(self._evaluation)
        if self._training is None:
            self._close()
        if trainer.sanity_checking:
            return
        numbers = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()
                   if name.startswith("val")}  # fmt: skip
        chosen = [name for name in HEADLINE if name in numbers] or list(numbers)[:MOST]
        shown = "  ".join(f"{name} {'n/a' if math.isnan(numbers[name]) else f'{numbers[name]:.3f}'}" for name in chosen)
        if shown:
            self.console.print(f"step {trainer.global_step}: {shown}", highlight=False)

    # --------------------------------------------------------------------------------------------- ends
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message that follows stands below it."""
        self._close()

    def _open(self, name: str, total: int | None, completed: int = 0) -> TaskID:
        self._bar.start()
        return self._bar.add_task(name, total=total, completed=completed, losses="", speed="")

    def _close(self) -> None:
        self._bar.stop()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._training = None
