import numpy as np
import pytest
from coco_problems import problems, read
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.evaluation import pycocotools_evaluator
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import FALSE, IGNORED, TRUE, match
from detector.evaluation.metrics import AREAS, IOU_THRESHOLDS, RECALLS


def test_thresholds_are_those_of_pycocotools():
    from pycocotools.cocoeval import Params

    params = Params("bbox")
    assert params.iouThrs.tolist() == IOU_THRESHOLDS.tolist()
    assert params.recThrs.tolist() == RECALLS.tolist()
    assert [list(limits) for limits in AREAS.values()] == params.areaRng
    assert list(AREAS) == params.areaRngLbl


@given(problems(ids=st.integers(0, 60)), st.sampled_from([1, 2, 5, 100]), st.data())
@settings(max_examples=200)
def test_accumulated_matches_are_those_of_pycocotools_to_the_bit(problem, limit, data):
    truth, detections = read(problem)
    subset = data.draw(st.none() | st.lists(st.sampled_from(truth.image_ids), min_size=1, unique=True))
    scored = truth.image_ids if subset is None else sorted(subset)
    theirs = pycocotools_evaluator.accumulate(truth, detections, scored, max_detections=limit)
    ours = match(truth, detections, subset, max_detections=limit).accumulated()
    assert ours.precision.tobytes() == theirs.precision.tobytes()
    assert ours.recall.tobytes() == theirs.recall.tobytes()


def test_many_pairs_of_different_sizes_in_small_chunks(monkeypatch):
    """Dense images, so that groups are padded, split and ordered; against pycocotools."""
    monkeypatch.setattr("detector.evaluation.matches.CHUNK", 400)
    rng = np.random.default_rng(0)
    annotations, entries = [], []
    for image in range(1, 13):
        for _ in range(int(rng.integers(0, 12))):
            box = np.round(np.concatenate([rng.uniform(0, 60, 2), rng.uniform(10, 60, 2)]), 1).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, 4)),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(int(rng.integers(0, 5))):
                near = (np.array(box) * rng.uniform(0.8, 1.25, 4)).tolist()
                entries.append(
                    {
                        "image_id": image,
                        "category_id": int(rng.integers(1, 4)),
                        "bbox": near,
                        "score": float(np.round(rng.random(), 1)),
                    }
                )
    truth, detections = read(
        (
            {
                "images": [{"id": i} for i in range(1, 13)],
                "annotations": annotations,
                "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
            },
            entries,
        )
    )
    matches = match(truth, detections)
    theirs = pycocotools_evaluator.accumulate(truth, detections, truth.image_ids)
    assert matches.accumulated().precision.tobytes() == theirs.precision.tobytes()
    assert matches.accumulated().recall.tobytes() == theirs.recall.tobytes()
    assert 0.1 < theirs.metrics()["AP50"] < 0.9


@pytest.fixture
def by_hand(write_json):
    """Image 1: a cat found twice, a dog found badly, a crowd of dogs; image 2: a dog without detection."""
    content = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 9, "bbox": [0, 0, 100, 100], "area": 10000, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 5, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": [50, 0, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": 4, "image_id": 1, "category_id": 9, "bbox": [200, 0, 90, 90], "area": 8100, "iscrowd": 1},
        ],
    }
    found = Detections(
        [1] * 4, [5, 5, 9, 9], [[0, 0, 20, 20], [0, 0, 20, 18], [50, 0, 40, 30], [210, 10, 9, 9]], [0.6, 0.7, 0.5, 0.9]
    )
    return match(GroundTruth(write_json("gt.json", content)), found)


def test_arrays_by_hand(by_hand):
    assert by_hand.row.tolist() == [1, 0, 3, 2]  # by class, then by score
    assert by_hand.image.tolist() == [0, 0, 0, 0]
    assert by_hand.label.tolist() == [0, 0, 1, 1]
    assert by_hand.rank.tolist() == [0, 1, 0, 1]
    assert by_hand.object_id.tolist() == [2, 3, 4, 1]
    assert by_hand.counted.tolist() == [
        [True, True, False, True],
        [True, False, False, False],
        [False, True, False, False],
        [False, False, False, True],
    ]
    # IoU 0.9 of the better-scored cat: it takes the object up to a threshold of 0.9, the exact one above.
    assert by_hand.outcome[0, :9, 0].tolist() == [TRUE] * 9
    assert by_hand.outcome[0, :, 1].tolist() == [FALSE] * 9 + [TRUE]
    # In the crowd: ignored. IoU 0.75: true at 0.5 .. 0.75.
    assert by_hand.outcome[0, :, 2].tolist() == [IGNORED] * 10
    assert by_hand.outcome[0, :, 3].tolist() == [TRUE] * 6 + [FALSE] * 4
    assert by_hand.partner[[0, 9]].tolist() == [[0, -1, 2, 1], [-1, 0, 2, -1]]
    assert by_hand.found_by[[0, 9]].tolist() == [[0, 3, -1, -1], [1, -1, -1, -1]]
    # Small objects: what matches the medium dog is ignored, and so is a detection of medium size that matches nothing.
    assert by_hand.outcome[1, 0].tolist() == [TRUE, FALSE, IGNORED, IGNORED]
    assert by_hand.outcome[1, 9, 3] == IGNORED
    assert by_hand.detections_of == [slice(0, 2), slice(2, 4)]
    assert by_hand.objects_of == [slice(0, 1), slice(1, 4)]


def test_nothing_at_all(write_json):
    content = {"images": [], "annotations": [], "categories": []}
    matches = match(GroundTruth(write_json("gt.json", content)), Detections.empty())
    assert set(matches.accumulated().metrics().values()) == {None}


def test_curves_of_the_accumulated_numbers(scene):
    box = (100, 100, 100, 100)
    matches = scene([(1, 1, box), (2, 1, box)], [(1, 1, (100, 100, 100, 80), 0.9), (2, 1, (400, 400, 50, 50), 0.95)])
    found = matches.accumulated()
    values = found.by_iou()
    assert values[:7] == pytest.approx([0.5 * 51 / 101] * 7)
    assert values[7:] == [0, 0, 0]
    precision = found.precision_curves()
    assert precision[0] == pytest.approx([0.5] * 51 + [0] * 50)
    assert precision[9] == pytest.approx([0] * 101)
    assert np.isnan(scene([], []).accumulated().precision_curves()).all()
