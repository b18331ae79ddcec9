"""Small annotation and results files, and a checkpoint with a data set to run it on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import IDS, NAMES

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match


@pytest.fixture
def write_json(tmp_path):
    """``write_json("gt.json", content)`` writes ``content`` and returns the path; a string is written as it is."""

    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def truth_content():
    """Two images, two categories with ids 3 and 7, and a box in each image; image 12 also has a crowd."""
    return {
        "images": [{"id": 12}, {"id": 5}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 100, 120], "area": 12000, "iscrowd": 0},
            {"id": 3, "image_id": 12, "category_id": 7, "bbox": [60, 60, 50, 50], "area": 2500, "iscrowd": 1},
        ],
    }


@pytest.fixture
def scene(write_json):
    """``scene(objects, detections)`` matches rows of (image, class, box) and (image, class, box, score).

    Images 1 to 4, classes "cat" (1) and "dog" (2). A row of an object may end with ``"crowd"``.
    """

    def build(objects, detections):
        annotations = [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": int(bool(rest)),
            }
            for number, (image, label, box, *rest) in enumerate(objects, start=1)
        ]
        truth = {
            "images": [{"id": i} for i in (1, 2, 3, 4)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        images, labels, boxes, scores = zip(*detections, strict=True) if detections else ((), (), (), ())
        return match(GroundTruth(write_json("scene.json", truth)), Detections(images, labels, boxes, scores))

    return build


@pytest.fixture
def results(write_json, truth_content):
    entries = [{"image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.9}]
    return write_json("gt.json", truth_content), write_json("dt.json", entries)


@pytest.fixture
def data_set(tmp_path):
    """Five small images of two sizes; one has a crowd, one has nothing. Returns the folder."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
    content = {"images": [], "annotations": [], "categories": categories}
    for image_id, (height, width) in zip((40, 10, 30, 20, 50), [(64, 64), (48, 80)] * 2 + [(64, 64)], strict=True):
        name = f"{image_id}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        if image_id != 30:
            content["annotations"].append(
                {
                    "id": image_id,
                    "image_id": image_id,
                    "category_id": IDS[image_id % 20 // 10],
                    "bbox": [5, 5, 30, 30],
                    "area": 900,
                    "iscrowd": int(image_id == 50),
                }
            )
    (folder / "val.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def checkpoint(tmp_path, data_set, untrained):
    """The checkpoint in a run folder, trained (it says) on ``data_set``."""
    facts = untrained["hyper_parameters"]
    config = {**facts["config"], "data": {**facts["config"]["data"], "root": str(data_set)}}
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({**untrained, "hyper_parameters": {**facts, "config": config}}, path)
    return path


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Results without a folder of their own go into ``runs/`` of the working directory."""
    monkeypatch.chdir(tmp_path)
