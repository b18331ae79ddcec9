"""Canvas, colours and saving: nothing global changes, and a picture is whole or not there."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from detector.plots import figure as canvas
from detector.plots.figure import add_axes, color_of, contrast, new_figure, nothing, save, style


def drawing():
    figure = new_figure(2.0, 1.5)
    axes = figure.add_subplot()
    style(axes, "title", "steps", "loss")
    axes.plot([0, 1], [0, 1], color=color_of(0))
    figure.tight_layout()
    return figure


def test_colours_differ_and_letters_can_be_read_on_them():
    colors = [color_of(i) for i in range(90)]
    assert len(set(colors)) == 90
    for color in colors:
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb / 255]
        luminance = float(np.dot([0.2126, 0.7152, 0.0722], channels))
        text = 0.0 if contrast(color) == "black" else 1.0
        ratio = (max(luminance, text) + 0.05) / (min(luminance, text) + 0.05)
        assert ratio >= 4.5  # WCAG 2, level AA


def test_axes_are_named_or_say_why_they_are_empty():
    (axes,) = drawing().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("steps", "loss", "title")
    plain = new_figure(1, 1).add_subplot()
    style(plain, "title")
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("", "")
    nothing(axes, "not logged")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.texts[0].get_text()) == ("", "", "not logged")


def test_axes_in_inches():
    """1 inch from the left of 4, half an inch from the bottom of 2; 2 by 1 inches."""
    assert add_axes(new_figure(4.0, 2.0), 1.0, 0.5, 2.0, 1.0).get_position().bounds == pytest.approx(
        (0.25, 0.25, 0.5, 0.5)
    )


@pytest.mark.parametrize(("name", "start"), [("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("deep/a.png", b"\x89PNG")])
def test_the_ending_chooses_the_format(tmp_path, name, start):
    save(drawing(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_an_interrupted_drawing_leaves_the_old_picture(tmp_path):
    out = tmp_path / "plot.notaformat"
    out.write_text("old")
    with pytest.raises(ValueError):
        save(drawing(), out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plot.notaformat"]


def test_global_matplotlib_state_is_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    save(drawing(), tmp_path / "plot.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_pyplot_is_not_imported():
    code = f"import sys, {canvas.__name__}, detector.plots.grid; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
