import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.config.defaults import default
from detector.config.schema import Config
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match
from detector.evaluation.scoring import evaluate
from detector.training.tensorboard_summary import THRESHOLDS, precision_recall_counts, settings, write_summary


@pytest.fixture
def found(tmp_path):
    """Three cats, two of them found at 0.9 and 0.5, and a box of nothing at 0.7; a dog that nobody saw."""
    boxes = [[0, 0, 20, 20], [40, 0, 20, 20], [0, 40, 20, 20], [40, 40, 20, 20]]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 80}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1 + (i == 3), "bbox": box, "area": 400, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    detections = Detections(
        np.ones(3), np.ones(3), np.array([boxes[0], [60, 60, 10, 10], boxes[1]]), np.array([0.9, 0.7, 0.5])
    )
    ground_truth = GroundTruth(tmp_path / "gt.json")
    return evaluate(ground_truth, detections), match(ground_truth, detections)


def test_counts_by_hand(found):
    true, false, background, missed, precision, recall = precision_recall_counts(found[1], 0)
    assert len(true) == THRESHOLDS
    for position, expected in (
        (0, (2, 1, 1)),
        (round(126 * 0.6), (1, 1, 2)),
        (round(126 * 0.8), (1, 0, 2)),
        (126, (0, 0, 3)),
    ):
        assert (true[position], false[position], missed[position]) == expected
    assert not background.any()
    assert precision[0] == pytest.approx(2 / 3)
    assert recall[0] == pytest.approx(2 / 3)
    assert not np.any(precision_recall_counts(found[1], 1)[0])


def test_tensorboard_reads_what_is_written(tmp_path, found):
    Image.new("RGB", (30, 20)).save(tmp_path / "sheet.png")
    write_summary(tmp_path / "tb", default(Config), *found, tmp_path / "sheet.png", 7)
    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    (image,) = events.Images("predictions")
    assert (image.step, image.width, image.height) == (7, 30, 20)
    assert {"IoU 0.5/cat", "IoU 0.5/dog"} <= set(tags["tensors"])
    assert events.Scalars("best/AP50")[0].value == pytest.approx(found[0].metrics["AP50"])
    assert "_hparams_/experiment" in events.summary_metadata
    assert not [path for path in (tmp_path / "tb").iterdir() if path.is_dir()]


def test_settings():
    found = settings(default(Config, seed=3))
    assert (found["seed"], found["model.min_size"], found["data.shapes.max_overlap"]) == (3, "[800]", 0.2)
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())
