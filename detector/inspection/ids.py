"""Which image and which category an annotation means, whatever its ids are: numbers, text, UUIDs, paths, names.

Nothing is decided by guess: an id that two entries have, or that could mean two things, means none of them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detector.files import as_id, is_finite, shown
from detector.inspection.changes import ChangeLog
from detector.inspection.numbers import WHOLE

Key = int | str
LARGEST_ID = 2**53  # beyond it, float64 (MATLAB, JavaScript) cannot tell ids apart


class Kind(NamedTuple):
    """A list of the file whose entries annotations refer to."""

    one: str  # an entry of it
    many: str
    reference: str  # the key of an annotation
    name: str  # the key of an entry that names it
    same: tuple[str, ...]  # entries of one id that agree in these keys are one entry given twice


IMAGES = Kind("image", "images", "image_id", "file_name", ("file_name", "height", "width"))
CATEGORIES = Kind("category", "categories", "category_id", "name", ("name",))


def key_of(value: Any) -> Key | None:
    """What tells an id from others: the whole number that it is or says, else its text; None for what is no id."""
    if isinstance(value, str):
        whole = WHOLE.fullmatch(value.strip())
        number = as_id(int(whole[1])) if whole else None
        return (value if value.strip() else None) if number is None else number
    number = as_id(value)
    if number is None and (isinstance(value, bool) or is_finite(value)):
        return json.dumps(value)  # 2.5, true, a number beyond 64 bits
    return number


def unused(used: Collection[int]) -> Iterator[int]:
    """Ids that are not among ``used``: those above, or the smallest ones if there is no room above."""
    top = max((*used, 0)) + 1
    return (i for i in itertools.count(top if top < LARGEST_ID else 1) if i not in used)


@dataclass
class Lookup:
    """The entries of one list by what annotations may call them.

    Attributes:
        kind: of the list.
        ids: the id of each entry, by :func:`key_of` the one that it had.
        gone: why entries were left out, by their ids.
        names: the key of an entry by its name, if no other entry has that name.
        as_text: the keys of entries whose id is a text.
        by_name: some annotation means an entry by its name.
    """

    kind: Kind
    ids: dict[Key, int] = field(default_factory=dict)
    gone: dict[int, str] = field(default_factory=dict)
    names: dict[str, Key] = field(default_factory=dict)
    as_text: set[Key] = field(default_factory=set)
    by_name: bool = False

    def find(self, value: Any) -> int | tuple[str, str]:
        """The id of the entry that ``value`` of an annotation means, or the kind of the problem and why it is none."""
        key = key_of(value)
        if key is None:
            return "bad_annotation", f"{self.kind.reference} is {shown(value)}"
        name = self.names.get(value if isinstance(value, str) else str(key))
        known = key in self.ids
        # A name is looked at if some annotation has one, or if it is a text and ids are numbers.
        named = self.by_name or (isinstance(value, str) and key not in self.as_text)
        if known and named and name is not None and name != key:
            return "ambiguous_id", f"{shown(value)} is the id of one {self.kind.one} and the name of another"
        meant = key if known else name
        if meant is None:
            return f"unknown_{self.kind.one}", f"there is no {self.kind.one} with the id {shown(value)}"
        number = self.ids[meant]
        if number in self.gone:
            return f"{self.kind.one}_left_out", f"its {self.kind.one} is left out: {self.gone[number]}"
        return number


def distinct(
    entries: Sequence[Any], kind: Kind, annotations: Sequence[Any], log: ChangeLog
) -> tuple[list[Any], Lookup]:
    """The entries with integer ids of their own, and how to find them.

    Entries without an id are left out, and all of several that have the same id; of an entry that is given twice,
    with the same id and content, the first stays. An id that is no integer is kept under ``original_id``.

    Args:
        entries: of the list, with numbers read.
        kind: of the list.
        annotations: that refer to them. New ids do not depend on them, so that copies of files with the same entries
            agree; a reference to an id that no entry had means none (:meth:`Lookup.find`), whatever the new ids are.
        log: takes the changes.
    """
    lookup, wrong = Lookup(kind), {}
    keys = [key_of(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    groups = defaultdict(list)
    for position, key in enumerate(keys):
        if key is None:
            wrong[position] = (f"bad_{kind.one}", f"it has no id, and nothing tells its {kind.one} from others")
        else:
            groups[key].append(position)
    again: dict[int, str] = {}
    ambiguous: dict[Key, str] = {}
    for key, positions in groups.items():
        first, *others = ([entries[p].get(name) for name in kind.same] for p in positions)
        if others and all(other == first for other in others):
            again |= dict.fromkeys(positions[1:], f"it is given twice with the id {shown(key)}")
        elif others:
            why = f"{len(positions)} {kind.many} have the id {shown(key)}: nobody can tell which of them is meant"
            ambiguous[key] = why
            wrong |= dict.fromkeys(positions, ("ambiguous_id", why))

    references = [key_of(a.get(kind.reference)) for a in annotations if isinstance(a, dict)]
    lookup.ids = {key: key for key in groups if isinstance(key, int)}
    free = unused(set(lookup.ids.values()))
    # By the old ids, so that two files with the same categories in another order agree.
    lookup.ids |= dict(zip(sorted(key for key in groups if isinstance(key, str)), free, strict=False))
    lookup.gone = {lookup.ids[key]: why for key, why in ambiguous.items()}
    lookup.as_text = {key for key, at in groups.items() if all(isinstance(entries[p]["id"], str) for p in at)}
    names = [entry.get(kind.name) if isinstance(entry, dict) else None for entry in entries]
    often = Counter(name for p, name in enumerate(names) if isinstance(name, str) and p not in again)
    lookup.names = {
        name: key
        for p, (name, key) in enumerate(zip(names, keys, strict=True))
        if isinstance(name, str) and often[name] == 1 and key is not None and p not in again
    }
    known = lookup.ids.keys()
    lookup.by_name = any(key not in known and str(key) in lookup.names for key in references if key is not None)

    kept = []
    for position, (entry, key) in enumerate(zip(entries, keys, strict=True)):
        if position in again:
            log(f"merged {kind.one}", again[position], entry)
        elif position in wrong:
            log(f"dropped {kind.one}", wrong[position][1], entry, kind=wrong[position][0])
        else:
            assert key is not None
            kept.append(with_id(entry, lookup.ids[key], log))
    return kept, lookup


def with_id(entry: dict[str, Any], number: int, log: ChangeLog) -> dict[str, Any]:
    """``entry`` with the id ``number``; another one that it had is kept under ``original_id``."""
    given = entry.get("id")
    if type(given) is int and given == number:
        return entry
    if key_of(given) == number:
        log("number", "its id is a number in another form", entry, after={"id": number})
        return {**entry, "id": number}
    log("new id", "its id is no whole number", entry, before=given, after=number)
    return {**entry, "id": number, "original_id": entry.get("original_id", given)}


def with_references(entry: Any, lookups: Sequence[Lookup], log: ChangeLog) -> Any:
    """An annotation with the ids of its image and its category; None, and logged, if it is not clear which they are."""
    if not isinstance(entry, dict):
        log("dropped annotation", "it is no object", entry, kind="bad_annotation")
        return None
    found: dict[str, int] = {}
    for lookup in lookups:
        number = lookup.find(entry.get(lookup.kind.reference))
        if not isinstance(number, int):
            log("dropped annotation", number[1], entry, kind=number[0])
            return None
        found[lookup.kind.reference] = number
    changed = {key: number for key, number in found.items() if type(entry[key]) is not int or entry[key] != number}
    if changed:
        numbers = all(key_of(entry[key]) == number for key, number in changed.items())
        why = "an id is a number in another form" if numbers else "an id of its image or category is new"
        log("number" if numbers else "new reference", why, entry, after=changed)
    return {**entry, **changed}


def numbered(entries: Sequence[dict[str, Any]], log: ChangeLog) -> list[dict[str, Any]]:
    """Annotations with whole numbers other than 0 as ids, each of one; 0 is "no match" to pycocotools."""
    keys = [key_of(entry.get("id")) for entry in entries]
    free = unused({key for key in keys if isinstance(key, int)})
    used: set[int] = set()
    result = []
    for entry, key in zip(entries, keys, strict=True):
        if isinstance(key, int) and key and key not in used:
            used.add(key)
            result.append(with_id(entry, key, log))
        elif isinstance(key, str):
            result.append(with_id(entry, next(free), log))
        else:
            why = {None: "it has no id", 0: "pycocotools takes the id 0 for no match"}
            after = next(free)
            log("new id", why.get(key, "its id is used before"), entry, before=entry.get("id"), after=after)
            result.append({**entry, "id": after})
    return result
