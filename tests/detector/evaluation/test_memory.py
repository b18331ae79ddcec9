"""The memory that an evaluation of COCO's size takes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30

# 5,000 images of 80 classes with 7 objects and 100 detections each, as COCO's validation set has them. Peak memory is
# that of the process, so it has a process of its own.
PROGRAM = """
import json, resource, sys
import numpy as np
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.intervals import resample
from detector.evaluation.matches import match

rng = np.random.default_rng(0)
images, objects, found = 5000, 7 * 5000, 100 * 5000
def boxes(n):
    return np.concatenate([rng.uniform(0, 400, (n, 2)), rng.uniform(10, 150, (n, 2))], axis=1)
truth = boxes(objects)
image, label = rng.integers(1, images + 1, objects), rng.integers(1, 81, objects)
with open(sys.argv[1], "w") as file:
    json.dump({"images": [{"id": i} for i in range(1, images + 1)],
               "categories": [{"id": k, "name": str(k)} for k in range(1, 81)],
               "annotations": [{"id": i + 1, "image_id": int(image[i]), "category_id": int(label[i]), "iscrowd": 0,
                                "bbox": truth[i].tolist(), "area": float(truth[i, 2] * truth[i, 3])}
                               for i in range(objects)]}, file)
detected = boxes(found)
detected_image, detected_label = np.repeat(np.arange(1, images + 1), 100), rng.integers(1, 81, found)
near = rng.choice(found, objects, replace=False)  # every object is found once, more or less exactly
detected[near] = np.abs(truth + rng.normal(0, 4, truth.shape))
detected_image[near], detected_label[near] = image, label
detections = Detections(detected_image, detected_label, detected, rng.uniform(0, 1, found))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
matches = match(GroundTruth(sys.argv[1]), detections)
diagnosis = diagnose(matches, resample(images, 50))
diagnosis.to_dict()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, after, len(diagnosis.matches.score), diagnosis.metrics["AP50"].value)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in KiB on Linux only")
def test_peak_memory_of_coco_size(tmp_path):
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "gt.json")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after, count, ap50 = made.stdout.split()
    assert int(count) == 500_000
    assert 0 < float(ap50) < 1
    # Measured: 165 MiB. One dict a detection would be five times as much.
    assert (int(after) - int(before)) * 1024 < 0.35 * GIB
