"""The progress bar: losses, images a second, time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from detector.training.module import DetectionModule
from detector.training.monitor import Monitor

SHORT = {
    "loss": "loss",
    "loss_classifier": "cls",
    "loss_box_reg": "box",
    "loss_objectness": "obj",
    "loss_rpn_box_reg": "rpn",
}
LINES = 20  # lines that a whole training prints where there is no terminal, at most about this many
SECONDS = 30.0  # and not less often than this


class ProgressDisplay(pl.Callback):
    """Shows how training goes, on process 0.

    Args:
        console: where to; its ``is_terminal`` decides between a bar and lines.
        monitor: has the numbers.
    """

    def __init__(self, console: Console, monitor: Monitor):
        self.console = console
        self.monitor = monitor
        self._bar: Progress | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._first = 0  # step that this process started from
        self._begun = self._paused = self._spoke = 0.0
        self._pause = 0.0
        self._line = 0  # step of the last line printed

    # ------------------------------------------------------------------------------------------ training
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero:
            return
        self._first = trainer.global_step
        self._begun = self._spoke = time.monotonic()
        if self.console.is_terminal:
            bar = self._open()
            self._training = bar.add_task(
                "train", total=trainer.max_steps, completed=trainer.global_step, what="", speed=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar, or print a line."""
        if not trainer.is_global_zero:
            return
        if self._bar is not None and self._training is not None:
            self._bar.update(self._training, completed=trainer.global_step, what=self._losses(), speed=self._speed())
            return
        step, now = trainer.global_step, time.monotonic()
        if step != self.monitor.row or step == self._line:
            return
        spacing = trainer.max_steps // LINES
        if step - self._line >= spacing or now - self._spoke > SECONDS or step in (1, trainer.max_steps):
            self._line, self._spoke = step, now
            left = self._time_left(step, trainer.max_steps, now)
            self.console.print(
                f"step {step}/{trainer.max_steps}  {self._losses()}  {self._speed()}  {left} left", highlight=False
            )

    def _losses(self) -> str:
        return "  ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in self.monitor.metrics.items())

    def _speed(self) -> str:
        if not self.monitor.images_per_s:
            return ""
        waiting = f", {self.monitor.waiting:.0%} waiting for data" if self.monitor.waiting >= 0.1 else ""
        memory = f", {self.monitor.gpu_memory:.1f} GB" if self.monitor.gpu_memory else ""
        return f"{self.monitor.images_per_s:.1f} images/s{memory}{waiting}"

    def _time_left(self, step: int, total: int, now: float) -> str:
        done = max(step - self._first, 1)
        seconds = int((now - self._begun - self._pause) / done * (total - step))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"

    # ---------------------------------------------------------------------------------------- evaluation
    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Open the bar of the evaluation."""
        if not trainer.is_global_zero:
            return
        self._paused = time.monotonic()
        if self.console.is_terminal:
            total = int(sum(trainer.num_val_batches))
            self._evaluation = self._open().add_task("evaluate", total=total, what="", speed="")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar of the evaluation."""
        if self._bar is not None and self._evaluation is not None:
            self._bar.advance(self._evaluation)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print the headline numbers."""
        if not trainer.is_global_zero:
            return
        self._pause += time.monotonic() - self._paused
        if self._bar is not None and self._evaluation is not None:
            self._bar.remove_task(self._evaluation)
            self._evaluation = None
            if self._training is None:
                self._close()
        assert isinstance(module, DetectionModule)
        if module.result is not None:
            numbers = ((name, module.result.metrics[name]) for name in ("AP", "AP50", "AP75"))
            shown = "  ".join(f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in numbers)
            self.console.print(f"step {trainer.global_step}: {shown}", highlight=False)

    # --------------------------------------------------------------------------------------------- ends
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message that follows stands below it."""
        self._close()

    def _open(self) -> Progress:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[what]}", style="cyan"),
                TextColumn("{task.fields[speed]}", style="green"),
                TimeRemainingColumn(compact=True),
                console=self.console,
                refresh_per_second=4,
            )
            self._bar.start()
        return self._bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._training = self._evaluation = None
