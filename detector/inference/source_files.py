"""Which files ``source=`` names: a file, the images in a folder, or those of a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFile

from detector.data.images import open_image
from detector.exceptions import DataError
from detector.words import counted

VIDEO_NAMES = """
    3g2 3gp 3gpp asf avi divx dv f4v flv h264 hevc m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf ogm ogv qt rm rmvb ts
    vob webm wmv y4m
"""
VIDEOS = frozenset(f".{name}" for name in VIDEO_NAMES.split())
NO_ENDING = "without an ending"
# What systems put into folders of images; nobody misses it.
OF_SYSTEMS = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"))


class Listing(NamedTuple):
    """The image files of a source.

    Attributes:
        files: sorted by path, each once.
        root: the folder that their names are relative to.
        skipped: how many other files there are, by their endings; those of the system are not counted.
    """

    files: list[Path]
    root: Path
    skipped: Counter[str]


def find_images(source: str, key: str = "source") -> Listing:
    """The image files that ``source`` names.

    Args:
        source: a file, a folder, or a pattern. Brackets that are in the name of a file or folder are no pattern.
        key: the key that gave it, for messages.

    Raises:
        DataError: there are none.
    """
    path = Path(source).expanduser()
    if path.is_file():  # its ending does not matter: Pillow looks at the content
        return Listing([path], path.parent, Counter())
    if path.is_dir():
        listing = sort_out(files_of(path), path)
        if not listing.files:
            raise DataError(f"{key}={source}: {what_is_there(listing.skipped)}")
        return listing
    refuse_other(source, key)
    if glob.has_magic(source):
        matched = matching(path)
        listing = sort_out([p for p in matched if p.is_file()], path)
        if not listing.files:
            raise DataError(
                f"{key}={source}: {counted(len(matched), 'file matches', 'files match')} this pattern, "
                f"and no image is among them (relative paths start at {Path.cwd()})"
            )
        return listing._replace(root=Path(os.path.commonpath([file.parent for file in listing.files])))
    raise DataError(
        f"{key}={source}: there is no such file or folder (relative paths start at {Path.cwd()}); give an "
        "image, a folder of images, a pattern in quotes such as 'photos/*.jpg', or a video"
    )


def refuse_other(source: str, key: str) -> None:
    """Raise :class:`DataError` for a source that other programs read, and this one does not."""
    kinds = (
        (r"-|/dev/stdin", "standard input is not read; write the image to a file, and give that"),
        (r"file://.*", "give the path of the file, without file://"),
        (r"(rtsp|rtmp|rtp|udp|tcp)s?://.*|\d+", "cameras and streams are not read; record a video, and give its file"),
        (r"[a-z][a-z\d+.-]+:/.*|www\..*", "addresses of the network are not read; download the file, and give that"),
        (r"screen.*", "the screen is not read; give an image or a video"),
    )
    for pattern, what in kinds:
        if re.fullmatch(pattern, source, re.IGNORECASE):
            raise DataError(f"{key}={source}: {what}")


def files_of(folder: Path) -> Iterable[Path]:
    """The files in a folder and in the folders in it, without what is hidden or of the system."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(parent, name) for name in files if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden (``._x.jpg`` of macOS too) or of the system."""
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def matching(path: Path) -> list[Path]:
    """The paths that match a pattern, sorted. What is there under its very name is no pattern: ``imgs[1]/*.jpg``."""
    parts = path.parts
    known = next(i for i in range(len(parts), -1, -1) if Path(*parts[:i]).exists())
    pattern = os.path.join(glob.escape(str(Path(*parts[:known]))) if known else "", *parts[known:])
    found = glob.glob(pattern, recursive=True)
    if not found:  # brackets may stand for themselves in the rest, as in '[2024] trip*.jpg'
        rest = [part.replace("[", "[[]") for part in parts[known:]]
        found = glob.glob(os.path.join(glob.escape(str(Path(*parts[:known]))) if known else "", *rest), recursive=True)
    return sorted({Path(name) for name in found})


def sort_out(files: Iterable[Path], root: Path) -> Listing:
    """The images among ``files``, and what the others are."""
    images, skipped = [], Counter[str]()
    for file in sorted(files):
        if is_image(file):
            images.append(file)
        elif not is_hidden(file.name):
            skipped[file.suffix.lower() or NO_ENDING] += 1
    return Listing(images, root, skipped)


def is_image(file: Path) -> bool:
    """Whether a file has the ending of an image, or none and the content of one."""
    suffix = file.suffix.lower()
    if suffix:
        return suffix in endings() and not file.name.startswith("._")
    try:
        with open_image(file):
            return True
    except Exception:  # Pillow raises what it likes
        return False


def what_is_there(skipped: Counter[str]) -> str:
    """What a folder without images holds."""
    if not skipped:
        return "this folder is empty"
    endings = [ending for ending, _ in skipped.most_common(8) if ending != NO_ENDING]
    only = [f"ending in {', '.join(endings)}"] * bool(endings) + [NO_ENDING] * (NO_ENDING in skipped)
    videos = ". Give each video by itself" if VIDEOS & skipped.keys() else ""
    return f"there are no images in this folder, only files {' and '.join(only)}{videos}"


@cache
def endings() -> frozenset[str]:
    """Endings of the images that Pillow can read."""
    Image.init()
    readers = {kind: factory for kind, (factory, _) in Image.OPEN.items()}
    stubs = {kind for kind, reader in readers.items() if is_stub(reader)}
    known = {end for end, kind in Image.registered_extensions().items() if kind in readers.keys() - stubs}
    return frozenset(known - VIDEOS)


def is_stub(reader: object) -> bool:
    """Whether a reader of Pillow only knows the name of its format: HDF5, GRIB, BUFR."""
    return isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
