"""A tiny detector and a few images for it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import IDS, NAMES, make_content


@pytest.fixture(scope="session")
def content():
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
def checkpoint(tmp_path, content, data_set):
    """The tiny detector's checkpoint; its validation set is ``data_set``."""
    facts = content["hyper_parameters"]
    config = {**facts["config"], "data": {**facts["config"]["data"], "root": str(data_set)}}
    path = tmp_path / "tiny.ckpt"
    torch.save({**content, "hyper_parameters": {**facts, "config": config}}, path)
    return path
