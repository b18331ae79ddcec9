"""Results that give masks or keypoints and no boxes, against pycocotools' ``loadRes``."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match
from detector.evaluation.pycocotools_evaluator import accumulate
from detector.exceptions import DataError

HEIGHT, WIDTH = 120, 160


def ellipse(rng):
    """A mask whose area is well below that of its box."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    cy, cx, a, b = rng.uniform(20, 100), rng.uniform(20, 140), rng.uniform(4, 45), rng.uniform(4, 45)
    return ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1


def encoded(pixels):
    rle = mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def entry(**keys):
    return {"image_id": 1, "category_id": 1, "score": 0.5, **keys}


def pycocotools_metrics(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("kind", ["masks", "keypoints"])
def test_the_numbers_are_those_of_pycocotools(kind, write_json):
    """Many detections are small by their mask and medium by its box, and find nothing: so APs tells the two apart."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, 13):
        for _ in range(4):
            runs = mask.encode(np.asfortranarray(ellipse(rng), dtype=np.uint8))
            box = mask.toBbox(runs).tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0,
                 "area": float(mask.area(runs))}
            )  # fmt: skip
            for pixels in (mask.decode(runs), ellipse(rng)):
                x, y = np.flatnonzero(pixels.any(0)).tolist(), np.flatnonzero(pixels.any(1)).tolist()
                told = {"segmentation": encoded(pixels)}
                if kind == "keypoints":
                    told = {"keypoints": [x[0], y[-1], 1, x[-1], y[0], 2, x[len(x) // 2], y[0], 0.5]}
                results.append(entry(image_id=image, score=float(rng.random()), **told))
    content = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, 13)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": annotations,
    }
    truth, file = write_json("gt.json", content), write_json("dt.json", results)
    expected = pycocotools_metrics(truth, file)
    assert 0.05 < expected[3] < 0.95  # APs
    truth, found = GroundTruth(truth), Detections.from_json(file)
    ours = match(truth, found).accumulated().metrics()
    assert list(ours.values()) == pytest.approx([None if e < 0 else e for e in expected.tolist()], abs=1e-12)
    peer = accumulate(truth, found, truth.image_ids, 100)
    assert list(peer.metrics().values()) == list(ours.values())
    halves = [Detections.concat([found]).only(range(1, 7)), found.only(range(7, 13))]
    assert match(truth, Detections.concat(halves)).accumulated().metrics() == ours


def test_a_mask_by_hand(write_json):
    """Rows 1 and 2 of columns 2 to 4, without one pixel; the same mask as a list of runs, which go down the columns."""
    pixels = np.zeros((4, 6))
    pixels[1:3, 2:5] = 1
    pixels[2, 4] = 0
    runs = {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 1, 6]}
    box = {"bbox": [1, 1, 2, 2], "segmentation": encoded(pixels)}
    entries = [entry(segmentation=encoded(pixels)), entry(segmentation=runs), entry(bbox=[], segmentation=runs)]
    found = Detections.from_json(write_json("dt.json", [*entries, entry(**box)]))
    assert found.boxes_xywh.tolist() == [[2, 1, 3, 2]] * 3 + [[1, 1, 2, 2]]
    assert found.area.tolist() == [5, 5, 5, 4]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"segmentation": [[0, 0, 9, 0, 9, 9]]}, "segmentation .*run-length"),
        ({"segmentation": {"size": [4, 6], "counts": [9, 2]}}, "segmentation"),  # 11 of 24 pixels
        ({"segmentation": {"size": [4, 6], "counts": "zzzzz"}}, "segmentation"),
        ({"segmentation": {"size": [4, 6], "counts": "o" * 40}}, "segmentation"),  # goes on beyond its end
        ({"segmentation": {"size": [4, 6], "counts": "92223"}}, "segmentation"),  # 18 of 24 pixels
        ({"segmentation": {"size": [2**16, 2**16], "counts": [2**32]}}, "segmentation"),
        ({"segmentation": {"size": [4], "counts": "9"}}, "segmentation"),
        ({"keypoints": [1, 2]}, "keypoints"),
        ({"keypoints": ["1", 2, 3]}, "keypoints"),
        ({}, "has no 'bbox'$"),
    ],
)
def test_what_cannot_be_read_is_named(told, says, write_json):
    with pytest.raises(DataError, match=rf"(?m)entry 1: has no 'bbox'.*{says}" if told else rf"(?m)entry 1: {says}"):
        Detections.from_json(write_json("dt.json", [entry(bbox=[0, 0, 1, 1]), entry(**told)]))


def test_what_is_selected_keeps_the_areas_of_masks():
    """The area decides which objects are small; a mask's is not that of its box."""
    found = Detections(
        np.array([1, 1, 2]), np.array([1, 2, 1]), np.array([[0.0, 0, 9, 9]] * 3), np.ones(3), np.array([1, 2]),
        area=np.array([5.0, 6.0, 7.0]),
    )  # fmt: skip
    assert found.without([2]).area.tolist() == [5, 7]
    assert found.only([2]).area.tolist() == [7]
    assert found.only([2]).images.tolist() == [2]
