"""The sheet of images with true and predicted boxes, looked at pixel by pixel."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from detector.evaluation import prediction_sheet as sheets
from detector.evaluation.prediction_sheet import draw_prediction_sheet
from detector.plots import figure as canvas
from detector.plots import grid as grids
from detector.plots.labels import overlap

GREY = 128 / 255


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def near(image, color, tolerance=40):
    """bool [H, W]: pixels that are nearly of this colour."""
    return (np.abs(image - color) <= tolerance).all(axis=-1)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def prediction(*rows):
    """Rows of (box, label, score)."""
    return {
        "boxes": boxes(*(r[0] for r in rows)),
        "labels": torch.tensor([r[1] for r in rows], dtype=torch.int64),
        "scores": torch.tensor([r[2] for r in rows], dtype=torch.float32),
    }


def cell_of_first_image(height, width):
    """(left, top, pixels on the sheet per pixel of the image) of the first cell of a sheet."""
    dpi = canvas.DPI
    return grids.GAP * dpi, grids.CAPTION * dpi, grids.CELL * dpi / width


@pytest.mark.parametrize("side", [32, 128, 640])
def test_boxes_are_where_they_should_be(tmp_path, side):
    """Both boxes of a grey image are found in the picture at the positions that follow from the layout."""
    true = [0.1 * side, 0.1 * side, 0.4 * side, 0.5 * side]
    found = [0.5 * side, 0.55 * side, 0.9 * side, 0.95 * side]
    out = tmp_path / "sheet.png"
    sample = (torch.full((3, side, side), GREY), {"boxes": boxes(true)}, prediction((found, 1, 0.9)))
    draw_prediction_sheet([sample], ["cat"], out)
    picture = pixels(out)
    left, top, scale = cell_of_first_image(side, side)
    x = lambda value: round(left + value * scale)
    y = lambda value: round(top + value * scale)

    color = rgb(canvas.color_of(0))
    for edge in (found[0], found[2]):  # the left and right edge of the prediction, solid
        strip = near(picture[y(found[1]) + 4 : y(found[3]) - 4, x(edge) - 1 : x(edge) + 2], color)
        assert strip.any(axis=1).mean() > 0.95
    for edge in (found[1], found[3]):
        strip = near(picture[y(edge) - 1 : y(edge) + 2, x(found[0]) + 4 : x(found[2]) - 4], color)
        assert strip.any(axis=0).mean() > 0.95
    for edge in (true[0], true[2]):  # dashed: white and the grey of the image take turns
        strip = picture[y(true[1]) + 4 : y(true[3]) - 4, x(edge) - 2 : x(edge) + 3]
        white = near(strip, 255, 60).any(axis=1)
        assert 0.3 < white.mean() < 0.7
        assert np.count_nonzero(np.diff(white)) > 10
    # The middle of the true box is untouched.
    middle = picture[y(0.25 * side) : y(0.35 * side), x(0.2 * side) : x(0.3 * side)]
    assert near(middle, 128, 2).all()


def test_a_perfect_prediction_and_its_true_box_are_both_visible(tmp_path):
    box = [20, 20, 100, 100]
    out = tmp_path / "sheet.png"
    sample = (torch.full((3, 128, 128), GREY), {"boxes": boxes(box)}, prediction((box, 1, 0.9)))
    draw_prediction_sheet([sample], ["cat"], out)
    left, top, scale = cell_of_first_image(128, 128)
    edge = round(left + 20 * scale)
    strip = pixels(out)[round(top + 30 * scale) : round(top + 90 * scale), edge - 3 : edge + 4]
    assert 0.3 < near(strip, 255, 60).any(axis=1).mean() < 0.7
    assert near(strip, rgb(canvas.color_of(0))).any(axis=1).mean() > 0.5


def test_scores_below_the_threshold_are_not_drawn(tmp_path):
    image, target = torch.full((3, 64, 64), GREY), {"boxes": boxes()}
    found = prediction(([5, 5, 50, 50], 1, 0.4), ([10, 10, 60, 60], 2, 0.6))
    out = tmp_path / "sheet.png"
    draw_prediction_sheet([(image, target, found)], ["a", "b"], out, score_thresh=0.5)
    picture = pixels(out)
    assert not near(picture, rgb(canvas.color_of(0)), 20).any()
    assert near(picture, rgb(canvas.color_of(1)), 20).any()
    draw_prediction_sheet([(image, target, found)], ["a", "b"], out, score_thresh=0.3)
    assert near(pixels(out), rgb(canvas.color_of(0)), 20).any()


def test_images_of_any_shape_and_type_and_a_short_last_row(tmp_path):
    shapes = [(20, 30), (200, 50), (64, 64), (480, 640), (8, 300)]
    images = [torch.rand(3, h, w) for h, w in shapes]
    images[1] = images[1].half()
    images[2] = torch.full((3, 64, 64), 2.0)  # out of range after augmentation: clamped
    targets = [{"boxes": boxes([0, 0, w, h]), "image_id": torch.tensor(i)} for i, (h, w) in enumerate(shapes)]
    found = [prediction(([-5, -5, w + 5, h + 5], 2, 0.99)) for h, w in shapes]
    out = tmp_path / "sheet.png"
    draw_prediction_sheet(list(zip(images, targets, found, strict=True)), ["a", "b"], out, columns=2)
    width = round((2 * grids.CELL + 3 * grids.GAP) * canvas.DPI)
    assert pixels(out).shape[1] == pytest.approx(width, abs=1)


def test_labels_stay_inside_and_apart():
    figure = canvas.new_figure(4, 4)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    found = prediction(*((([0, 0, 100, 100], 1, 0.9),) * 4), ([90, 95, 100, 100], 1, 0.8))
    grids.draw_panel(axes, sheets.panel_of(torch.zeros(3, 100, 100), {"boxes": boxes()}, found, ["some class"]))
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    extents = [text.get_window_extent(renderer) for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["some class 0.90"] * 4 + ["some class 0.80"]
    for i, extent in enumerate(extents):
        assert frame.x0 - 1 <= extent.x0
        assert extent.x1 <= frame.x1 + 1
        assert frame.y0 - 1 <= extent.y0
        assert extent.y1 <= frame.y1 + 1
        for other in extents[:i]:
            shared = overlap(extent.extents, other.extents)
            assert shared == 0


@pytest.mark.parametrize("name", ["$\\bad{ 5$", "_hidden"])
def test_names_are_shown_as_they_are(tmp_path, monkeypatch, name):
    figures = []
    monkeypatch.setattr(grids, "save", lambda figure, out: figures.append(figure))
    sample = (torch.zeros(3, 32, 32), {"boxes": boxes()}, prediction(([1, 1, 9, 9], 1, 0.9)))
    draw_prediction_sheet([sample], [name], tmp_path / "sheet.png")
    figures[0].canvas.draw()
    assert [text.get_text() for text in figures[0].legends[0].get_texts()][2] == name
    assert figures[0].axes[0].texts[0].get_text() == f"{name} 0.90"


def test_many_classes_are_named_by_frequency():
    shown = sheets.Counter({label: 100 - label for label in range(1, 31)})
    names = [f"class {label}" for label in range(1, 31)]
    labels = [label for _, label in sheets.legend_entries(shown, names, 0.5)]
    assert labels[:3] == ["true box", "predicted box, score ≥ 0.5, colour by class:", "class 1"]
    assert labels[-2:] == ["class 24", "and 6 more classes"]
    assert [label for _, label in sheets.legend_entries(sheets.Counter(), names, 0.5)] == [
        "true box",
        "no prediction has a score of 0.5 or more",
    ]


def test_the_sheet_needs_an_image(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        draw_prediction_sheet([], [], tmp_path / "sheet.png")


def test_global_matplotlib_state_is_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    sample = (torch.zeros(3, 32, 32), {"boxes": boxes([1, 1, 9, 9])}, prediction(([1, 1, 9, 9], 1, 0.9)))
    draw_prediction_sheet([sample], ["a"], tmp_path / "sheet.png")
    assert dict(matplotlib.rcParams) == before
