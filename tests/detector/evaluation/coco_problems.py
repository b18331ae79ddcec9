"""Generated annotation and results files: crowds, ties, images and classes without boxes, edges of the areas."""

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth

# Sides around the limits of small, medium and large objects, and sub-pixel ones; coordinates on a coarse grid
# so that boxes coincide and IoUs hit thresholds exactly.
sides = st.sampled_from([0.25, 8, 16, 31.999, 32, 32.001, 64, 95.999, 96, 96.001, 128, 300])
corners = st.sampled_from([-3.5, 0, 4, 8, 8.25, 16, 40])
scores = st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.9, 1.0]) | st.floats(0, 1)


@st.composite
def problems(draw, ids=None):
    """An annotation file and a results file: crowds, ties, images and classes without boxes, arbitrary ids."""
    ids = st.integers(1, 60) | st.integers(2**53, 2**53 + 4) if ids is None else ids
    image_ids = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    category_ids = draw(st.lists(ids, min_size=1, max_size=3, unique=True))

    def box():
        return [draw(corners), draw(corners), draw(sides), draw(sides)]

    annotations = []
    for number in draw(st.lists(st.integers(1, 99), max_size=8, unique=True)):
        bbox = box()
        area = draw(st.sampled_from([bbox[2] * bbox[3], 32**2, 96**2, 10]))
        annotations.append(
            {
                "id": number,
                "image_id": draw(st.sampled_from(image_ids)),
                "bbox": bbox,
                "area": area,
                "category_id": draw(st.sampled_from(category_ids)),
                "iscrowd": draw(st.sampled_from([0, 0, 0, 1])),
                "ignore": draw(st.sampled_from([0, 0, 1])),
            }
        )
    detections = []
    for _ in range(draw(st.integers(0, 12))):
        if annotations and draw(st.booleans()):  # near a true box, or exactly on it
            near = draw(st.sampled_from(annotations))
            shift = draw(st.sampled_from([0, 0.5, 2, 4]))
            entry = {
                "image_id": near["image_id"],
                "category_id": near["category_id"],
                "bbox": [near["bbox"][0] + shift, *near["bbox"][1:]],
            }
        else:
            entry = {
                "image_id": draw(st.sampled_from(image_ids)),
                "category_id": draw(st.sampled_from(category_ids)),
                "bbox": box(),
            }
        detections.append({**entry, "score": draw(scores)})
    truth = {
        "images": [{"id": i} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
    }
    return truth, detections


@contextmanager
def written(problem):
    """A problem's two files, annotations and results, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "gt.json"), Path(folder, "dt.json")
        for file, content in zip(files, problem, strict=True):
            file.write_text(json.dumps(content))
        yield files


def read(problem):
    """A problem's two files, read."""
    with written(problem) as (annotations, results):
        return GroundTruth(annotations), Detections.from_json(results)
