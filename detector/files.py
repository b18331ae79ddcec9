"""Reading a JSON file that a user names, and writing result files that are never half there."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from detector.exceptions import DataError

PACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""How each kind of packed file begins, and what unpacks it."""
LISTED_PROBLEMS = 20
"""Problems that one error message lists; the rest are counted."""
HALF_CHARACTER = re.compile(
    r"(?<!\\)(?:\\\\)*(\\u[dD](?:[89abAB]\w\w(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB]\w\w\\u[dD])[c-fC-F]\w\w))"
)
"""A surrogate without its other half: JSON can write it, but no file can hold the text and no font draw it."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of the system that say that a disk is full, or cannot be written."""
LARGEST = 1e7
"""Coordinates of this size (pixels) and beyond are nonsense; float32 would not resolve a pixel there."""


def read_json(path: str | Path, role: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The parsed content of ``path``.

    Args:
        path: a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; compressed or not
            (:func:`open_plain`).
        role: what the file should hold, for messages, such as ``"COCO annotations"``.
        object_hook: takes every object while it is parsed and returns what is kept of it, as in :func:`json.loads`.

    Raises:
        DataError: there is no such file, it cannot be read, is empty or is not JSON (with line and column).
    """
    text = _read_text(Path(path), role)
    half = HALF_CHARACTER.search(text) if "\\ud" in text or "\\uD" in text else None
    if half:
        line = text.count("\n", 0, half.start()) + 1
        raise DataError(
            f"{path}: {half[1]} in line {line} is one half of a character, which is no text; {role} expected"
        )
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated string") or not text[error.pos :].strip()
        raise DataError(
            f"{path}: not valid JSON, line {error.lineno}, column {error.colno}: {error.msg}; {role} expected"
            f"{'. The text ends there: the file was cut off, copy or download it again' if cut else ''}"
        ) from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise DataError(f"{path}: nesting or numbers too long to be {role}") from None


def open_plain(path: Path) -> IO[bytes]:
    """``path`` opened for reading, unpacked if gzip, bzip2 or xz packed it; the content tells, not the name.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    return next((unpack for mark, unpack in PACKERS.items() if start.startswith(mark)), open)(path, "rb")


def decode(raw: bytes) -> str:
    """JSON text of bytes in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        UnicodeDecodeError: they are none of these.
    """
    return raw.decode(json.detect_encoding(raw))


def _read_text(path: Path, role: str) -> str:
    """The text of a file that is not empty."""
    try:
        with open_plain(path) as file:
            raw = file.read()
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file ({role} expected); relative paths start at {Path.cwd()}"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError):
        raise DataError(f"{path}: the packed file is damaged or cut off; copy or download it again") from None
    except OSError as error:
        raise DataError(f"{path}: {role} cannot be read: {error.strerror or error}") from None
    if not raw.strip(b"\0 \t\r\n"):
        empty = "holds nothing but zeros" if raw.strip() else "is empty"
        raise DataError(f"{path}: the file {empty}; {role} expected. Copy or download it again")
    try:
        return decode(raw)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: {role} must be JSON text in UTF-8; byte {error.start} is not. If the file is in Latin-1 "
            "or another encoding of Windows, save it as UTF-8"
        ) from None


def problem_list(headline: str, problems: Sequence[str], advice: str = "") -> DataError:
    """One error of many problems: the headline, the first twenty, how many more there are, what to do."""
    lines = [headline, *(f"  {problem}" for problem in problems[:LISTED_PROBLEMS])]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - LISTED_PROBLEMS} more")
    return DataError("\n".join([*lines, advice] if advice else lines))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to, renamed to ``path`` when the block ends without an error.

    Parent folders are made. If the block raises, the temporary file is removed and an older ``path`` stays. An
    :class:`OSError` of a full disk that names no file, or the source of a copy, leaves it with the name of ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # One that names two files is of a copy: the source, which can be read, and then what cannot be written.
        if error.errno in UNWRITABLE and (error.filename is None or error.filename2 is not None):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """The first sixteen hexadecimal digits of a file's SHA-256; kept in memory while the file stays as it is.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(path: Path, changed: int, size: int) -> str:
    return sha256(path)[:16]


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_id(value: Any) -> int | None:
    """``value`` as an id if it is a whole number that fits 64 bits (``3`` or ``3.0``), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    if abs(value) >= 2**63 or value != int(value):
        return None
    return int(value)


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a number that a float64 can hold, neither NaN nor infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_box(value: Any) -> bool:
    """Whether ``value`` is a list of four finite numbers of a size that coordinates can have."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(v) in (int, float) and -LARGEST < v < LARGEST for v in value)
    )


def shown(value: Any, limit: int = 60) -> str:
    """``value`` as it would stand in a JSON file, shortened to ``limit`` characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no such file, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Any, indent: int | None = 1, allow_nan: bool = False) -> None:
    """Write a JSON file under a temporary name and rename it; parent folders are made.

    Args:
        path: the file.
        content: what :func:`json.dumps` takes.
        indent: spaces per level; None: all in one line, without a line end.
        allow_nan: write NaN and infinite numbers as Python's own reader takes them.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has no word for.
    """
    text = json.dumps(content, indent=indent, allow_nan=allow_nan)
    with replacing(path) as temporary:
        temporary.write_text(text if indent is None else f"{text}\n", encoding="utf-8")
