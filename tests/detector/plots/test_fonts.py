"""Names in scripts that Matplotlib's own font does not have."""

import logging
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from detector.plots import fonts
from detector.plots.boxes import draw_boxes
from detector.plots.figure import new_figure, save

CAT = "\u732b"


def draw_rectangle(width, height):
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, height), (width, height), (width, 0)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install(True)``: the system has one font, in which the character for cat is a full square; False: none."""

    def go(there):
        file = tmp_path / "Square-Regular.ttf"
        builder = FontBuilder(1000, isTTF=True)
        names = [".notdef", "cat"]
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(CAT): "cat"})
        builder.setupGlyf({".notdef": draw_rectangle(10, 10), "cat": draw_rectangle(1000, 800)})
        builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(file)
        (tmp_path / "damaged.ttf").write_bytes(file.read_bytes()[:100])
        found = [str(file), str(tmp_path / "damaged.ttf")] if there else []
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: found)
        known = list(fonts.fontManager.ttflist)
        monkeypatch.setattr(fonts.fontManager, "ttflist", known)
        return str(file)

    cached = (fonts.installed, fonts.system_fonts, fonts.characters, fonts.family_of, fonts.say_once)
    for function in cached:
        function.cache_clear()
    yield go
    for function in cached:
        function.cache_clear()


def title_of(text, out):
    """The pixels of a picture with nothing but a title."""
    figure = new_figure(1.0, 1.0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(text, fontsize=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.tight_layout()
        save(figure, out)
    return np.asarray(Image.open(out).convert("L"))


def test_without_such_a_font_there_is_one_sentence(install, tmp_path, caplog):
    install(False)
    with caplog.at_level(logging.WARNING, "detector"):
        for text in (CAT, f"{CAT}\u72d7", "\u72d7"):
            title_of(text, tmp_path / "a.png")
        draw_boxes(np.zeros((90, 90, 3), np.uint8), [(10, 10, 60, 60)], [1], [CAT])
    assert [record.getMessage() for record in caplog.records] == [fonts.BOXES]


def test_an_installed_font_is_used(install, tmp_path, caplog):
    """A square of 30 points by 24 at 160 dots an inch is 66 by 53 black pixels; a letter has far fewer."""
    file = install(True)
    assert fonts.font_for(CAT) == fonts.font_for(f"a {CAT}") == file
    assert (title_of(CAT, tmp_path / "a.png") < 100).sum() == pytest.approx(66.7 * 53.3, rel=0.05)
    drawn = [
        np.asarray(draw_boxes(np.zeros((500, 500, 3), np.uint8), [(100, 100, 400, 400)], [1], [text]))
        for text in (CAT, "x")
    ]
    white = [int((image == 255).all(axis=-1).sum()) for image in drawn]
    assert white[0] > 2 * white[1]
    assert not caplog.records


def test_what_the_own_font_has_needs_no_other(install):
    install(True)
    for text in ("cat", "\u0433\u0440\u0443\u0448\u0430 \u00e9\u2026\u2212", "line\nbreak \u200b", ""):
        assert fonts.font_for(text) is None
