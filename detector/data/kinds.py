"""What a file is that was given for COCO annotations or results and is neither, and what its owner can do.

One table of kinds. Each is recognised by how the file begins, or by what stands in it if it is JSON.
"""

from __future__ import annotations

import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


@dataclass(frozen=True)
class Look:
    """What is known of a file.

    Attributes:
        path: the file.
        start: its first bytes, unpacked.
        text: the same as text; "" if they are none.
        content: the parsed JSON; None if it is not parsed, or is no JSON.
    """

    path: Path
    start: bytes
    text: str
    content: Any = None

    def object(self, *keys: str) -> bool:
        """Whether the content is an object with these keys."""
        return isinstance(self.content, dict) and all(key in self.content for key in keys)

    def list_of(self, *keys: str) -> bool:
        """Whether the content is a list whose first entry is an object with these keys."""
        first = self.content[0] if isinstance(self.content, list) and self.content else None
        return isinstance(first, dict) and all(key in first for key in keys)

    def annotation(self, key: str) -> bool:
        """Whether the first of the content's annotations has a key."""
        rows = self.content.get("annotations") if isinstance(self.content, dict) else None
        return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and key in rows[0]

    def suffix(self, *suffixes: str) -> bool:
        """Whether the name ends so, in any case; a packed file is called ``name.csv.gz``."""
        return any(self.path.name.lower().endswith((s, f"{s}.gz", f"{s}.bz2", f"{s}.xz")) for s in suffixes)

    def found(self, pattern: str) -> bool:
        """Whether a pattern occurs in the text; ``^`` is the start of a line."""
        return re.search(pattern, self.text, re.MULTILINE | re.IGNORECASE) is not None

    def lines(self, pattern: str) -> bool:
        """Whether the first lines that are not empty all are of a pattern."""
        lines = [stripped for line in self.text.splitlines() if (stripped := line.strip())][:20]
        return bool(lines) and all(re.fullmatch(pattern, line, re.IGNORECASE) for line in lines)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: completes "this is".
        advice: what to do, in sentences.
        of_objects: it holds boxes in another format: the advice is how to get COCO annotations from it.
        fits: whether a file is of this kind.
    """

    name: str
    advice: str
    fits: Callable[[Look], bool]
    of_objects: bool = False


AGAIN = "Download or copy the file again."
UNPACK = "Unpack it, and give the file in it."
OTHER = "Give the file of the objects."
WRITE = "Write the boxes as COCO JSON, with a line of code for each of the three lists."
CONVERT = "Export the labels as COCO from the tool that made them, or convert them, for instance with FiftyOne"
# What may stand before the root of XML. There is one way only to read many comments: each would double the time.
PROLOG = r"\A\s*(<\?[^>]*>\s*|<!--(?:(?!-->)[\s\S])*-->\s*|<!doctype[^>]*>\s*)*"
NUMBER = r"[-+]?[\d.]+(e[-+]?\d+)?"
KITTI = rf"[a-z][\w-]*(\s+{NUMBER}){{14,15}}"
DOTA = rf"({NUMBER}\s+){{8}}[a-z][\w-]*(\s+\d+)?|(imagesource|gsd):.*"
ERROR_KEYS = ({"error"}, {"message"}, {"detail"}, {"message", "documentation_url"}, {"error", "message"})


def begins(*starts: bytes) -> Callable[[Look], bool]:
    """A test of a file's first bytes."""
    return lambda look: look.start.startswith(starts)


def is_table(look: Look) -> bool:
    """Whether the first lines have the same number of commas, semicolons or tabs, two at least."""
    lines = [line for line in look.text.splitlines() if line.strip()][:3]
    if not lines or lines[0].lstrip()[:1] in ("", "{", "[", "<"):
        return False
    counts = [[line.count(mark) for line in lines] for mark in ",;\t"]
    return look.suffix(".csv", ".tsv") or any(c[0] >= 2 and len(set(c)) == 1 for c in counts)


def is_lines(look: Look) -> bool:
    """Whether each line is a JSON value of its own."""
    lines = [line for line in look.text.splitlines() if line.strip()][:2]
    try:
        return len(lines) == 2 and isinstance(json.loads(lines[0]), dict) and lines[1].lstrip().startswith("{")
    except ValueError:
        return False


def is_via(look: Look) -> bool:
    """Whether the content is a project of the VGG Image Annotator, or its export."""
    images = look.content if isinstance(look.content, dict) else {}
    first = next(iter(images.values()), None)
    return "_via_img_metadata" in images or (isinstance(first, dict) and {"filename", "regions"} <= first.keys())


def members(path: Path) -> list[str]:
    """The names of the files in a zip or tar archive; none if it cannot be read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        with tarfile.open(path) as archive:
            return list(islice((member.name for member in archive), 1000))
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        return []


def is_zip_with(ending: str) -> Callable[[Look], bool]:
    """A test for a zip archive with a file of this ending."""
    return lambda look: look.start.startswith(b"PK") and any(name.endswith(ending) for name in members(look.path))


def dict_keys(look: Look) -> list[str]:
    """The keys of the content, or of a short text that is a JSON object."""
    content = look.content
    if content is None and look.text.lstrip().startswith("{") and len(look.text) < 2000:
        try:
            content = json.loads(look.text)
        except ValueError:
            return []
    return list(content) if isinstance(content, dict) else []


KINDS = (
    # Not the file that was meant.
    Kind(
        "a pointer of Git LFS, not the file itself",
        "Run 'git lfs pull' in its repository.",
        begins(b"version https://git-lfs"),
    ),
    Kind(
        "a web page: the download gave a page, such as one to sign in or to confirm, in place of the file",
        AGAIN,
        lambda look: look.found(rf"{PROLOG}(<html|<head|<body)|\A\s*<!doctype html"),
    ),
    Kind(
        "the error message of a server, in place of the file",
        AGAIN,
        lambda look: look.found(rf"{PROLOG}<Error>") or set(dict_keys(look)) in ERROR_KEYS,
    ),
    Kind("a checkpoint of PyTorch", OTHER, is_zip_with("data.pkl")),
    Kind("an Excel table", "Save it as text, and write the boxes as COCO JSON.", is_zip_with("xl/workbook.xml")),
    Kind("a zip archive", UNPACK, begins(b"PK\3\4", b"PK\5\6")),
    Kind("a tar archive", UNPACK, lambda look: look.start[257:262] == b"ustar"),
    Kind("a packed file (zstd, 7z or rar)", UNPACK, begins(b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!")),
    Kind(
        "a picture",
        OTHER,
        lambda look: (
            look.start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"))
            or (look.start.startswith(b"BM") and not look.text)
            or look.start[8:12] == b"WEBP"
        ),
    ),
    Kind("a PDF document", WRITE, begins(b"%PDF")),
    Kind(
        "a database or an array file of another library (SQLite, HDF5, Parquet, Arrow, NumPy or MATLAB)",
        WRITE,
        begins(b"SQLite format 3", b"\x89HDF", b"PAR1", b"ARROW1", b"\x93NUMPY", b"MATLAB 5"),
    ),
    Kind("a pickle of Python", WRITE, lambda look: look.start[:1] == b"\x80" and look.start[1:2] in b"\2\3\4\5"),
    Kind("a TFRecord file", WRITE, lambda look: look.suffix(".tfrecord", ".tfrecords", ".record")),
    # Labels in the format of another tool.
    Kind(
        "Pascal VOC XML, one file for each image",
        f"{CONVERT} (type VOCDetectionDataset).",
        lambda look: look.found(rf"{PROLOG}<annotation(\s[^>]*)?>"),
        True,
    ),
    Kind(
        "CVAT's XML",
        "In CVAT, export the task as 'COCO 1.0'.",
        lambda look: look.found(rf"{PROLOG}<annotations(\s[^>]*)?>"),
        True,
    ),
    Kind("XML", f"{CONVERT}.", lambda look: look.found(r"\A\s*<(\?xml|[a-z]\w*[\s>])"), True),
    Kind(
        "a YOLO label file, one for each image",
        f"{CONVERT} (type YOLOv5Dataset).",
        lambda look: look.lines(rf"\d+(\s+{NUMBER}){{4,}}"),
        True,
    ),
    Kind(
        "a label file of KITTI or DOTA, one for each image",
        f"{CONVERT}.",
        lambda look: look.lines(f"({KITTI}|{DOTA})"),
        True,
    ),
    Kind(
        "a list of image files",
        OTHER,
        lambda look: look.lines(rf".*({'|'.join(map(re.escape, PICTURES))})"),
    ),
    Kind(
        "a YOLO data set (data.yaml)",
        f"{CONVERT} (type YOLOv5Dataset).",
        lambda look: look.suffix(".yaml", ".yml") and look.found(r"^(train|val|test|nc|names)\s*:"),
        True,
    ),
    Kind("YAML", OTHER, lambda look: look.suffix(".yaml", ".yml")),
    Kind(
        "JSON lines: one JSON object in each line, not one for the whole file",
        f"{CONVERT}.",
        is_lines,
        True,
    ),
    Kind(
        "what Python prints of a dict or list, with single quotes; JSON has double quotes",
        "Write the file with json.dump.",
        lambda look: look.found(r"\A\s*[\[{]+\s*'"),
    ),
    Kind("a table (CSV)", WRITE, is_table, True),
    Kind(
        "labelme's JSON, one file for each image",
        f"{CONVERT}, or labelme2coco.",
        lambda look: look.object("shapes") and (look.object("imagePath") or look.object("imageData")),
        True,
    ),
    Kind(
        "JSON of the VGG Image Annotator (VIA)",
        "In VIA, take 'Export Annotations (COCO format)' of the menu Annotation.",
        is_via,
        True,
    ),
    Kind(
        "Supervisely's JSON, one file for each image",
        "In Supervisely, export the project as COCO.",
        lambda look: look.object("objects", "size") or look.object("classes", "tags", "projectType"),
        True,
    ),
    Kind(
        "CreateML's JSON",
        f"{CONVERT.replace('FiftyOne', 'Roboflow')}.",
        lambda look: look.list_of("image", "annotations") or look.list_of("imagefilename", "annotation"),
        True,
    ),
    Kind(
        "Label Studio's JSON",
        "In Label Studio, export the project as COCO.",
        lambda look: (
            look.list_of("data", "annotations")
            or look.list_of("data", "completions")
            or look.list_of("annotator", "annotation_id")
            or look.object("data", "annotations")
        ),
        True,
    ),
    Kind(
        "the data set dicts of Detectron2 or MMDetection",
        WRITE,
        lambda look: (
            look.list_of("file_name", "annotations")
            or look.list_of("filename", "ann")
            or look.object("metainfo", "data_list")
        ),
        True,
    ),
    Kind("BDD100K's JSON", f"{CONVERT} (type BDDDataset).", lambda look: look.list_of("name", "labels"), True),
    Kind("Labelbox's JSON", WRITE, lambda look: look.list_of("data_row") or look.list_of("Labeled Data"), True),
    Kind(
        "Darwin JSON of V7", "In V7, export the labels as COCO.", lambda look: look.object("item", "annotations"), True
    ),
    Kind(
        "Datumaro's JSON", "With Datumaro, convert it to COCO.", lambda look: look.object("categories", "items"), True
    ),
    Kind("GeoJSON", f"{CONVERT}.", lambda look: look.object("type", "features"), True),
    Kind(
        "COCO captions, which have no boxes",
        "Give the file of the objects (instances_*.json).",
        lambda look: look.annotation("caption") and not look.annotation("bbox"),
    ),
    Kind(
        "COCO panoptic segmentation, whose boxes stand in 'segments_info'",
        "Give the file of the objects (instances_*.json).",
        lambda look: look.annotation("segments_info") and not look.annotation("bbox"),
    ),
)


def kind_of(look: Look) -> Kind | None:
    """The kind of a file; None if it is none of the table, as COCO's own."""
    return next((kind for kind in KINDS if kind.fits(look)), None)
