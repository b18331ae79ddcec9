"""Where the scripts are, and the words that start them: a clone has them beside the package, a wheel inside it."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path

CONSOLE = "MULTISCALE_RCNN_CONSOLE"  # environment: the name of the console command that this process was started by

IN_PYTHON = ContextVar("in Python", default=False)  # whether a function of `detector` called a command

PACKAGE = Path(__file__).resolve().parents[1]


def scripts_folder(package: Path = PACKAGE) -> Path:
    """The folder of ``train.py`` and the others; ``configs/`` is beside it.

    A wheel has both inside the package, where no other project's ``scripts`` can be in the way.
    """
    inside = package / "scripts"
    return inside if inside.is_dir() else package.parent / "scripts"


def configs_folder() -> Path:
    """The folder of the YAML files that come with the project."""
    return scripts_folder().parent / "configs"


def names(folder: Path) -> list[str]:
    """The commands there are, sorted: a script each."""
    return sorted(file.stem for file in folder.glob("*.py"))


def command(name: str) -> str:
    """The words that start a script where this process was started, as it was started: ``python scripts/NAME.py``,
    ``python -m detector NAME`` or ``multiscale-rcnn NAME``."""
    console = os.environ.get(CONSOLE)
    return f"{console} {name}" if console else f"python {script(name)}"


def script(name: str, package: Path = PACKAGE) -> str:
    """What follows ``python`` (or ``torchrun ...``) to run a script where this process was started.

    ``scripts/NAME.py`` in the folder of the clone, ``-m detector NAME`` anywhere else.
    """
    here, file = Path("scripts", f"{name}.py"), scripts_folder(package) / f"{name}.py"
    return str(here) if here.is_file() and here.resolve() == file else f"-m {package.name} {name}"
