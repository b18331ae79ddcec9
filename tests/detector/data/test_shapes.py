"""The built-in data set on disk."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.defaults import default
from detector.config.schema import DataConfig, ShapesConfig
from detector.data import shapes
from detector.data.coco import CocoDataset
from detector.data.scene import CLASS_NAMES
from detector.data.shapes import ensure_shapes, fingerprint
from detector.data.splits import find_split, validation_split
from detector.evaluation.stored_detections import ELSEWHERE
from detector.exceptions import ConfigError, DataError

SMALL = default(
    ShapesConfig, train_images=6, val_images=3, image_size=64, min_object=8, max_object=24, empty_fraction=0.2
)


def content_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_is_a_coco_data_set_that_needs_no_correction(tmp_path):
    folder = ensure_shapes(tmp_path, SMALL)
    for split, count in (("train", 6), ("val", 3)):
        dataset = CocoDataset(folder / f"{split}.json", folder / "images")
        assert len(dataset) == count
        assert dataset.class_names == list(CLASS_NAMES)
        assert dataset.sizes == [(64, 64)] * count
        for image, target in dataset:
            assert image.shape == (3, 64, 64)
            assert (target["boxes"] >= 0).all()
            assert (target["boxes"] <= 64).all()
    ids = [a["id"] for a in json.loads((folder / "train.json").read_text())["annotations"]]
    assert min(ids) == 1
    assert len(set(ids)) == len(ids)


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    first = content_of(ensure_shapes(tmp_path / "a", SMALL))
    assert content_of(ensure_shapes(tmp_path / "b", SMALL)) == first
    other = content_of(ensure_shapes(tmp_path / "a", replace(SMALL, seed=1)))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    few, more = (ensure_shapes(tmp_path, replace(SMALL, train_images=n)) for n in (2, 4))
    assert few != more
    for name in ("train_000001.png", "val_000002.png"):
        assert (few / "images" / name).read_bytes() == (more / "images" / name).read_bytes()
    assert (few / "images/train_000001.png").read_bytes() != (few / "images/val_000001.png").read_bytes()


def test_second_call_draws_nothing(tmp_path, monkeypatch):
    folder = ensure_shapes(tmp_path, SMALL)
    monkeypatch.setattr(shapes, "draw_data_set", lambda *_: pytest.fail("drawn again"))
    assert ensure_shapes(tmp_path, SMALL) == folder


@pytest.mark.parametrize(
    "change",
    [
        {"train_images": 7},
        {"val_images": 4},
        {"image_size": 72},
        {"min_object": 9},
        {"max_object": 25},
        {"max_objects": 5},
        {"max_overlap": 0.3},
        {"difficulty": 0.6},
        {"empty_fraction": 0.3},
        {"seed": 1},
    ],
)
def test_every_key_has_its_own_folder(change):
    assert fingerprint(replace(SMALL, **change)) != fingerprint(SMALL)


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(folder, _):
        (folder / "train.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw_data_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_shapes(tmp_path, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_slower_of_two_processes_uses_the_others_work(tmp_path, monkeypatch):
    draw = shapes.draw_data_set

    def overtaken(folder, config):
        draw(folder, config)
        monkeypatch.setattr(shapes, "draw_data_set", draw)
        ensure_shapes(tmp_path, config)  # the other process finishes first

    monkeypatch.setattr(shapes, "draw_data_set", overtaken)
    folder = ensure_shapes(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert len(CocoDataset(folder / "train.json", folder / "images")) == 6


def test_processes_that_start_at_once_agree(tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        folders = pool.starmap(ensure_shapes, [(tmp_path, SMALL)] * 3)
    assert len(set(folders)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [folders[0].name]


def test_folder_can_be_read_by_others(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    assert ensure_shapes(tmp_path, SMALL).stat().st_mode == plain.stat().st_mode


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    data = default(DataConfig, root=str(tmp_path / "file"), shapes=SMALL)
    with pytest.raises(DataError, match=r"cannot write the built-in data set to .*file.*data\.root"):
        find_split(data, "train")
    with pytest.raises(DataError, match=r"cannot write the built-in data set to .*file.*annotations=FILE.json"):
        validation_split(data, "run", ELSEWHERE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_object": 30}, "data.shapes.min_object=30: must not be above data.shapes.max_object=24"),
        (
            {"min_object": 40, "max_object": 60},
            "data.shapes.min_object=40: must be at most half of data.shapes.image_size=64",
        ),
    ],
)
def test_configuration_without_a_possible_object(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        ensure_shapes(tmp_path, replace(SMALL, **change))


def test_images_are_rgb_and_not_flat(tmp_path):
    folder = ensure_shapes(tmp_path, SMALL)
    for file in Path(folder / "images").iterdir():
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == (64, 64, 3)
        assert pixels.std() > 1


@pytest.mark.slow
def test_default_set_is_balanced_and_quick(tmp_path):
    folder = ensure_shapes(tmp_path, default(ShapesConfig))
    dataset = CocoDataset(folder / "train.json", folder / "images")
    assert len(dataset) == 600
    counts = np.array(dataset.class_counts)
    assert counts.min() > 0.12 * counts.sum()
    area = dataset.table.area
    assert (area < 32**2).mean() > 0.3  # small objects in the sense of COCO
    assert (area >= 32**2).mean() > 0.2
    assert 0.02 < (dataset.box_counts == 0).mean() < 0.09
