"""Where the scripts are, and the words that start them: a clone has them beside the package, a wheel inside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def scripts_folder(package: Path = PACKAGE) -> Path:
    """The folder of ``train.py`` and the others; ``configs/`` is beside it.

    A wheel has both inside the package, where no other project's ``scripts`` can be in the way.
    """
    inside = package / "scripts"
    return inside if inside.is_dir() else package.parent / "scripts"


def names(folder: Path) -> list[str]:
    """The commands there are, sorted: a script each."""
    return sorted(file.stem for file in folder.glob("*.py"))


def script(name: str, package: Path = PACKAGE) -> str:
    """What follows ``python`` (or ``torchrun ...``) to run a script: ``scripts/NAME.py``, or ``-m detector NAME``
    where there is no clone.
    """
    folder = scripts_folder(package)
    return f"-m {package.name} {name}" if folder.parent == package else f"{folder.name}/{name}.py"
