"""Pictures inside HTML, which then needs no files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from detector.plots.figure import DPI

CSS_DPI = 96  # pixels of a browser to an inch
WIDEST = 1600  # pixels of a picture in a notebook, which keeps every picture in its file


def data_uri(kind: str, content: bytes) -> str:
    """``content`` as a URI that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def browser_width(pixels: int) -> int:
    """The width of a figure in a browser's pixels: words are then of one size in all figures."""
    return round(pixels * CSS_DPI / DPI)


def embedded(path: Path) -> tuple[str, int]:
    """A PNG file as a URI, and its :func:`browser_width`."""
    with Image.open(path) as picture:
        return data_uri("image/png", path.read_bytes()), browser_width(picture.width)


def picture_tag(path: Path) -> str:
    """A picture as an ``img`` element, no wider than the page; one of more than ``WIDEST`` pixels is made smaller.

    It is a PNG, or a JPEG if that is shorter, as of photographs.
    """
    with Image.open(path) as picture:
        width = browser_width(picture.width)
        shown = picture.convert("RGB")
    shown.thumbnail((WIDEST, WIDEST * shown.height))
    contents = {}
    for kind, options in (("png", {}), ("jpeg", {"quality": 90})):
        shown.save(buffer := io.BytesIO(), kind, **options)
        contents[f"image/{kind}"] = buffer.getvalue()
    kind = min(contents, key=lambda kind: len(contents[kind]))
    return f'<img src="{data_uri(kind, contents[kind])}" alt="{path.name}" width="{width}" style="max-width:100%">'
