"""Which files are meant by names that are not there: tools and systems write names in ways of their own."""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image

Step = Callable[[str], str]
Steps = tuple[tuple[str, Step], ...]

Image.init()
KINDS = frozenset(Image.EXTENSION)  # suffixes of image files, in lower case
QUERY = re.compile(r"(\.\w{2,5})[?#].*\Z", re.DOTALL)
# The first letters of folders that are named after a subset of the data: a file of another subset is another one.
SUBSET = re.compile(r"(train|val|test)", re.IGNORECASE)
# What annotation tools put before a name (Label Studio: eight hexadecimal digits) or after it (Roboflow).
TOOL_PREFIX = re.compile(r"(?:[0-9a-f]{4,}(?:-[0-9a-f]{4}){0,3}(?:-[0-9a-f]{12})?|coco_[a-z]+\d{4})[-_](?=.)")
TOOL_SUFFIX = re.compile(r"[_.-](?:jpe?g|png|bmp|tiff?|webp|gif)\.rf\.[0-9a-z]{16,}\Z")


def unquoted(text: str) -> str:
    """``text`` without the %-codes of a URL, those of a URL that was encoded twice too."""
    for _ in range(3):
        if (decoded := unquote(text)) == text or "\ufffd" in decoded:
            break
        text = decoded
    return text


def ungarbled(text: str) -> str:
    """``text`` as it was before its UTF-8 was read in an encoding of Windows or DOS."""
    if text.isascii():
        return text
    for encoding in ("cp1252", "latin-1", "cp437"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return text


def in_one_form(text: str) -> str:
    """``text`` in the Unicode form NFC."""
    return unicodedata.normalize("NFC", text)


def trimmed(text: str) -> str:
    """``text`` without blanks at the ends of its folders and its name."""
    return "/".join(part.strip() for part in text.split("/"))


def without_ending(text: str) -> str:
    """``text`` without the endings of image files."""
    while (parts := os.path.splitext(text))[1].lower() in KINDS:
        text = parts[0]
    return text


# What comparisons leave out of account, from the most exact one to the loosest, as ends of the sentence "3 of 5 file
# names ...". Names that are equal without a step, and not with it, differ in this.
EXACT: Steps = (("have the backslashes of Windows", lambda text: text.replace("\\", "/")),)
SPELLING: Steps = (
    ("have a query string", lambda text: QUERY.sub(r"\1", text) if "?" in text or "#" in text else text),
    ("are URL-encoded", unquoted),
    ("have the entities of HTML", html.unescape),
    ("were read in a wrong encoding", ungarbled),
    ("are in another Unicode form (NFC or NFD)", in_one_form),
    ("begin or end in blanks", trimmed),
)
CASE: Steps = (("are in other upper and lower case", str.casefold),)
ENDING: Steps = (("have another ending or none", without_ending),)
ANY_CASE = (*EXACT, *SPELLING, *CASE)
ALL_STEPS = (*ANY_CASE, *ENDING)
OTHER_SIGNS = "have other signs between their words"
TOOLS: Steps = (
    ("have a prefix of an annotation tool", lambda text: TOOL_PREFIX.sub("", text, count=1)),
    ("have a suffix of an annotation tool", lambda text: TOOL_SUFFIX.sub("", text)),
    (OTHER_SIGNS, lambda text: text),
)


@dataclass
class Found:
    """What was found out about names that are not there.

    Attributes:
        files: the file that a name means, relative to the folder.
        ways: by name, how it is written otherwise: ends of the sentence "3 of 5 file names ...".
        several: the files that a name could mean, where they are more than one, or mean another name as well.
    """

    files: dict[str, str] = field(default_factory=dict)
    ways: dict[str, tuple[str, ...]] = field(default_factory=dict)
    several: dict[str, list[str]] = field(default_factory=dict)

    def sentences(self, names: Sequence[str], folder: Path) -> dict[str, str]:
        """One sentence for all of ``names`` that are written otherwise in the same way, by the first of them."""
        first = {way: name for name in reversed(names) if (way := self.ways.get(name))}
        counts = Counter(self.ways[name] for name in names if name in self.ways)
        texts = {}
        for way, count in counts.most_common():
            said = " and ".join(part for part in (", ".join(way[:-1]), way[-1]) if part)
            meant = folder / self.files[first[way]]
            texts[first[way]] = f"{count:,} of {len(names):,} file names {said}: {first[way]} means {meant}"
        return texts


def absent(folder: Path, names: Iterable[str]) -> np.ndarray:
    """bool ``[len(names)]``: which names are no file. Lists folders: that is faster than to ask for every file."""
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, last = os.path.split(os.path.join(folder, name.rstrip("/")))
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        missing.append(last not in listings[parent])
    return np.array(missing, dtype=bool)


def find_files(folder: Path, names: Collection[str], taken: Collection[str] = ()) -> Found:
    """The files below ``folder`` that ``names``, which are not there, mean.

    A name means the file that has the same name in another spelling: in another folder, with the path of another
    machine, encoded for a URL, in another Unicode form or case, with another ending. Names as annotation tools write
    them (:data:`TOOLS`) count only if all names are of that kind. No file is guessed: a name means nothing if two files
    fit, if another name means the same file, if the file is one of ``taken``, or if it lies in a folder that
    contradicts the name's own. Takes time in proportion to names and files.

    Args:
        folder: of the images.
        names: as the annotation file gives them.
        taken: the names of the annotation file that are there.
    """
    own = {os.path.normpath(name) for name in taken}
    found = Found()
    files = {file: file for file in image_files(folder) if os.path.normpath(file) not in own}
    left = dict.fromkeys(names, "")
    texts = {name: name for name in left}
    for steps in (EXACT, SPELLING, CASE, ENDING):
        files = {file: without(text, steps) for file, text in files.items()}
        texts = {name: without(texts[name], steps) for name in left}
        left = match(texts, {file: last_part(text) for file, text in files.items()}, found)
    match_renamed_folders({name: texts[name] for name in left}, files, found)
    if not (own or found.files or found.several):
        match_tool_names(texts, files, found)
    uses = Counter(found.files.values())
    for name in [name for name, file in found.files.items() if uses[file] > 1]:
        found.several[name] = [found.files.pop(name)]
    found.ways = {name: differences(name, file) for name, file in found.files.items()}
    return found


def image_files(folder: Path) -> Iterator[str]:
    """The image files below a folder, relative to it; not those whose names are no text, as JSON cannot hold them."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        place = os.path.relpath(parent, folder).replace(os.sep, "/") + "/"
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in KINDS and not name.startswith("._"):
                path = name if place == "./" else place + name
                if path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path):
                    yield path


def without(text: str, steps: Steps) -> str:
    """``text`` without all that ``steps`` leave out of account."""
    for _, step in steps:
        text = step(text)
    return text


def parts(text: str) -> list[str]:
    """The folders and the name of a path."""
    return [part for part in text.split("/") if part not in ("", ".", "..")]


def last_part(text: str) -> str:
    """The name of a path, "" if it has none."""
    return text.rstrip("/").rpartition("/")[2]


def match(names: Mapping[str, str], files: Mapping[str, str], found: Found) -> dict[str, str]:
    """Add to ``found`` the names whose text ends like files; returns the other ones.

    Args:
        names: by name, the text to compare.
        files: by file, the text that the last part of a name's text must be.
        found: is added to.
    """
    wanted, of_key = {last_part(text) for text in names.values()} - {""}, defaultdict(list)
    for file, key in files.items() if wanted else ():
        if key in wanted:
            of_key[key].append(file)
    left = {}
    for name, text in names.items():
        nearest = in_nearest_folder(name, of_key.get(last_part(text), []))
        if len(nearest) == 1:
            found.files[name] = nearest[0]
        elif nearest:
            found.several[name] = nearest
        else:
            left[name] = text
    return left


def in_nearest_folder(name: str, files: Sequence[str]) -> list[str]:
    """Those of ``files`` whose folders do not contradict those of ``name`` and share most of them, from within."""
    own = parts(without(name, ANY_CASE))[-2::-1]
    shared: dict[int, list[str]] = defaultdict(list)
    for file in files:
        other = parts(without(file, ANY_CASE))[-2::-1]
        depth = min(len(own), len(other))
        if own[:depth] == other[:depth]:
            shared[depth].append(file)
    return shared[max(shared)] if shared else []


def match_renamed_folders(names: Mapping[str, str], files: Mapping[str, str], found: Found) -> None:
    """Add to ``found`` the names of a folder that is not there, if one other folder has the very same names in it."""

    def by_folder(texts: Mapping[str, str]) -> dict[tuple[str, ...], dict[str, str]]:
        folders: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
        for path, text in texts.items():
            *place, last = parts(text) or [""]
            inside = folders[tuple(place)]
            inside[path if last in inside else last] = path
        return folders

    there = by_folder(files)
    known = {place[i:] for place in there for i in range(len(place))}
    with_names = defaultdict(list)
    for place, inside in there.items():
        with_names[frozenset(inside)].append(place)
    for place, wanted in by_folder(names).items():
        same = with_names.get(frozenset(wanted), [])
        if len(same) != 1 or not place or place in known or any(place[i:] in there for i in range(len(place))):
            continue
        own, other = subsets(place), subsets(same[0])
        if not (own and other and own != other):
            found.files |= {name: there[same[0]][key] for key, name in wanted.items()}


def subsets(place: Iterable[str]) -> set[str]:
    """The subsets of a data set (train, val, test) that folders are named after."""
    return {match[0] for part in place if (match := SUBSET.match(part))}


def match_tool_names(names: Mapping[str, str], files: Mapping[str, str], found: Found) -> None:
    """Add to ``found`` what names of annotation tools mean, if every one of ``names`` is written in the same way."""

    def words(texts: Mapping[str, str], bare: Step) -> dict[str, str]:
        return {path: re.sub(r"[\W_]+", "_", bare(last_part(text))) for path, text in texts.items()}

    as_they_are = [words(texts, str) for texts in (names, files)]
    for _, bare in TOOLS:
        stripped = [words(texts, bare) for texts in (names, files)]
        for of_names, of_files in ((stripped[0], as_they_are[1]), (as_they_are[0], stripped[1])):
            trial = Found()
            left = match(of_names, of_files, trial)
            changed = {
                (of_names[name] != as_they_are[0][name], of_files[file] != as_they_are[1][file])
                for name, file in trial.files.items()
            }
            if not left and not trial.several and len(changed) == 1:
                found.files |= trial.files
                return


def differences(name: str, file: str) -> tuple[str, ...]:
    """How a name is written otherwise than its file: ends of the sentence "3 of 5 file names ..."."""

    def stems(steps: Steps) -> list[str]:
        return [last_part(without(path, steps)) for path in (name, file)]

    ways = []
    if parts(without(name, ANY_CASE))[:-1] != parts(without(file, ANY_CASE))[:-1]:
        elsewhere = re.match(r"([a-z]:)?[\\/]|[a-z]\w+://|~", name, re.IGNORECASE)
        ways.append("are paths of another machine" if elsewhere else "have other folders")
    steps, texts = ANY_CASE, stems(ANY_CASE)
    if texts[0] != texts[1]:
        steps, texts = ALL_STEPS, stems(ALL_STEPS)
    if texts[0] != texts[1]:
        tool = next((way for way, bare in TOOLS if [bare(stem) for stem in texts] != texts), OTHER_SIGNS)
        return (*ways, tool)
    texts, changing = [name, file], []
    for step in steps:
        before, texts = texts, [step[1](text) for text in texts]
        changing += [step] * (texts != before)
    for step in changing:
        own, other = stems(tuple(s for s in changing if s is not step))
        ways += [step[0]] * (own != other)
    return tuple(ways)
