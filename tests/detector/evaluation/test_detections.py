import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.evaluation.detections import Detections
from detector.exceptions import DataError


def entry(**changes):
    return {"image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 10], "score": 0.5, **changes}


def columns(detections):
    return [getattr(detections, name).tolist() for name in ("image_id", "category_id", "boxes_xywh", "score", "images")]


def output(boxes=(), labels=(), scores=(), dtype=torch.float32):
    return {
        "boxes": torch.tensor(boxes, dtype=dtype).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=dtype),
    }


# ---------------------------------------------------------------------------------------- from the model
def test_from_model_maps_labels_and_keeps_images_without_detections():
    last = output([[0, 0, 1, 1], [5, 5, 6, 9]], [1, 2], [0.25, 0.125])
    found = Detections.from_model([output([[1, 2, 4, 8]], [2], [0.5]), output(), last], [30, 10, 20], [7, 90])
    assert columns(found) == [
        [30, 20, 20],
        [90, 7, 90],
        [[1, 2, 3, 6], [0, 0, 1, 1], [5, 5, 1, 4]],
        [0.5, 0.25, 0.125],
        [30, 10, 20],
    ]
    assert [getattr(found, name).dtype for name in ("image_id", "category_id", "boxes_xywh", "score")] == [
        np.int64,
        np.int64,
        np.float64,
        np.float64,
    ]


def test_from_model_subtracts_in_float64():
    left, right = np.float32(0.1), np.float32(1000.3)
    found = Detections.from_model([output([[left, 0, right, 1]], [1], [0.5])], [1], [1])
    assert found.boxes_xywh[0, 2] == float(right) - float(left)
    assert found.boxes_xywh[0, 2] != float(right - left)  # the float32 difference is another number


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_from_model_takes_any_float_type(dtype):
    found = Detections.from_model([output([[1, 2, 4, 8]], [1], [0.5], dtype)], [1], [1])
    assert columns(found)[2:4] == [[[1, 2, 3, 6]], [0.5]]


def test_from_model_counts_a_repeated_image_once():
    outputs = [output([[0, 0, side, side]], [1], [0.1 * side]) for side in (1, 2, 3)]
    assert columns(Detections.from_model(outputs, [4, 5, 4], [1])) == [
        [4, 5],
        [1, 1],
        [[0, 0, 1, 1], [0, 0, 2, 2]],
        pytest.approx([0.1, 0.2]),
        [4, 5],
    ]


def test_from_model_of_nothing():
    assert len(Detections.from_model([], [], [1])) == 0
    found = Detections.from_model([output(), output()], [1, 2], [1])
    assert columns(found) == [[], [], [], [], [1, 2]]


def test_from_model_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="outputs of 1 images and 2 image ids"):
        Detections.from_model([output()], [1, 2], [1])
    with pytest.raises(ValueError, match=r"labels must be 1\.\.1, got 2\.\.2"):
        Detections.from_model([output([[0, 0, 1, 1]], [2], [0.5])], [1], [1])


def test_arrays_must_fit_together():
    with pytest.raises(ValueError, match="one entry per detection"):
        Detections([1, 2], [1, 1], [[0, 0, 1, 1]], [0.5, 0.5])
    with pytest.raises(ValueError, match="not among `images`"):
        Detections([1], [1], [[0, 0, 1, 1]], [0.5], images=[2])


# ------------------------------------------------------------------------------------------------ concat
@given(st.integers(1, 4), st.integers(1, 9), st.data())
def test_concat_gives_each_image_once_for_any_number_of_processes(world, count, data):
    """Shards as a distributed sampler deals them, padded with images from the front."""
    per_image = [data.draw(st.integers(0, 2)) for _ in range(count)]
    outputs = [output([[i, 0, i + 1, 1]] * n, [1] * n, [0.5] * n) for i, n in enumerate(per_image)]
    padded = list(range(count)) + list(range(count))[: -count % world]
    deals = [padded[rank::world] for rank in range(world)]
    shards = [Detections.from_model([outputs[i] for i in deal], deal, [1]) for deal in deals]
    merged = Detections.concat(shards)
    assert sorted(merged.images.tolist()) == list(range(count))
    assert [int((merged.image_id == i).sum()) for i in range(count)] == per_image


def test_concat_keeps_the_first_of_repeated_images_even_if_it_is_empty():
    first = Detections.empty(images=[1, 2])
    second = Detections([2, 3, 2], [1, 1, 1], [[0, 0, 1, 1]] * 3, [0.1, 0.2, 0.3])
    assert columns(Detections.concat([first, second])) == [[3], [1], [[0, 0, 1, 1]], [0.2], [1, 2, 3]]


def test_concat_of_nothing():
    assert columns(Detections.concat([])) == [[], [], [], [], []]
    assert columns(Detections.concat([Detections.empty([4]), Detections.empty()])) == [[], [], [], [], [4]]


# ------------------------------------------------------------------------------------------- results files
def test_files_give_back_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.normal(0, 100, (50, 4))
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    found = Detections(rng.integers(1, 2**62, 50), rng.integers(0, 9, 50), boxes, rng.random(50))
    found.to_json(tmp_path / "new folder" / "dt.json")
    back = Detections.from_json(tmp_path / "new folder" / "dt.json")
    assert columns(back) == columns(found)
    lines = (tmp_path / "new folder" / "dt.json").read_text().splitlines()
    assert json.loads(lines[1].rstrip(",")) == {
        "image_id": found.image_id[0],
        "category_id": found.category_id[0],
        "bbox": boxes[0].tolist(),
        "score": found.score[0],
    }
    assert len(lines) == 52


def test_an_empty_list_is_a_valid_file(tmp_path):
    Detections.empty().to_json(tmp_path / "dt.json")
    assert json.loads((tmp_path / "dt.json").read_text()) == []
    assert len(Detections.from_json(tmp_path / "dt.json")) == 0


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "dt.json"
    path.write_text("old")
    with pytest.raises(ValueError):
        Detections([1], [1], [[0, 0, 1, 1]], [math.nan]).to_json(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["dt.json"]


def test_other_keys_and_whole_floats_are_fine(write_json):
    path = write_json("dt.json", [entry(id=4, area=5, image_id=3.0, segmentation=[])])
    assert columns(Detections.from_json(path))[0] == [3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (7, "entry 1: is 7, not an object"),
        (None, "entry 1: is null, not an object"),
        ({"image_id": 1, "bbox": [0, 0, 1, 1]}, "entry 1: has no 'category_id' and no 'score'"),
        ({"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": {}}, "entry 1: has no 'bbox'"),
        (entry(image_id="1"), 'entry 1: image_id is "1", not a whole number'),
        (entry(image_id=1.5), "entry 1: image_id is 1.5, not a whole number"),
        (entry(image_id=2**70), f"entry 1: image_id is {2**70}, not a whole number"),
        (entry(category_id=None), "entry 1: category_id is null, not a whole number"),
        (entry(category_id=True), "entry 1: category_id is true, not a whole number"),
        (entry(image_id=99), "entry 1: image 99 is not in the annotation file"),
        (entry(category_id=0), "entry 1: category 0 is not in the annotation file"),
        (entry(bbox=[0, 0, 1]), "entry 1: bbox is [0, 0, 1], not four finite numbers"),
        (entry(bbox={"x": 1}), 'entry 1: bbox is {"x": 1}, not four finite numbers'),
        (entry(bbox=[0, 0, "1", 1]), 'entry 1: bbox is [0, 0, "1", 1], not four finite numbers'),
        (entry(bbox=[0, 0, math.nan, 1]), "entry 1: bbox is [0, 0, NaN, 1], not four finite numbers"),
        (entry(bbox=[0, 0, math.inf, 1]), "entry 1: bbox is [0, 0, Infinity, 1], not four finite numbers"),
        (
            entry(bbox=[0, 0, 1e8, 1]),
            "entry 1: bbox is [0, 0, 100000000.0, 1], not four finite numbers of less than 1e+07",
        ),
        (entry(bbox=[0, 0, 10**400, 1]), "entry 1: bbox is [0, 0, 10000"),
        (
            entry(bbox=[5, 5, -2, 3]),
            "entry 1: bbox [5, 5, -2, 3] has a negative width or height (bbox is x, y, width, ",
        ),
        (entry(score=math.nan), "entry 1: score is NaN, not a finite number"),
        (entry(score="0.5"), 'entry 1: score is "0.5", not a finite number'),
        (entry(score=None), "entry 1: score is null, not a finite number"),
    ],
)
def test_bad_entries_are_named(write_json, bad, message):
    path = write_json("dt.json", [entry(), bad, entry()])
    with pytest.raises(DataError) as caught:
        Detections.from_json(path, image_ids=[1, 3], category_ids=[2])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 1 entry of 3 cannot be used as detections"
    assert lines[1].startswith("  " + message)
    assert lines[2].startswith("Entries count from 0; a results file is a list of")
    assert len(lines) == 3


def test_twenty_problems_are_listed_and_the_rest_counted(write_json):
    path = write_json("dt.json", [entry(score="x") for _ in range(33)])
    with pytest.raises(DataError) as caught:
        Detections.from_json(path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("33 entries of 33 cannot be used as detections")
    assert lines[20].startswith("  entry 19: ")
    assert lines[21] == "  ... and 13 more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; COCO results expected"),
        (" \n", "the file is empty; COCO results expected"),
        ('[{"image_id": 1,\n "score": }]', "not valid JSON, line 2, column 11: Expecting value"),
        ("[" * 100_000, "nesting or numbers too long to be COCO results"),
        ('[{"score": ' + "9" * 5000 + "}]", "nesting or numbers too long to be COCO results"),
        ("5", "expected a list of detections, found 5"),
        ('{"a": 1, "b": 2}', "expected a list of detections, found an object with the keys a, b; a results file is"),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "these look like annotations: are the two files swapped?",
        ),
    ],
)
def test_files_of_another_kind(write_json, text, message):
    path = write_json("dt.json", text)
    with pytest.raises(DataError) as caught:
        Detections.from_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: there is no such file \(COCO results expected\); relative paths"):
        Detections.from_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="this is a folder, and a file has to be given"):
        Detections.from_json(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="must be JSON text in UTF-8; byte 0 is not"):
        Detections.from_json(tmp_path / "image.png")


def test_a_byte_order_mark_is_fine(tmp_path):
    (tmp_path / "dt.json").write_bytes(b"\xef\xbb\xbf[]")
    assert len(Detections.from_json(tmp_path / "dt.json")) == 0
