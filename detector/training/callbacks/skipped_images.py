"""Images that training could not read and skipped: reported when they come, and listed in the folder of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

SKIPPED = "skipped.txt"  # one line for each image
REPORTED = 10  # images that are reported one by one; the others are only listed


class SkippedImages(pl.Callback):
    """Reports and lists the images that ``data.on_error=skip`` has skipped.

    Args:
        skipped: what was wrong with each image; grows in the course of the training.
        path: the list. Every process of the run adds lines to it.
        say: prints a line.
    """

    def __init__(self, skipped: list[str], path: Path, say: Callable[[str], Any]):
        self.skipped = skipped
        self.path = path
        self.say = say
        self._known = 0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Look for images that were skipped since the last batch."""
        new = self.skipped[self._known :]
        if not new:
            return
        before = set(self.path.read_text(encoding="utf-8").splitlines()) if self.path.is_file() else set()
        with open(self.path, "a", encoding="utf-8") as file:
            for number, error in enumerate(new, self._known + 1):
                line = " ".join(error.split())
                if line not in before:  # a resumed run meets the same ones again
                    file.write(line + "\n")
                if number <= REPORTED:
                    self.say(f"skipped: {line}")
                if number == REPORTED:
                    self.say(f"images that are skipped from now on are only listed in {self.path}")
        self._known = len(self.skipped)
