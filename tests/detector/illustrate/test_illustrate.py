import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.defaults import default
from detector.config.schema import IllustrateConfig
from detector.exceptions import ConfigError
from detector.illustrate import figures
from detector.illustrate.anatomy import Example
from detector.illustrate.draw_figures import illustrate
from detector.illustrate.figures import number_map
from detector.illustrate.motion import responses
from detector.illustrate.panels import bin_weights, sample_values

ROOT = Path(__file__).resolve().parents[3]
BOX, BINS, SCALE = (37.0, 22.0, 101.0, 84.0), (2, 2), 1 / 16
FEATURE = number_map(8, 10, 0)
EXAMPLE = Example(FEATURE, BOX, BINS, SCALE, 2)


def one(kind, ratio=2):
    return replace(EXAMPLE, sampling_ratio=ratio).dissect(kind)


def test_bins_of_roi_pool_by_hand():
    """x: round(2.31) = 2 to round(6.31) = 6, 5 cells: bins 2..4 and 4..6. y: 1 to 5: bins 1..3 and 3..5."""
    found = one("pool")
    assert found.x.bins == [(2, 5), (4, 7)]
    assert found.y.bins == [(1, 4), (3, 6)]
    assert found.pooled[0, 0] == FEATURE[1:4, 2:5].max()
    assert found.x.positions(0) == []


@pytest.mark.parametrize(("kind", "shift"), [("align", 0.5), ("align_aligned", 0.0), ("align_max", 0.5)])
def test_samples_by_hand(kind, shift):
    """s + p b + (j + 1/2) b / 2 with b = 2, in the frame of the edges: half a cell further unless aligned."""
    found = one(kind)
    for p in range(2):
        assert found.x.positions(p) == pytest.approx([37 / 16 + 2 * p + 0.5 + shift, 37 / 16 + 2 * p + 1.5 + shift])
    assert found.x.bins[1] == pytest.approx((37 / 16 + 2 + shift, 37 / 16 + 4 + shift))
    assert (found.x.bins[0][0], found.y.bins[0][0]) == pytest.approx([v + shift for v in found.box[:2]])
    assert (found.x.bins[-1][1], found.y.bins[-1][1]) == pytest.approx([v + shift for v in found.box[2:]])


def test_the_numbers_written_below_a_bin_are_its_result():
    align, largest, prroi = one("align"), one("align_max"), one("prroi")
    for p in range(2):
        for q in range(2):
            values = sample_values(align, FEATURE, p, q)
            assert values.shape == (2, 2)
            assert values.mean().item() == pytest.approx(align.pooled[p, q].item())
            assert sample_values(largest, FEATURE, p, q).max().item() == pytest.approx(largest.pooled[p, q].item())
            for linear in (align, prroi):
                total = (bin_weights(linear, p, q) * FEATURE).sum().item()
                assert total == pytest.approx(linear.pooled[p, q].item())
                assert bin_weights(linear, p, q).sum().item() == pytest.approx(1)


def test_a_void_sample_has_no_place():
    """Two bins of two samples from -3 to 1: -2.5, -1.5 | -0.5, 0.5; below -1 they are void, below 0 moved to 0."""
    found = Example(FEATURE, (-48.0, 0.0, 16.0, 16.0), (1, 2), SCALE, 2).dissect("align")
    assert found.x.positions(0) == [math.inf, math.inf]
    assert found.x.positions(1) == pytest.approx([0.5, 1.0])


def test_a_moving_box_steps_in_roi_pool_and_glides_in_the_others():
    found = responses(EXAMPLE, np.linspace(0, 3, 61).tolist())
    for kind, anatomies in found.items():
        values = torch.stack([a.pooled.mean() for a in anatomies])
        steps = values.diff().abs()
        if kind == "pool":
            assert (steps == 0).sum() >= 50
            assert steps.max() > 0.5
        else:  # a mean follows the map, whose neighbours differ by at most 9: by 0.05 of it a step
            assert steps.max() < 0.05 * 9
            assert (steps > 0).sum() > 50


def test_the_map_of_numbers_is_one_of_digits():
    assert FEATURE.shape == (8, 10)
    assert set(FEATURE.flatten().tolist()) <= set(range(10))
    assert not torch.equal(FEATURE, number_map(8, 10, 1))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"box": [50, 20, 40, 60]}, "box="),
        ({"box": [0, 0, 400, 20]}, "160 x 128 pixels"),
        ({"box": [100, 20, 150, 60], "figure": "motion"}, "leave the map"),
        ({"map_size": [8]}, "map_size="),
        ({"figure": "image", "image_box": [0, 0, 1]}, "image_box="),
        ({"figure": "image", "image_stride": 500}, "image_stride="),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, change, key):
    with pytest.raises(ConfigError, match=key.replace("[", r"\[")):
        illustrate(default(IllustrateConfig, output_dir=str(tmp_path), **change))
    assert not list(tmp_path.iterdir())


def test_the_figures_of_the_documents_are_there():
    text = (ROOT / "docs" / "roi_operators.md").read_text(encoding="utf-8")
    for name in ("operators.png", "bin.png", "matrices.png", "motion.gif", "image.png"):
        assert f"images/operators/{name}" in text
        assert (ROOT / "docs" / "images" / "operators" / name).is_file()


@pytest.mark.slow
def test_the_script_draws_every_figure(tmp_path, call_script):
    code, out, err = call_script("illustrate", f"output_dir={tmp_path}")
    assert code == 0, err
    assert len(out.split()) == 5
    for path in out.split():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert getattr(picture, "n_frames", 1) == (70 if path.endswith("gif") else 1)


def test_cells_without_weight_stay_empty(monkeypatch, tmp_path):
    """PrRoIPool weighs the 4 x 4 cells whose hats reach the first bin, of 80 cells of the map."""
    shown = {}
    monkeypatch.setattr(figures, "save", lambda figure, out: shown.setdefault("figure", figure))
    figures.draw_one_bin(EXAMPLE, tmp_path / "bin.png")
    numbers = [text.get_text() for text in shown["figure"].axes[2].texts if text.get_visible()]
    numbers = [text for text in numbers if text.startswith("0.")]
    assert len(numbers) == 16
    assert {"0.228", "0.001"} <= set(numbers)
