"""Small annotation and results files."""

import json

import pytest

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
