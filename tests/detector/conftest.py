"""The scripts, called in the process of the test as a user calls them; a tiny detector and a few images for it."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import IDS, NAMES, make_content

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def call_script(monkeypatch, tmp_path, capsys):
    """``call_script("compare", "key=value", ...)`` runs a script in ``tmp_path``; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        path = str(SCRIPTS / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def untrained():
    """The content of a checkpoint of a tiny detector that has learned nothing."""
    return make_content()


@pytest.fixture
def data_set(tmp_path):
    """A folder with ``images/`` (five, two sizes) and ``val.json``, whose order and ids are not the names'."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)],
    }
    for image_id, (height, width) in zip((40, 10, 30, 20, 50), [(64, 64), (48, 80)] * 2 + [(64, 64)], strict=True):
        name = f"{image_id}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
        truth["images"].append({"id": image_id + 1, "file_name": name, "height": height, "width": width})
        truth["annotations"].append(
            {
                "id": image_id,
                "image_id": image_id + 1,
                "category_id": IDS[image_id % 20 // 10],
                "bbox": [5, 5, 30, 30],
                "area": 900,
                "iscrowd": 0,
            }
        )
    (folder / "val.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture
def checkpoint(tmp_path, untrained, data_set):
    """The tiny detector's checkpoint; its validation set is ``data_set``."""
    facts = untrained["hyper_parameters"]
    config = {**facts["config"], "data": {**facts["config"]["data"], "root": str(data_set)}}
    path = tmp_path / "tiny.ckpt"
    torch.save({**untrained, "hyper_parameters": {**facts, "config": config}}, path)
    return path


# ------------------------------------------------------------------------------ small COCO data sets on disk
CATEGORIES = ({"id": 3, "name": "cat"}, {"id": 7, "name": "dog"})


def expand(row):
    """(id, image id, box) or (id, image id, box, {key: value}) as an annotation; the value ``...`` takes a key away."""
    if not isinstance(row, tuple):
        return row
    number, image, box, changes = row if len(row) == 4 else (*row, {})
    entry = {
        "id": number,
        "image_id": image,
        "category_id": 3,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


@pytest.fixture
def write_coco(tmp_path):
    """write(rows, images={id: (height, width)}, ...) -> (annotation file, image folder). A row: see expand."""

    def write(annotations=(), images=None, categories=CATEGORIES, name="train.json", files=True):
        images = {1: (40, 60), 2: (50, 30)} if images is None else images
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        entries = []
        for number, (height, width) in images.items():
            entries.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            if files:
                rng = np.random.default_rng(number)
                Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        content = {
            "images": entries,
            "annotations": [expand(row) for row in annotations],
            "categories": list(categories),
        }
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name, folder

    return write
