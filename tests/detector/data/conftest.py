"""Small COCO data sets on disk."""

import json

import numpy as np
import pytest
from PIL import Image

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
