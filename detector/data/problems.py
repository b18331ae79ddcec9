"""What can be wrong with a data set, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config.commands import command
from detector.exceptions import DataError
from detector.files import LISTED_PROBLEMS, problem_list
from detector.words import counted

CORRECT, SEEN_BY_INSPECTION = "correct", "inspection"
# What on_invalid does about each kind of problem. "annotation" and "image": drop and clip leave it out. "clip":
# drop leaves the annotation out, clip keeps what is inside the image. CORRECT: nothing, the file has to be corrected.
# SEEN_BY_INSPECTION: training does not look for this kind.
REMEDIES = {
    "bad_image": CORRECT,  # an entry of "images" that lacks a key, or an id given twice
    "bad_category": CORRECT,  # the same for "categories"
    "exchanged_size": CORRECT,  # width and height of images are exchanged
    "corner_boxes": CORRECT,  # all boxes seem to be corners
    "relative_boxes": CORRECT,  # all boxes seem to be fractions
    "misnamed_file": CORRECT,  # file names are written otherwise than the files that they mean
    "missing_file": "image",  # the image file is not in the folder
    "bad_annotation": "annotation",  # a key is missing or is no integer
    "duplicate_id": "annotation",  # an annotation before it has the same id
    "unknown_image": "annotation",  # image_id names no entry of "images"
    "unknown_category": "annotation",  # category_id names no entry of "categories"
    "bad_box": "annotation",  # not four finite numbers
    "bad_iscrowd": "annotation",  # neither 0 nor 1
    "bad_ignore": "annotation",  # says neither yes nor no
    "empty_box": "annotation",  # no width or no height
    "outside_image": "annotation",  # nothing of the box is inside its image
    "leaves_image": "clip",  # a part of the box is outside its image
    "damaged_file": SEEN_BY_INSPECTION,  # the image file cannot be read
    "wrong_size": SEEN_BY_INSPECTION,  # the image file has another size than its entry says
    "zero_id": SEEN_BY_INSPECTION,  # the annotation id 0, which pycocotools takes for "no match"
    "odd_area": SEEN_BY_INSPECTION,  # areas that are missing or cannot be right
    "repeated_box": SEEN_BY_INSPECTION,  # the same image and class as an annotation before it, nearly the same box
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set, and where it is.

    Attributes:
        kind: a key of :data:`REMEDIES`.
        what: the fault in words.
        file: name of the image file, as the annotation file gives it; "" if unknown.
        image_id: id of the image, None if unknown.
        annotation_id: id of the annotation, None if the problem is not about one.
        box: (x, y, width, height) in pixels as the file gives it, None if the problem is not about a box.
        position: of the entry in its list of the annotation file; -1 if the problem is not about one entry.
        action: "dropped" or "clipped": what ``on_invalid`` did about it; "" for nothing.
    """

    kind: str
    what: str
    file: str = ""
    image_id: int | None = None
    annotation_id: int | None = None
    box: Any = None
    position: int = -1
    action: str = ""

    @property
    def remedy(self) -> str:
        """What ``on_invalid`` does about it: a value of :data:`REMEDIES`."""
        return REMEDIES[self.kind]

    def __str__(self) -> str:
        where = []
        if self.annotation_id is not None:
            where.append(f"annotation {self.annotation_id}")
        if self.image_id is not None:
            where.append(f"image {self.image_id}" + (f" ({self.file})" if self.file else ""))
        elif self.file:
            where.append(self.file)
        if self.box is not None:
            where.append(f"box {_short(self.box)}")
        return f"{', '.join(where)}: {self.what}" if where else self.what


class InvalidData(DataError):
    """An annotation file has problems that ``on_invalid`` does not cover; the message lists them.

    Args:
        file: the annotation file.
        problems: what is wrong with it.
        key: by which whoever asked sets ``on_invalid``.
    """

    def __init__(self, file: Path, problems: Sequence[Problem], key: str = "on_invalid") -> None:
        super().__init__(describe(file, problems, key))
        self.file, self.problems = file, problems


def describe(file: Path, problems: Sequence[Problem], key: str = "on_invalid") -> str:
    """The message about ``problems`` in the annotation file ``file``: a list of them and what can be done."""
    advice = what_to_do(problems, key)
    if any(problem.box is not None for problem in problems[:LISTED_PROBLEMS]):
        advice = f"Boxes are [x, y, width, height] in pixels, as the file gives them.\n{advice}"
    return str(problem_list(f"{file}: {counted(len(problems), 'problem')}:", [str(p) for p in problems], advice))


def what_to_do(problems: Sequence[Problem], key: str) -> str:
    """What ``on_invalid`` and ``inspect_data`` would do about ``problems``, in two or three sentences.

    Args:
        problems: at least one.
        key: that sets ``on_invalid``.
    """
    remedies = [problem.remedy for problem in problems]
    copy = (
        f"With fix=OUT.json (fix_val=OUT.json for validation) {command('inspect_data')} writes a copy where what "
        "can be mended is mended and the rest left out."
    )
    if CORRECT in remedies:
        return f"Correct the file: as it is, it cannot be used. {copy}"
    clipped, images = remedies.count("clip"), remedies.count("image")
    annotations = remedies.count("annotation")
    text = f"Correct the file, or use {key}=drop to leave out {_count(annotations + clipped, images)}"
    if clipped:
        text += f", or {key}=clip to clip {counted(clipped, 'box', 'boxes')} to the image"
        if annotations or images:
            text += f" and leave out {_count(annotations, images)}"
    return f"{text}. {copy}"


def _count(annotations: int, images: int) -> str:
    parts = [counted(annotations, "annotation")] if annotations else []
    parts += [counted(images, "image and its annotations", "images and their annotations")] if images else []
    return " and ".join(parts)


def _short(box: Any) -> str:
    if isinstance(box, list | tuple):
        text = "[" + ", ".join(f"{v:.8g}" if isinstance(v, float) else repr(v) for v in box) + "]"
    else:
        text = repr(box)
    return text if len(text) <= 60 else text[:57] + "..."
