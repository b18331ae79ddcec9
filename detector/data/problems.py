"""What can be wrong with an annotation file, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config.commands import script
from detector.words import counted

LISTED = 20  # problems spelled out in a message; the others are only counted

# What becomes of each kind of problem under data.on_invalid=drop ("annotation" or "image" is left out)
# and =clip, which does the same except for "leaves_image". None: the file has to be corrected.
REMEDIES: dict[str, str | None] = {
    "bad_image": None,  # an entry of "images" that lacks a key, or an id given twice
    "bad_category": None,  # the same for "categories"
    "exchanged_size": None,  # width and height of images are exchanged
    "corner_boxes": None,  # all boxes seem to be corners
    "relative_boxes": None,  # all boxes seem to be fractions
    "missing_file": "image",  # the image file is not in the folder
    "misnamed_file": "image",  # the same, but there is one that seems to be meant
    "bad_annotation": "annotation",  # a key is missing or is no integer
    "duplicate_id": "annotation",  # an annotation id was used before
    "unknown_image": "annotation",  # image_id names no entry of "images"
    "unknown_category": "annotation",  # category_id names no entry of "categories"
    "bad_box": "annotation",  # not four finite numbers
    "bad_iscrowd": "annotation",  # neither 0 nor 1
    "empty_box": "annotation",  # no width or no height
    "outside_image": "annotation",  # nothing of the box is inside its image
    "leaves_image": "clip",  # a part of the box is outside its image
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set, and where it is.

    Attributes:
        kind: one of the keys of :data:`REMEDIES`.
        what: the fault in words.
        file: name of the image file, as the annotation file gives it; "" if unknown.
        image_id: id of the image, None if unknown.
        annotation_id: id of the annotation, None if the problem is not about one.
        box: (x, y, width, height) in pixels as the file gives it, None if the problem is not about a box.
        action: "dropped" or "clipped": what ``on_invalid`` did about it; "" for nothing.
    """

    kind: str
    what: str
    file: str = ""
    image_id: int | None = None
    annotation_id: int | None = None
    box: Any = None
    action: str = ""

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


def describe(file: Path, problems: Sequence[Problem]) -> str:
    """The message about ``problems`` in the annotation file ``file``: a list of them and what can be done."""
    count = counted(len(problems), "problem")
    lines = [f"{file}: {count}, the first {LISTED} of them:" if len(problems) > LISTED else f"{file}: {count}:"]
    lines += [f"  {problem}" for problem in problems[:LISTED]]
    if any(problem.box is not None for problem in problems[:LISTED]):
        lines.append("Boxes are [x, y, width, height] in pixels, as the file gives them.")
    return "\n".join([*lines, advice(problems)])


def advice(problems: Sequence[Problem]) -> str:
    """What ``data.on_invalid`` and the data doctor would do about ``problems``, in two or three sentences."""
    remedies = [REMEDIES[problem.kind] for problem in problems]
    copy = (
        f"With fix=OUT.json (fix_val=OUT.json for validation) python {script('inspect_data')} writes a copy where what "
        "can be mended is mended and the rest left out."
    )
    if None in remedies:
        return f"Correct the file: as it is, the annotations cannot be read. {copy}"
    clipped, images = remedies.count("clip"), remedies.count("image")
    annotations = remedies.count("annotation")
    text = f"Correct the file, or use data.on_invalid=drop to leave out {_count(annotations + clipped, images)}"
    if clipped:
        text += f", or data.on_invalid=clip to clip {counted(clipped, 'box', 'boxes')} to the image"
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
