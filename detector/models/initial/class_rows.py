"""Which class of a trained detector becomes which class of a new one: by name, and as ``model.class_map`` says."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detector.exceptions import ConfigError, WeightsError

LEVELS = {"name": "", "key": "by name, spelt otherwise", "plural": "by name, plural and singular"}
"""How names may be alike, the closest first, and how the table says it."""
SEPARATORS, MINUS = re.compile(r"[ \-/.]+"), "\N{MINUS SIGN}"
# Names that Hydra reads as keys of a dict without further ado: it has no quotes for keys.
PLAIN, WORDS = re.compile(r"[A-Za-z_][\w+/-]*(?: [\w+/-]+)*", re.ASCII), ("true", "false", "null", "nan", "inf")
LISTED = 12  # classes that are dropped and stand each in a row of its own; more stand in one line


@dataclass(frozen=True)
class ClassRows:
    """Where the rows of the class layer come from.

    Attributes:
        old: names of the old classes; "" for one that is not known.
        new: names of the new ones, those that were kept at the end.
        sources: for each new class the positions in ``old`` that its row is the mean of; none for a new row.
        how: for each new class how it was found; "" for the same name.
        kept: positions in ``old`` of the classes that were kept.
        unwanted: positions in ``old`` of the classes that ``model.class_map`` drops.
        beginning: what the rows of new classes are, for the table.
    """

    old: list[str]
    new: list[str]
    sources: list[list[int]]
    how: list[str]
    kept: list[int] = field(default_factory=list)
    unwanted: list[int] = field(default_factory=list)
    beginning: str = "random rows"

    @property
    def dropped(self) -> list[int]:
        """Positions in ``old`` of the classes that become none of the new ones."""
        used = {position for row in self.sources for position in row}
        return [position for position, name in enumerate(self.old) if position not in used and name]

    def targets(self, position: int) -> list[int]:
        """Positions in ``new`` of what the old class at ``position`` becomes."""
        return [new for new, row in enumerate(self.sources) if position in row]

    def table(self) -> str:
        """From, to and how, a row for each class."""
        rows = [("from", "to", "")]
        for name, sources, how in zip(self.new, self.sources, self.how, strict=True):
            told = how or "by name"
            if len(sources) > 1:
                told += ", the mean of their rows"
            rows.append(
                (", ".join(map(self._shown, sources)) or "-", name, told if sources else f"new: {self.beginning}")
            )
        dropped = [self.old[position] for position in self.dropped]
        rows += [(name, "-", "dropped") for name in dropped if len(dropped) <= LISTED]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows]
        if len(dropped) > LISTED:
            lines.append(f"dropped {len(dropped)}: {', '.join(dropped)}")
        return "\n".join(lines)

    def _shown(self, position: int) -> str:
        return self.old[position] or f"row {position + 1}"


def match_classes(
    old: Sequence[str], new: Sequence[str], class_map: Mapping[str, Any], source: str, remedy: str = ""
) -> ClassRows:
    """Find the old class of each new one: where ``class_map`` says so, by the same name, or by one that is alike.

    Names are alike if they differ in case, separators (:func:`key_of`), or plural and singular only.

    Args:
        old: names of the classes of the detector to start from; "" for one that is not known.
        new: names of the classes of the data.
        class_map: old name -> new name, a list of new names, or None for a class that is not to be carried over. Of
            several old names with the same new one the mean is taken. Any class may be called by its number from 1 on.
        source: of the old detector, for messages.
        remedy: what to do about a name that is like several others; "": say in ``class_map`` which is which.

    Raises:
        ConfigError: ``class_map`` names a class that there is not, or one of several that are alike, or maps it to
            something else than a name.
        WeightsError: a name is like several others.
    """
    found: dict[int, tuple[list[int], str]] = {}  # new position -> old positions, how
    names = [name or str(position + 1) for position, name in enumerate(old)]
    taken, unwanted = set(), []
    for key, value in class_map.items():
        position = _position(str(key), names, f"model.class_map: {source} has")
        taken.add(position)
        unwanted += [position] if value is None else []
        for target in [] if value is None else value if isinstance(value, list) else [value]:
            if not isinstance(target, str | int) or isinstance(target, bool):
                raise ConfigError(
                    f"model.class_map: {key} is mapped to {target!r}; give the name of a class, a list of names, or "
                    "null to drop it"
                )
            row = found.setdefault(
                _position(str(target), new, "model.class_map: the data have"), ([], "model.class_map")
            )
            row[0].append(position)
    free_old = [i for i, name in enumerate(old) if name and i not in taken]
    free_new = [i for i in range(len(new)) if i not in found]
    for level in LEVELS:
        index = Index({o: old[o] for o in free_old})
        pairs = [(n, o) for n in free_new for o in index.find(new[n], level)]
        for n, o in pairs:
            if len({a for b, a in pairs if b == n}) > 1 or len({b for b, a in pairs if a == o}) > 1:
                rivals = sorted({new[b] for b, a in pairs if a == o} | {old[a] for b, a in pairs if b == n})
                raise WeightsError(
                    f"classes of {source} and of the data cannot be told apart by their names: {', '.join(rivals)}. "
                    + (
                        remedy
                        or f"Say which is which, as in 'model.class_map={{{_called(o, names)}: {_called(n, new)}}}'"
                    )
                )
            found[n] = ([o], LEVELS[level])
        free_old = [o for o in free_old if not any(a == o for _, a in pairs)]
        free_new = [n for n in free_new if n not in found]
    rows = [found.get(n, ([], "")) for n in range(len(new))]
    return ClassRows(list(old), list(new), [row for row, _ in rows], [how for _, how in rows], unwanted=unwanted)


def key_of(name: str) -> str:
    """A name without its case and its separators: spaces, underscores, hyphens, slashes and points.

    Everything else tells classes apart: other signs, the vowels of Hindi, separators between digits, a point before
    digits, and a hyphen at the beginning or end of a word. The name itself if it has separators only.
    """
    plain = "".join(map(_simplest, unicodedata.normalize("NFKC", name).casefold()))
    return SEPARATORS.sub(_without, plain.strip()) or name


def _simplest(c: str) -> str:
    """A character, with the same one for all dashes and for all kinds of space."""
    category = unicodedata.category(c)
    if category == "Pd" or c == MINUS:
        return "-"
    return " " if c == "_" or c.isspace() else "" if category == "Cf" else c


def _without(run: re.Match[str]) -> str:
    """What stays of a run of separators."""
    found, text = run[0], run.string
    before, after = text[: run.start()][-1:], text[run.end() :][:1]
    if before.isdigit() and after.isdigit():
        return found.strip() or " "
    outer = not before or not after
    sign = (found[0] == "-" and (outer or found[-1] == " ")) or (found[-1] == "-" and (outer or found[0] == " "))
    point = found[-1] == "." and after.isdigit() and not before.isalpha()
    return "-" * sign + "." * point


def plurals(word: str) -> set[str]:
    """How a regular English plural of ``word`` may be spelt; none of one or two letters, which are mostly codes."""
    if len(word) < 3:
        return set()
    found = {f"{word}es"} if word.endswith("s") else {f"{word}s", f"{word}es"}
    for end, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves")):
        if word.endswith(end):
            found.add(word.removesuffix(end) + plural)
    return found


class Index:
    """Names that can be looked up by what is alike."""

    def __init__(self, names: Mapping[int, str]):
        self._found: dict[str, dict[str, list[int]]] = {level: {} for level in LEVELS}
        for position, name in names.items():
            key = key_of(name)
            for level, words in (("name", {name}), ("key", {key}), ("plural", plurals(key))):
                for word in words:
                    self._found[level].setdefault(word, []).append(position)

    def find(self, name: str, level: str) -> list[int]:
        """Positions of the names that are the same as ``name``, or alike in the way of ``level``."""
        key = key_of(name)
        if level == "plural":
            singular, plural = self._found["plural"].get(key, []), [self._found["key"].get(w, []) for w in plurals(key)]
            return sorted({*singular, *(position for found in plural for position in found)})
        return self._found[level].get(name if level == "name" else key, [])


def _position(called: str, names: Sequence[str], having: str) -> int:
    """Where the class is that is ``called`` so in ``names``: as it is or alike, or by its number from 1 on."""
    index = Index(dict(enumerate(names)))
    for level in LEVELS:
        found = index.find(called, level)
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{names[position]} (number {position + 1})" for position in found)
            raise ConfigError(f"{having} several classes that {called!r} may be: {several}. Give the number of one")
    if called.isdecimal() and 1 <= int(called) <= len(names):
        return int(called) - 1
    nearest = difflib.get_close_matches(called, names, n=1)
    known = f"did you mean {nearest[0]!r}?" if nearest else f"its classes are {', '.join(names)}"
    raise ConfigError(f"{having} no class {called!r}; {known}")


def _called(position: int, names: Sequence[str]) -> str:
    """What the command line takes for a class in ``model.class_map``: its name, or its number."""
    name = names[position]
    alone = [key_of(other) for other in names].count(key_of(name)) == 1
    return name if alone and PLAIN.fullmatch(name) and name.lower() not in WORDS else str(position + 1)
