"""Numbers that a file gives in another form: as text, as ``true`` and ``false``, as an object with names for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from detector.data import left_out
from detector.files import as_id, is_finite
from detector.inspection.changes import ChangeLog

WHOLE = re.compile(r"([+-]?[0-9]{1,19})(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SIDES = ({"x", "y", "width", "height"}, {"x", "y", "w", "h"}, {"left", "top", "width", "height"})
CORNERS = ({"x1", "y1", "x2", "y2"}, {"xmin", "ymin", "xmax", "ymax"}, {"left", "top", "right", "bottom"})
ORDER = ("x", "left", "x1", "xmin", "y", "top", "y1", "ymin", "w", "width", "x2", "xmax", "right")  # then the others


def as_number(value: Any) -> Any:
    """``value``, or the number if it is a text that says one."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    whole = WHOLE.fullmatch(text)
    if whole:
        return int(whole[1])
    return float(text) if NUMBER.fullmatch(text) else value


def flag_or_same(value: Any) -> Any:
    """``value``, or 0 or 1 if it says no or yes in another form."""
    found = left_out.as_flag(value)
    same = value is None or found is None or (value == found and not isinstance(value, bool))
    return as_number(value) if same else found


def as_box(value: Any) -> Any:
    """``value``, or [left, top, width, height] if it is four numbers in a text, texts in a list, or named numbers."""
    found = value
    if isinstance(value, str):
        found = re.split(r"[\s,;]+", value.strip().strip("[]()").strip())
    elif isinstance(value, dict):
        named = {str(key).lower(): v for key, v in value.items()}
        if len(named) == len(value) and named.keys() in (*SIDES, *CORNERS):
            order = sorted(named, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
            found = [as_number(named[name]) for name in order]
            if named.keys() in CORNERS and all(is_finite(v) for v in found):
                found = [*found[:2], found[2] - found[0], found[3] - found[1]]
    if isinstance(found, list):
        found = [as_number(v) for v in found]
    good = isinstance(found, list) and len(found) == 4 and all(is_finite(v) for v in found)
    return found if good else value


READERS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "images": {"width": as_number, "height": as_number},
    "annotations": {"bbox": as_box, "area": as_number, "iscrowd": flag_or_same, "ignore": flag_or_same},
    "categories": {},
}
"""How the keys of each list are read. Ids are the matter of ``ids``: what they mean depends on the other ids."""


def read_numbers(key: str, entry: Any, log: ChangeLog) -> Any:
    """An entry of the list ``key`` with numbers where it says them in another form."""
    if not isinstance(entry, dict):
        return entry
    found = {name: read(entry[name]) for name, read in READERS[key].items() if name in entry}
    found = {name: value for name, value in found.items() if repr(value) != repr(entry[name])}
    if found:
        log("number", "a number is given as text or in another form", entry, after=found)
    return {**entry, **found}


def whole(value: Any) -> int:
    """A width or height in pixels; 0 if ``value`` is none."""
    return max(as_id(value) or 0, 0)
