"""What a cleaning changes, entry by entry: the content of ``OUT-changes.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Change = dict[str, Any]
SHOWN = ("id", "image_id", "category_id", "file_name", "name", "bbox", "area", "iscrowd", "entry")
"""Keys of an entry that the log repeats."""


class ChangeLog:
    """The changes so far, in ``changes``; calling it adds one."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def __call__(self, what: str, why: str, entry: Any, **more: Any) -> None:
        """Add a change.

        Args:
            what: was done, such as "new id".
            why: it had to be.
            entry: of the annotation file, as it was.
            more: such as ``after``, what it is now, or the ``kind`` of the problem.
        """
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        shown = {key: entry[key] for key in SHOWN if key in entry}
        self.changes.append({"what": what, "why": why, "entry": shown, **more})

    def without(self, entries: list[Any], wrong: Mapping[int, tuple[str, str]], what: str) -> list[Any]:
        """The entries but those at the positions of ``wrong``, which says the kind of the problem and why."""
        for position in sorted(wrong):
            kind, why = wrong[position]
            self(what, why, entries[position], kind=kind)
        return [entry for position, entry in enumerate(entries) if position not in wrong]
