"""Reads COCO annotations and results; a file of another kind, or a folder, is told as what it is."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from detector.data.kinds import PICTURES, UNPACK, Kind, Look, kind_of, members
from detector.exceptions import DataError
from detector.files import decode, open_plain, read_json

BEGINNING = 1 << 16  # bytes of a file that are looked at
LISTED = 1000  # files of a folder that are looked at
LABELS = (".yaml", ".yml", ".xml", ".json", ".csv", ".txt")  # suffixes of files with labels, the most telling first
ANNOTATIONS, RESULTS = "COCO annotations", "COCO results"
WANTED = {
    ANNOTATIONS: "a JSON object with the lists 'images', 'annotations' and 'categories'",
    RESULTS: 'a list of {"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}',
}


def read_coco(path: Path, role: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What :func:`read_json` gives; if the file is of another kind, the error says of which and what to do.

    Args:
        path: JSON file, packed or not.
        role: :data:`ANNOTATIONS` or :data:`RESULTS`.
        object_hook: as of :func:`read_json`.

    Raises:
        DataError: there is no such file, it is not JSON, or JSON of another kind.
    """
    if path.is_dir():
        raise DataError(
            f"{path}: this is a folder, and a file has to be given ({role} expected). {in_folder(path)}".strip()
        )
    if path.is_file():
        refuse(look_at_start(path), role)
    content = read_json(path, role, object_hook)
    if not is_coco(content):
        refuse(Look(path, b"", "", content), role)
    return content


def is_coco(content: Any) -> bool:
    """Whether JSON has what COCO's files of boxes have, whatever else it has."""
    if isinstance(content, dict):
        lists = [content.get(key) for key in ("images", "categories", "annotations")]
        first = lists[-1][0] if isinstance(lists[-1], list) and lists[-1] else None
        panoptic = isinstance(first, dict) and "segments_info" in first
        return all(isinstance(found, list) for found in lists) and not panoptic
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and first.keys() >= {"image_id", "category_id", "score"}


def refuse(look: Look, role: str) -> None:
    """Raise :class:`DataError` if the file is of a kind that is known, and not COCO's."""
    kind = kind_of(look)
    if kind:
        raise DataError(f"{look.path}: this is {kind.name}; {role} are {WANTED[role]}. {what_to_do(kind, look, role)}")


def what_to_do(kind: Kind, look: Look, role: str) -> str:
    """Sentences of advice."""
    if kind.of_objects and role == RESULTS:
        return "Write the detections so."
    inside = [name for name in members(look.path) if name.endswith(".json")] if kind.advice == UNPACK else []
    more = ", ..." if len(inside) > 3 else ""
    return f"{kind.advice} JSON files in it: {', '.join(inside[:3])}{more}." if inside else kind.advice


def look_at_start(path: Path) -> Look:
    """The first bytes of a file, as text if they are text; nothing if it cannot be read."""
    try:
        with open_plain(path) as file:
            start = file.read(BEGINNING)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return Look(path, b"", "")
    try:
        text = decode(start)
    except UnicodeDecodeError as error:
        # A character that the end cuts is no fault; other bytes are Latin-1, or no text.
        cut = error.start >= len(start) - 4
        text = start[: error.start].decode(error.encoding, "ignore") if cut else start.decode("latin-1")
    return Look(path, start, "" if "\0" in text else text.lstrip("\ufeff"))


def in_folder(folder: Path) -> str:
    """A sentence on what is in a folder: labels of a kind of the table, or pictures only; else ""."""
    files = list(islice(files_below(folder), LISTED))
    labels = [path for path in files if path.suffix.lower() in LABELS]
    labels.sort(key=lambda path: (LABELS.index(path.suffix.lower()), path))
    for path in labels[:5]:
        look = look_at_start(path)
        if kind := kind_of(look) or (kind_of(parsed(look)) if path.suffix.lower() == ".json" else None):
            return f"{path.relative_to(folder)} in it is {kind.name}. {kind.advice}"
    pictures = not labels and any(path.suffix.lower() in PICTURES for path in files)
    return "It holds pictures; their objects stand in a file of their own." if pictures else ""


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, not hidden ones."""
    for level in ("*", "*/*", "*/*/*"):
        for path in folder.glob(level):
            if path.is_file() and not path.name.startswith("."):
                yield path


def parsed(look: Look) -> Look:
    """``look`` with its content, if that is JSON."""
    try:
        return Look(look.path, look.start, look.text, read_json(look.path, ANNOTATIONS))
    except DataError:
        return look
