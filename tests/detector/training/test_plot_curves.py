"""Losses, AP and learning rate drawn from the metrics of a run."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from detector.exceptions import DataError
from detector.plots import figure as canvas
from detector.training import plot_curves as curve_plots
from detector.training.plot_curves import plot_curves


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def near(image, color, tolerance=40):
    """bool [H, W]: pixels that are nearly of this colour."""
    return (np.abs(image - color) <= tolerance).all(axis=-1)


LOGGED = (
    "train/loss",
    "train/loss_classifier",
    "train/loss_box_reg",
    "train/loss_objectness",
    "train/loss_rpn_box_reg",
    "train/lr",
    "val/AP",
    "val/AP50",
    "val/AP75",
)


def write_log(path, columns=LOGGED, steps=range(10, 510, 10)):
    """A log like that of Lightning's CSVLogger: training and validation in rows of their own."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", *columns])
        writer.writeheader()
        for step in steps:
            loss = 2 * math.exp(-step / 200)
            writer.writerow({"epoch": 0, "step": step} | {c: loss for c in columns if "train" in c})
            if step % 100 == 0:
                writer.writerow({"epoch": 0, "step": step} | {c: 0.4 * step / 500 for c in columns if "val" in c})
    return path


def curves_of(path, draw):
    axes = canvas.new_figure(4, 4).add_subplot()
    draw(axes, curve_plots.read_curves(path))
    return axes


def test_curves_show_what_was_logged(tmp_path):
    log = write_log(tmp_path / "metrics.csv")
    plot_curves(log, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[1] == round(12.6 * canvas.DPI)
    assert near(picture, rgb(canvas.PALETTE[0]), 20).any()

    axes = curves_of(log, curve_plots.draw_losses)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "total",
        "box class",
        "box position",
        "objectness",
        "proposal position",
    ]
    raw = axes.lines[0]
    assert raw.get_xdata().tolist() == list(range(10, 510, 10))
    assert raw.get_ydata()[0] == pytest.approx(2 * math.exp(-0.05))
    assert raw.get_alpha() < 0.5
    assert axes.get_ylim()[0] == 0

    axes = curves_of(log, curve_plots.draw_scores)
    assert axes.lines[0].get_xdata().tolist() == [100, 200, 300, 400, 500]
    assert axes.get_legend().get_texts()[0].get_text() == "AP (best 0.400)"

    axes = curves_of(log, curve_plots.draw_rate)
    assert axes.lines[0].get_ydata()[0] == pytest.approx(2 * math.exp(-0.05))


def test_the_learning_rate_is_scaled_in_its_title(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,lr-AdamW\n1,0.001\n2,0.0005\n")
    axes = curves_of(path, curve_plots.draw_rate)
    assert axes.get_title(loc="left") == r"Learning rate  ($\times 10^{-3}$)"
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step\n",
        "step,train/loss\n",
        "step,train/loss\n10,nan\n",
        "step,train/loss,val/AP\n10,0.0,0.0\n",
        "step,train/loss\n10,inf\n20,1.5\n",
        "epoch,train/loss\n0,1.0\n0,2.0\n",
        "step,train/loss\n10,1,2,3\n20,abc\n",
    ],
)
def test_logs_with_gaps_are_drawn(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


def test_rows_without_a_finite_value_are_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,a,b\n20,1,\n10,2,nan\n30,inf,5\n")
    curves = curve_plots.read_curves(tmp_path / "metrics.csv")
    assert {name: (x.tolist(), y.tolist()) for name, (x, y) in curves.items()} == {
        "a": ([10, 20], [2, 1]),
        "b": ([30], [5]),
    }


def test_a_missing_log_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: the logged metrics cannot be read: No such file"):
        plot_curves(tmp_path / "none.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_smoothing_keeps_lines_and_levels():
    line = np.arange(100) * 0.5 + 3
    assert curve_plots.smoothed(line) == pytest.approx(line)
    noise = np.random.default_rng(0).normal(0, 1, 400)
    assert curve_plots.smoothed(noise)[20:-20].std() < 0.35
    assert curve_plots.smoothed(np.array([4.0])).tolist() == [4.0]


def curves_with(validation, train=(2.0, 1.5, 1.0, 0.5, 0.25)):
    steps = np.array([100.0, 200, 300, 400, 500])
    return {"train/loss": (steps, np.array(train)), "val/loss": (steps, np.array(validation))}


def test_validation_loss_that_rises_is_said():
    text = curve_plots.overfitting(curves_with([1.5, 1.0, 1.02, 1.1, 1.25]))
    assert "since step 200 (1.000, at the end 1.250)" in text
    assert "fell (1.500, 0.250)" in text


@pytest.mark.parametrize(
    "curves",
    [
        {},
        curves_with([1.5, 1.2, 1.1, 1.05, 1.0]),  # falls
        curves_with([1.5, 1.2, 1.1, 1.0, 1.2]),  # one evaluation is no trend
        curves_with([1.5, 1.0, 1.03, 1.02, 1.04]),  # a rise of 4 %
        curves_with([1.5, 1.0, 1.1, 1.2, 1.3], train=(2.0, 1.0, 1.5, 1.6, 1.7)),  # the training loss rises too
    ],
)
def test_other_losses_are_not_remarked_on(curves):
    assert curve_plots.overfitting(curves) == ""


def test_validation_loss_is_drawn(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss\n10,1.0,\n20,0.5,\n20,,3.0\n")
    axes = curves_of(path, curve_plots.draw_losses)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["total", "total, validation"]
    assert axes.lines[-1].get_xydata().tolist() == [[20.0, 3.0]]
    assert axes.get_ylim()[1] > 3
