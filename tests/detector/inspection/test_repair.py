"""Cleaned copies: what is mended, what is left out, what stays, and that training takes the result."""

import json

import numpy as np
import pytest

from detector.data.annotations import read_annotations
from detector.data.coco import CocoDataset
from detector.inspection.repair import repair, repeated_boxes

GOOD = (1, 1, (5, 5, 10, 10))
SIZES = {"1.png": (40, 60), "2.png": (50, 30)}


def mend(file, unusable=None, sizes=SIZES, renamed=None):
    content, changes = repair(file, sizes.get, unusable or {}, renamed or {})
    return content, [(c["what"], c["entry"].get("id")) for c in changes]


@pytest.mark.parametrize(
    ("row", "what", "expected"),
    [
        (
            (7, 1, (55, 30, 10, 15), {"area": 75}),
            "clipped box",
            {"bbox": [55, 30, 5, 10], "area": 25},
        ),  # 50 of 150 left
        ((7, 1, (-3, 5, 10, 10), {"area": 100}), "clipped box", {"bbox": [0, 5, 7, 10], "area": 70}),
        ((1, 1, (30, 5, 9, 9)), "new id", {"id": 2, "bbox": [30, 5, 9, 9]}),
        ((7, 1, (30, 5, 9, 9), {"id": ...}), "new id", {"id": 2}),
        ((7, 1, (30, 5, 9, 9), {"area": -1}), "corrected area", {"area": 81}),
        ((7, "1", (30, 5, 9, 9)), "number", {"image_id": 1}),
        ((7, 1, (30, 5, 9, 9), {"category_id": " 7"}), "number", {"category_id": 7}),
        ((7, 1, (30, 5, 9, 9), {"bbox": ["30", 5.5, "9", " 9"]}), "number", {"bbox": [30, 5.5, 9, 9]}),
    ],
)
def test_annotations_that_can_be_mended(write_coco, row, what, expected):
    file, images = write_coco([GOOD, row])
    content, changes = mend(file)
    assert [c for c, _ in changes] == [what]
    assert len(content["annotations"]) == 2
    entry = content["annotations"][1]
    assert {key: entry[key] for key in expected} == expected
    file.write_text(json.dumps(content))
    assert CocoDataset(file, images).problems == []


@pytest.mark.parametrize(
    "row",
    [
        (7, 1, (10, 20, 0, 5)),
        (7, 1, (10, 20, -4, -5)),
        (7, 1, (70, 5, 10, 10)),
        (7, 99, (5, 5, 9, 9)),
        (7, 1, (5, 5, 9, 9), {"category_id": 4}),
        (7, 1, (5, 5, 9, 9), {"bbox": ...}),
        (7, 1, (5, 5, 9, 9), {"bbox": ["one", 2, 3, 4]}),
        (7, 1, (5, 5, 9, 9), {"iscrowd": 2}),
        (7, 1, (10, float("nan"), 4, 5)),
        (7, 1, (5, 5, 10, 9.5)),
        "a word",
        None,
        3,
    ],
)
def test_annotations_that_are_left_out(write_coco, row):
    file, images = write_coco([GOOD, row])
    content, changes = mend(file)
    assert [c for c, _ in changes] == ["dropped annotation"]
    assert [entry["id"] for entry in content["annotations"]] == [1]
    file.write_text(json.dumps(content))
    assert CocoDataset(file, images).problems == []


def test_what_is_right_stays_as_it_is(write_coco):
    file, _ = write_coco(
        [
            (5, 1, (5, 5, 10, 10), {"segmentation": [[1, 2, 3, 4, 5, 6]], "mine": "x"}),
            (9, 1, (0, 0, 60, 40), {"iscrowd": 1}),
        ]
    )
    before = json.loads(file.read_text())
    before["info"] = {"year": 2026}
    before["images"][0]["license"] = 3
    file.write_text(json.dumps(before))
    content, changes = mend(file)
    assert content == before
    assert changes == []


def test_images(write_coco):
    file, images = write_coco([GOOD, (2, 2, (1, 1, 5, 5)), (3, 5, (1, 1, 5, 5))])
    content = json.loads(file.read_text())
    first, second = content["images"]
    first |= {"height": 60, "width": 40}  # exchanged
    del second["height"]
    content["images"] += [
        {**first, "file_name": "other.png"},
        {"id": 8, "height": 5, "width": 5},
        "word",
        {"id": 5, "file_name": "gone.png", "height": 9, "width": 9},
    ]
    file.write_text(json.dumps(content))
    cleaned, changes = mend(file, {5: "there is no file"})
    assert changes == [
        ("resized image", 1),
        ("resized image", 2),
        ("dropped image", 1),
        ("dropped image", 8),
        ("dropped image", None),
        ("dropped image", 5),
        ("dropped annotation", 3),
    ]
    assert [(i["id"], i["height"], i["width"]) for i in cleaned["images"]] == [(1, 40, 60), (2, 50, 30)]
    file.write_text(json.dumps(cleaned))
    assert CocoDataset(file, images).problems == []


def test_categories(write_coco):
    categories = [{"id": 3}, {"id": 7, "name": "dog"}, {"id": 7, "name": "again"}, {"name": "no id"}]
    file, images = write_coco([GOOD, (2, 1, (20, 5, 9, 9), {"category_id": 7})], categories=categories)
    content, changes = mend(file)
    assert changes == [("named category", 3), ("dropped category", 7), ("dropped category", None)]
    assert content["categories"] == [{"id": 3, "name": "3"}, {"id": 7, "name": "dog"}]
    file.write_text(json.dumps(content))
    assert CocoDataset(file, images).class_names == ["3", "dog"]


def test_repeated_boxes(write_coco):
    file, _ = write_coco(
        [
            GOOD,
            (2, 1, (5, 5, 10, 9)),  # 90 of 100: the same
            (3, 1, (5, 5, 10, 8.9)),  # 89 of 100: another one; but 89 of 90 of annotation 2
            (4, 1, (5, 5, 10, 10), {"category_id": 7}),
            (5, 2, (5, 5, 10, 10)),
            (6, 1, (5, 5, 10, 10), {"iscrowd": 1}),
            (7, 2, (5, 5, 10, 10)),
        ]
    )
    found = repeated_boxes(read_annotations(file))
    assert [(p.position, p.annotation_id, p.what.split()[-2]) for p in found] == [
        (1, 2, "1"),
        (2, 3, "2"),
        (6, 7, "5"),
    ]


def test_repeated_boxes_of_none(write_coco):
    file, _ = write_coco([])
    assert repeated_boxes(read_annotations(file)) == []
    assert np.array_equal(read_annotations(file).ids, [])
