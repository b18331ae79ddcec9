"""What the commands hand back: rich prints it, a notebook shows it, and its files lie in a folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

from rich.console import Console, RenderableType

from detector.plots.embedded import picture_tag
from detector.terminal import WIDTH

# Narrow lines, so that the lines of tables meet; long ones are scrolled.
TABLES = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)


class Outcome:
    """What came out of a command; subclasses are dataclasses with a field ``folder`` that rich can print.

    It stands for its folder wherever a path is asked for, as in ``detector.compare(run_a, run_b)``.

    Attributes:
        folder: where its files are.
        pictures: names of pictures in the folder, which a notebook shows below the tables.
    """

    folder: Path
    pictures: ClassVar[tuple[str, ...]] = ()

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        words = self.headline()
        return f"<{type(self).__name__}: {words}{', ' if words else ''}in {self.folder}>"

    def headline(self) -> str:
        """The result in a few words; "": the folder says enough."""
        return ""

    def _repr_html_(self) -> str:
        """Tables and pictures, for a notebook; it needs none of the files later."""
        shown = [self.folder / name for name in self.pictures]
        return "\n".join([as_html(self), *(picture_tag(path) for path in shown if path.is_file())])  # type: ignore[arg-type]


def show(outcome: Outcome) -> None:
    """Print an outcome on standard output, then where its files are."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(outcome)
    files = ", ".join(sorted(path.name for path in outcome.folder.iterdir() if not path.name.startswith(".")))
    console.print(f"\nResults are in {outcome.folder}: {files}", soft_wrap=True, highlight=False, markup=False)


def as_html(renderable: RenderableType) -> str:
    """What rich prints, as HTML."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, force_jupyter=False)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=TABLES)
