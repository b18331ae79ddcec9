"""The first half of a cleaning: entries that the reader can read, mended from the file itself.

Everything that the reader does not use stays as it is: segmentations, licences, keys of other tools. What cannot be
mended without a guess is left out, an image together with its annotations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.data.annotation_table import MIN_SIDE, missing_files
from detector.data.annotations import LISTS, parse_annotations
from detector.data.coco_files import ANNOTATIONS, read_coco
from detector.data.images import SIDEWAYS, header_of
from detector.files import is_box
from detector.inspection.changes import ChangeLog
from detector.inspection.ids import CATEGORIES, IMAGES, Lookup, distinct, key_of, numbered, with_references
from detector.inspection.masks import box_of_mask
from detector.inspection.numbers import read_numbers, whole

Size = tuple[int, int]


def mend(file: Path, folder: Path, open_images: bool) -> tuple[dict[str, Any], ChangeLog]:
    """The content of ``file`` with entries that can be read, and what was changed.

    - Numbers in another form (text, true, names) become numbers. Ids that are no whole numbers, such as UUIDs and
      paths, become new ones; the old ones stay as ``original_id``. Annotations without an id of their own get one.
    - Images and categories of one id that are not the same are left out with their annotations.
    - An image or a category may be meant by its name instead of its id, if that is clear.
    - File names become those of the files that are meant; images without width and height get those of the file.
    - Annotations without a box get the one around their segmentation.

    Args:
        file: COCO annotation JSON.
        folder: of the images.
        open_images: look into image files for width and height.

    Raises:
        DataError: the file is not an annotation file, or there is no such folder.
    """
    content, log = read_coco(file, ANNOTATIONS), ChangeLog()
    for key in LISTS:
        content[key] = [read_numbers(key, entry, log) for entry in content[key]]
    content["categories"] = [named(entry, log) for entry in content["categories"]]
    lookups = {}
    for key, kind in (("categories", CATEGORIES), ("images", IMAGES)):
        content[key], lookups[key] = distinct(content[key], kind, content["annotations"], log)
    images = lookups["images"]
    content["images"] = with_files(file, content, folder, log)
    content["images"] = with_sizes(content["images"], folder if open_images else None, images, log)
    by_id = {entry["id"]: entry for entry in content["images"]}
    entries = (with_references(entry, list(lookups.values()), log) for entry in content["annotations"])
    pictures = folder if open_images else None
    mended = [with_box(entry, by_id[entry["image_id"]], pictures, log) for entry in entries if entry is not None]
    content["annotations"] = numbered(mended, log)
    return content, log


def named(entry: Any, log: ChangeLog) -> Any:
    """A category with a text as its name: the number that it has, or else its id."""
    if not isinstance(entry, dict) or isinstance(entry.get("name"), str):
        return entry
    name = None if isinstance(entry.get("name"), bool) else key_of(entry.get("name"))
    name = key_of(entry.get("id")) if name is None else name
    if name is None:
        return entry
    log("named category", "its name is missing or no text", entry, after=str(name))
    return {**entry, "name": str(name)}


def with_files(file: Path, content: dict[str, Any], folder: Path, log: ChangeLog) -> list[Any]:
    """The images with the names of the files that seem to be meant where there are none of their own."""
    named = [entry for entry in content["images"] if isinstance(entry.get("file_name"), str) and entry["file_name"]]
    lists = {"images": named, "annotations": [], "categories": []}
    read = parse_annotations(file, lists, need_pictures=False, strict=False)
    renamed = missing_files(folder, read)[1]
    result = []
    for entry in content["images"]:
        if entry["id"] in renamed:
            why = "there is no such file, but another one that seems to be meant"
            log("renamed image", why, entry, after=renamed[entry["id"]])
            entry = {**entry, "file_name": renamed[entry["id"]]}
        result.append(entry)
    return result


def with_sizes(entries: list[Any], folder: Path | None, images: Lookup, log: ChangeLog) -> list[Any]:
    """The images that have a file name and, if need be from their file, a width and a height."""
    wrong: dict[int, tuple[str, str]] = {}
    result = []
    for position, entry in enumerate(entries):
        size, name = (whole(entry.get("height")), whole(entry.get("width"))), entry.get("file_name")
        if not isinstance(name, str) or not name:
            wrong[position] = ("bad_image", "it has no file name")
        elif min(size) < 1:
            found = stored_sizes(folder / name) if folder else []
            if len(found) == 1:
                log("resized image", "its width and height are missing", entry, after=list(found[0]))
                entry = {**entry, "height": found[0][0], "width": found[0][1]}
            else:  # boxes of a picture that EXIF turns may be of either form
                tells = ", and its file does not tell them (missing, damaged, or turned by EXIF)" if folder else ""
                wrong[position] = ("bad_image", f"its width and height are missing{tells}")
        result.append(entry)
    images.gone |= {result[position]["id"]: why for position, (_, why) in wrong.items()}
    return log.without(result, wrong, "dropped image")


def stored_sizes(path: Path) -> list[Size]:
    """(height, width) of an image file: as it is stored and, if it is another one, as EXIF turns it; none if it cannot
    be read."""
    height, width, orientation = header_of(path)
    found = {(height, width): None, (width, height): None} if orientation in SIDEWAYS else {(height, width): None}
    return list(found) if height else []


def with_box(entry: dict[str, Any], image: dict[str, Any], folder: Path | None, log: ChangeLog) -> dict[str, Any]:
    """An annotation with the box around its segmentation where its own is missing, unreadable or empty."""
    box: Any = entry.get("bbox")
    if is_box(box) and min(box[2:]) >= MIN_SIDE:
        return entry
    size, segmentation = (whole(image["height"]), whole(image["width"])), entry.get("segmentation")
    # Runs mean nothing without the right height; the entry may have it exchanged with the width.
    if isinstance(segmentation, dict) and folder and size not in stored_sizes(folder / image["file_name"]):
        return entry
    around = box_of_mask(segmentation, size)
    if around is None:
        return entry
    log("box from segmentation", "it has no box with an area of its own", entry, after=around)
    return {**entry, "bbox": around}
