"""What is left out of training on purpose: classes that a key names, and annotations that the file marks.

Of the marks, ``iscrowd`` is COCO's own. ``ignore`` is what CrowdHuman, conversions of VisDrone and others have;
mmdetection leaves such annotations out of training as well. pycocotools writes over this key and evaluates them as
objects. A mark that says neither yes nor no is a problem of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from detector.exceptions import ConfigError
from detector.words import counted

NO = ("", "0", "0.0", "false", "f", "no", "n", "off", "none", "null", "nan")  # "" and "nan": a data frame's "not given"
FLAGS = dict.fromkeys(NO, 0) | dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "on"), 1)  # as texts


class Classes(Protocol):
    """The classes of an annotation file, after those that a key names were left out."""

    @property
    def file(self) -> Path:
        """The annotation file."""

    @property
    def class_names(self) -> list[str]:
        """The classes."""

    @property
    def dropped(self) -> dict[str, int]:
        """The classes left out, and the number of their annotations."""


def as_flag(value: Any) -> int | None:
    """0 or 1 if ``value`` of a file says no or yes in any form, and 0 if it is not given; None for anything else."""
    if isinstance(value, str):
        return FLAGS.get(value.strip().lower())
    if value is None or value != value:
        return 0
    return int(value) if value in (0, 1) else None


def check_dropped(names: Collection[str], files: Sequence[Classes], key: str) -> None:
    """Raise :class:`ConfigError` if ``names``, the value of ``key``, names a class that none of ``files`` has."""
    known = sorted({name for file in files for name in (*file.dropped, *file.class_names)})
    for name in names:
        if not any(name in file.dropped for file in files):
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"its classes are {', '.join(known) or 'none'}"
            raise ConfigError(f"{key}: {files[0].file} has no class {name!r}; {hint}")


def dropped_classes(dropped: Mapping[str, int]) -> str:
    """``class _background_ with 2 annotations``; "" for none."""
    return ", ".join(f"class {name} with {counted(count, 'annotation')}" for name, count in dropped.items())
