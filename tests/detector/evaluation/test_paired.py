"""Comparisons of runs: values, differences, errors, and what changes in which image, on cases counted by hand."""

import numpy as np
import pytest

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.matches import match
from detector.evaluation.paired import compare
from detector.exceptions import DataError

A, B, C = (10, 10, 40, 40), (100, 10, 40, 40), (10, 100, 40, 40)
OBJECTS = [(1, 1, A), (1, 2, B), (2, 1, A), (3, 1, A), (3, 1, B), (4, 2, C)]
FIRST = [(1, 1, A, 0.9), (1, 2, B, 0.8), (2, 1, C, 0.95), (3, 1, A, 0.7), (4, 2, C, 0.6), (4, 2, A, 0.7)]
SECOND = [(1, 1, A, 0.9), (2, 1, A, 0.8), (3, 1, A, 0.7), (3, 1, B, 0.7), (3, 2, A, 0.5), (4, 2, C, 0.6)]


@pytest.fixture
def pair(scene):
    return [scene(OBJECTS, FIRST), scene(OBJECTS, SECOND)]


def test_differences_are_those_of_the_metrics(pair):
    """Two of four cats and a false one against all four; two of two dogs and a false one against one of two."""
    found = compare(["a", "b"], pair, resamples=50, seed=3)
    numbers = [run.accumulated() for run in pair]
    for name, difference in found.differences[0].metrics.items():
        first, second = (n.metrics()[name] for n in numbers)
        values = [run.metrics[name].value for run in found.runs]
        assert values == pytest.approx([first, second] if first is not None else [np.nan] * 2, nan_ok=True)
        assert difference.value == pytest.approx(values[1] - values[0], nan_ok=True)
    # Every other image counted twice or not at all moves the numbers: the bounds are apart, the value is between.
    value, low, high = found.differences[0].metrics["AP"]
    assert low < value < high


def test_changes_by_hand(pair):
    # Best thresholds of the first: cats 0.7 (two of four found, one false), dogs 0.6 (two of two found, one false).
    # Of the second: cats 0.7 (all four), dogs 0.6 (one of two, none false).
    first, second = compare(["a", "b"], pair, resamples=0).runs
    assert first.found.tolist() == [True, False, True, False, True, True]  # by class, then image
    assert second.found.tolist() == [True, True, True, True, False, True]
    (changes,) = compare(["a", "b"], pair, resamples=0).changes
    assert changes.won.tolist() == [0, 1, 1, 0]
    assert changes.lost.tolist() == [1, 0, 0, 0]
    assert changes.false_before.tolist() == [0, 1, 0, 1]
    assert changes.false_after.tolist() == [0, 0, 0, 0]
    assert changes.net.tolist() == [-1, 2, 1, 1]
    assert changes.most(2) == ([1, 2], [0])
    assert changes.most(0) == ([], [])


def test_a_run_against_itself(pair):
    found = compare(["a", "again"], [pair[0], pair[0]], resamples=20)
    for value, low, high in found.differences[0].metrics.values():
        assert (value, low, high) == (0, 0, 0) or value != value
    assert found.changes[0].net.tolist() == [0, 0, 0, 0]
    assert found.changes[0].most(9) == ([], [])


def test_rows(pair, scene):
    found = compare(["a", "b", "c"], [*pair, scene(OBJECTS, [])], resamples=10)
    metrics = {row["metric"]: row for row in found.metric_rows()}
    assert len(metrics) == 12
    assert metrics["AP"]["c"] == 0.0
    assert metrics["AP"]["c difference"] == pytest.approx(-metrics["AP"]["a"])
    assert metrics["APl"] == dict.fromkeys(metrics["APl"]) | {"metric": "APl"}  # no object is large
    assert [(row["class"], row["boxes"]) for row in found.class_rows()] == [("cat", 4), ("dog", 2)]
    images = found.image_rows(["1.png", "2.png", "3.png", "4.png"])
    assert len(images) == 8
    assert images[5] == {
        "run": "c",
        "image_id": 2,
        "file_name": "2.png",
        "boxes": 1,
        "won": 0,
        "lost": 0,
        "false_before": 1,
        "false_after": 0,
        "net": 1,
    }
    content = found.to_dict()
    assert content["differences"][0]["images"] == {
        "better": 3,
        "worse": 1,
        "objects_won": 2,
        "objects_lost": 1,
        "false_before": 2,
        "false_after": 0,
    }
    assert content["differences"][0]["metrics"]["APl"] == {"difference": None, "low": None, "high": None}


def test_progress_reaches_the_end(pair):
    told = []
    compare(["a", "b"], pair, resamples=300, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_other_images_cannot_be_compared(write_json):
    def run(images):
        content = {"images": [{"id": i} for i in images], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        return match(GroundTruth(write_json("gt.json", content)), Detections.empty())

    with pytest.raises(DataError, match="runs 1 and 3 cannot be paired: they were scored on different images"):
        compare(["a", "b", "c"], [run([1, 2]), run([1, 2]), run([1, 2, 3])])


def test_other_objects_cannot_be_compared(scene):
    with pytest.raises(DataError, match="their annotations differ"):
        compare(["a", "b"], [scene(OBJECTS, FIRST), scene(OBJECTS[1:], FIRST)])
