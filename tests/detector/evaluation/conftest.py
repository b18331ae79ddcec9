"""Small annotation and results files."""

import json

import pytest


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
