"""An installed font for characters that Matplotlib's own font lacks, such as Chinese ones, or one warning."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

OWN = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
BOXES = (
    "pictures show boxes in place of some characters, as no installed font has them; the Noto fonts do "
    "(Debian, Ubuntu: apt install fonts-noto-cjk)"
)
logger = logging.getLogger(__name__)


@contextmanager
def legible(artist: Artist) -> Iterator[None]:
    """Give the texts of a figure, or of a part of it, a font that has their characters.

    In the block Matplotlib does not warn of missing characters, which it would do for each of them.
    """
    for text in artist.findobj(Text):
        assert isinstance(text, Text)
        file, families = font_for(text.get_text()), text.get_fontfamily()
        if file is not None and family_of(file) not in families:
            text.set_fontfamily([*families, family_of(file)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def font_for(text: str) -> str | None:
    """The file of an installed font for the characters of ``text`` that :data:`OWN` lacks.

    None if :data:`OWN` has them all, or if no installed font has any of them, which is logged once.
    """
    if text.isascii():
        return None
    lacking = {c for c in map(ord, text) if unicodedata.category(chr(c))[0] != "C"} - characters(OWN)
    return installed(frozenset(lacking)) if lacking else None


@cache
def installed(lacking: frozenset[int]) -> str | None:
    """The file of the installed font with most of these characters; sans-serif and regular fonts come first."""
    found = max(system_fonts(), key=lambda file: len(lacking & characters(file)), default="")
    if lacking & characters(found):
        return found
    say_once(BOXES)
    return None


@cache
def system_fonts() -> list[str]:
    """Font files of this system, sans-serif and regular ones first."""
    return sorted(findSystemFonts(), key=lambda file: (*(w not in file.lower() for w in ("sans", "regular")), file))


@cache
def characters(file: str) -> frozenset[int]:
    """The characters of :data:`OWN`, or those of another font that :data:`OWN` lacks.

    Empty for a font that is damaged, or that is made of bitmaps, which cannot be scaled.
    """
    try:
        font = FT2Font(file)
        font.set_size(12, 72)
        known = frozenset(font.get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
    return known if file == OWN else known - characters(OWN)


@cache
def family_of(file: str) -> str:
    """Register the font with Matplotlib; return the name of its family."""
    fontManager.addfont(file)
    return FT2Font(file).family_name


@cache
def say_once(sentence: str) -> None:
    """Log a sentence once per process."""
    logger.warning(sentence)
