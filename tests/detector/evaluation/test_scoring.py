import contextlib
import io
import json
import struct

import numpy as np
import pytest
from coco_problems import problems, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.config.commands import script
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.exceptions import DataError


def pycocotools_stats(annotations, results, image_ids=None):
    """The twelve numbers as pycocotools' own demo computes them: both files read by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def bits(value):
    return struct.pack("<d", value)


def assert_same_bits(metrics, stats):
    assert list(metrics) == list(METRIC_NAMES)
    for name, theirs in zip(METRIC_NAMES, stats, strict=True):
        if theirs == -1:
            assert metrics[name] is None, name
        else:
            assert type(metrics[name]) is float
            assert bits(metrics[name]) == bits(float(theirs)), name


@pytest.mark.parametrize("evaluator", ["builtin", "pycocotools"])
@given(problem=problems(), data=st.data())
@settings(max_examples=100)
def test_numbers_are_those_of_pycocotools_to_the_bit(evaluator, problem, data):
    """Those of an annotation with the id 0, too, are those of pycocotools with another id."""
    truth, entries = problem
    zero = [{**a, "id": 0} if i == 0 else a for i, a in enumerate(truth["annotations"])]
    with written(({**truth, "annotations": zero}, entries)) as (annotations, results):
        ids = [image["id"] for image in truth["images"]]
        subset = data.draw(st.none() | st.lists(st.sampled_from(ids), min_size=1, unique=True))
        ours = evaluate(annotations, Detections.from_json(results), subset, evaluator=evaluator)

        annotations.write_text(json.dumps(truth))
        if not entries:
            # loadRes fails on an empty list. A detection that misses everything leaves every number at 0 and
            # every -1 at -1.
            elsewhere = {"image_id": ids[0], "category_id": truth["categories"][0]["id"], "bbox": [9e5, 9e5, 9, 9]}
            results.write_text(json.dumps([{**elsewhere, "score": 0.5}]))
        theirs = pycocotools_stats(annotations, results, subset)
        assert_same_bits(ours.metrics, theirs.stats)

        # The mean of the classes' numbers is the number of all, up to the order of the summation.
        for name, own in (("AP", "AP"), ("AP50", "AP50"), ("AR100", "AR100")):
            known = [getattr(c, own) for c in ours.per_class if getattr(c, own) is not None]
            assert (ours.metrics[name] is None) == (not known)
            if known:
                assert ours.metrics[name] == pytest.approx(np.mean(known), abs=1e-12)


@given(problems())
@settings(max_examples=40)
def test_class_numbers_are_those_of_the_class_evaluated_alone(problem):
    truth, entries = problem
    with written(problem) as (annotations, results):
        for own in evaluate(annotations, Detections.from_json(results)).per_class:
            alone = {**truth, "categories": [c for c in truth["categories"] if c["id"] == own.category_id]}
            annotations.write_text(json.dumps(alone))
            mine = [e for e in entries if e["category_id"] == own.category_id]
            results.write_text(json.dumps(mine))
            result = evaluate(annotations, Detections.from_json(results))
            assert [result.metrics[n] for n in ("AP", "AP50", "AR100")] == [own.AP, own.AP50, own.AR100]
            singles = [a for a in truth["annotations"] if not a["iscrowd"]]
            assert own.boxes == sum(a["category_id"] == own.category_id for a in singles)
            assert own.detections == len(mine)


def test_numbers_derived_by_hand(write_json, truth_content):
    """The cat is found exactly; the dog with IoU 0.75 (90 of 120 rows), below a false dog of a higher score."""
    entries = [
        {"image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.9},
        {"image_id": 5, "category_id": 7, "bbox": [0, 0, 100, 90], "score": 0.6},
        {"image_id": 5, "category_id": 7, "bbox": [300, 300, 20, 20], "score": 0.8},
        {"image_id": 12, "category_id": 7, "bbox": [65, 65, 20, 20], "score": 0.99},  # inside the crowd: ignored
    ]
    result = evaluate(write_json("gt.json", truth_content), Detections.from_json(write_json("dt.json", entries)))
    cat, dog = result.per_class
    # pycocotools divides by one rounding error more than the count: a perfect class has AP 1 - 2e-16.
    assert pytest.approx(1.0, abs=1e-12) == cat.AP
    assert (cat.name, cat.AR100, cat.boxes, cat.images, cat.detections) == ("cat", 1.0, 1, 1, 1)
    # IoU 0.75 counts at the six thresholds 0.50 .. 0.75; precision is 1/2 because of the false dog.
    assert (dog.name, dog.boxes, dog.images, dog.detections) == ("dog", 1, 1, 3)
    assert pytest.approx(0.5, abs=1e-12) == dog.AP50
    assert pytest.approx(0.5 * 6 / 10, abs=1e-12) == dog.AP
    assert pytest.approx(0.6, abs=1e-12) == dog.AR100
    assert result.metrics["AP"] == pytest.approx((1 + 0.3) / 2, abs=1e-12)
    assert result.metrics["AR1"] == pytest.approx(0.5, abs=1e-12)  # the best dog of image 5 is the false one
    assert (result.metrics["APs"], result.metrics["APm"]) == (None, pytest.approx(1.0))
    assert (result.images, result.boxes, result.detections) == (2, 2, 4)


def test_no_detections_give_zeros_and_say_so(write_json, truth_content):
    result = evaluate(write_json("gt.json", truth_content), Detections.empty())
    assert {name: value for name, value in result.metrics.items() if value != 0.0} == {"APs": None, "ARs": None}
    assert result.notes == [
        "There are no detections: every number that has ground truth is 0.",
        "No ground-truth object is small: APs and ARs are n/a.",
    ]
    assert [c.AP for c in result.per_class] == [0.0, 0.0]


@pytest.mark.parametrize("kept", [[], [2]], ids=["no annotations", "a crowd only"])
def test_no_ground_truth_gives_none_and_says_so(write_json, truth_content, kept):
    truth_content["annotations"] = [truth_content["annotations"][i] for i in kept]
    found = Detections([12], [3], [[0, 0, 9, 9]], [0.5])
    result = evaluate(write_json("gt.json", truth_content), found)
    assert set(result.metrics.values()) == {None}
    assert result.notes == [
        "There is no ground-truth box (without crowds) in these images, so nothing can be measured: n/a."
    ]
    assert "n/a" in result.table()
    assert "0.0" not in result.table()


def test_empty_lists_are_a_valid_file(write_json):
    result = evaluate(write_json("gt.json", {"images": [], "annotations": [], "categories": []}), Detections.empty())
    assert set(result.metrics.values()) == {None}
    assert result.per_class == []


def test_classes_without_ground_truth_are_named(write_json, truth_content):
    truth_content["categories"].append({"id": 9, "name": "yak"})
    found = Detections([12, 12], [9, 3], [[0, 0, 9, 9], [10, 10, 40, 40]], [0.5, 0.5])
    result = evaluate(write_json("gt.json", truth_content), found)
    assert result.notes[-1] == (
        "Classes without ground truth in these images are left out of every mean, and with them 1 detection: yak."
    )
    assert result.per_class[2].AP is None


def test_image_ids_restrict_the_evaluation(write_json, truth_content):
    truth = GroundTruth(write_json("gt.json", truth_content))
    found = Detections([12, 5], [3, 7], [[10, 10, 40, 40], [0, 0, 100, 120]], [0.5, 0.5])
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(1.0)
    only = evaluate(truth, found, [5, 5])
    assert (only.images, only.boxes, only.detections) == (1, 1, 1)
    assert only.per_class[0].AP is None
    assert "Scored on 1 of the 2 images of gt.json." in only.notes
    nothing = evaluate(truth, found, [])
    assert set(nothing.metrics.values()) == {None}
    with pytest.raises(DataError, match=r"gt\.json: images to be scored are not in this file\n  image 6"):
        evaluate(truth, found, [5, 6])


def test_ground_truth_can_be_used_again(write_json, truth_content):
    truth = GroundTruth(write_json("gt.json", truth_content))
    found = Detections([12], [3], [[12, 10, 40, 40]], [0.5])
    first = evaluate(truth, found)
    evaluate(truth, Detections.empty(), [5])
    assert evaluate(truth, found) == first


def test_nothing_is_printed(write_json, truth_content, capsys):
    evaluate(write_json("gt.json", truth_content), Detections.empty())
    assert capsys.readouterr() == ("", "")


def test_detections_that_do_not_fit_are_an_error(write_json, truth_content):
    path = write_json("gt.json", truth_content)
    found = Detections(
        [12, 4, 5, 5, 12, 12],
        [3, 3, 8, 7, 7, 7],
        [[0, 0, 1, 1]] * 3 + [[0, np.inf, 1, 1], [0, 0, -1, 1], [0, 0, 1, 1]],
        [0.5, 0.5, 0.5, 0.5, 0.5, np.nan],
    )
    with pytest.raises(DataError) as caught:
        evaluate(path, found)
    lines = str(caught.value).splitlines()
    assert lines == [
        f"detections: not usable with the annotations {path}",
        "  detection 1 (from 0): image 4 is not in the annotation file",
        "  detection 2 (from 0): category 8 is not in the annotation file",
        "  detection 3 (from 0): the box [0.0, inf, 1.0, 1.0] (x, y, width, height) is not finite or absurdly large",
        "  detection 4 (from 0): the box [0.0, 0.0, -1.0, 1.0] (x, y, width, height) has a negative size",
        "  detection 5 (from 0): the score nan is not finite",
    ]


def test_save_writes_every_digit(write_json, truth_content, tmp_path):
    found = Detections([12, 5], [3, 7], [[10, 10, 40, 40], [0, 0, 100, 80]], [0.5, 0.5])
    result = evaluate(write_json("gt.json", truth_content), found)
    result.save(tmp_path / "deep" / "metrics.json", {"checkpoint": "best.ckpt"})
    content = json.loads((tmp_path / "deep" / "metrics.json").read_text())
    assert list(content)[:12] == list(METRIC_NAMES)
    assert {name: content[name] for name in METRIC_NAMES} == result.metrics
    assert content["APs"] is None
    assert content["per_class"][1] == {
        "category_id": 7,
        "name": "dog",
        "AP": result.per_class[1].AP,
        "AP50": result.per_class[1].AP50,
        "AR100": result.per_class[1].AR100,
        "boxes": 1,
        "images": 1,
        "detections": 1,
    }
    assert content["notes"] == result.notes
    assert content["counts"] == {"images": 2, "boxes": 2, "detections": 2}
    assert content["meta"] == {"checkpoint": "best.ckpt"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["metrics.json"]


def test_photographs_equal_pycocotools(shared_dir, tmp_path):
    """The photograph set, with detections that are its boxes moved, dropped, doubled and relabelled."""
    annotations = shared_dir / "data" / "bccd" / "val.json"
    truth = GroundTruth(annotations)
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(truth.ids)), rng.integers(0, 3, len(truth.ids)))
    found = Detections(
        np.array(truth.image_ids)[truth.image[rows]],
        rng.choice(truth.category_ids, len(rows), p=[0.6, 0.1, 0.3]),
        np.abs(truth.boxes_xywh[rows] + rng.normal(0, 6, (len(rows), 4))),
        rng.random(len(rows)).astype(np.float32).round(2),
    )
    found.to_json(tmp_path / "dt.json")
    ours = evaluate(annotations, found)
    theirs = pycocotools_stats(annotations, tmp_path / "dt.json")
    assert_same_bits(ours.metrics, theirs.stats)
    assert 0.05 < ours.metrics["AP"] < 0.9  # not a trivial case


@pytest.mark.parametrize("evaluator", ["builtin", "pycocotools"])
def test_the_limit_of_detections(write_json, truth_content, evaluator):
    """Three false cats above the true one: with a limit of 3 it is not counted, and the notes say so."""
    path = write_json("gt.json", truth_content)
    found = Detections(
        [12] * 4, [3] * 4, [[200 + i, 0, 20, 20] for i in range(3)] + [[10, 10, 40, 40]], [0.9, 0.8, 0.7, 0.6]
    )
    assert pytest.approx(0.25) == evaluate(path, found, evaluator=evaluator).per_class[0].AP
    cut = evaluate(path, found, evaluator=evaluator, max_detections=3)
    assert cut.per_class[0].AP == 0
    assert cut.notes[-2:] == [
        "Up to 3 detections are counted for each image and class; COCO's own numbers (and the name AR100) mean 100.",
        "1 detection is beyond the 3 best of the image and class, and not counted; "
        f"python {script('evaluate')} counts more with max_detections=N.",
    ]


@pytest.mark.parametrize("part", ["found", "truth"])
@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x, y, w, h: [x / 100, y / 100, w / 100, h / 100], "are within 0 and 1: they seem to be fractions"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "leave many images as [x, y, width, height], and none as [x1, y1,"),
        (lambda x, y, w, h: [x, y, w, h], ""),
    ],
    ids=["fractions", "corners", "sizes"],
)
def test_boxes_of_another_format_are_said(write_json, part, turn, words):
    """Their numbers are computed as pycocotools does, but a reader must know why they are near 0."""
    boxes = [[8 * i, 8 * i, 10, 10] for i in range(11)]
    as_read = {"found": boxes, "truth": boxes, part: [turn(*box) for box in boxes]}
    truth = {
        "images": [{"id": 4, "file_name": "4.png", "height": 100, "width": 100}],
        "annotations": [
            {"id": i + 1, "image_id": 4, "category_id": 3, "bbox": box, "area": 100, "iscrowd": 0}
            for i, box in enumerate(as_read["truth"])
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    entries = [{"image_id": 4, "category_id": 3, "bbox": box, "score": 0.5} for box in as_read["found"]]
    files = {"truth": write_json("gt.json", truth), "found": write_json("dt.json", entries)}
    notes = evaluate(files["truth"], Detections.from_json(files["found"])).notes
    said = [note for note in notes if note.startswith("The boxes of ")]
    assert len(said) == (1 if words else 0)
    for note in said:
        assert note.startswith(f"The boxes of {files[part]} {words}")
        assert note.endswith("COCO files have [x, y, width, height] in pixels.")
