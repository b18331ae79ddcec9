"""Cleaned copies: what is mended, what is left out, what stays, and that training takes the result."""

import json

import numpy as np
import pytest
from PIL import Image

from detector.data.annotations import read_annotations
from detector.data.coco import CocoDataset
from detector.inspection.repair import repeated_boxes

GOOD = (1, 1, (5, 5, 10, 10))
AREA = {"area": 81}


@pytest.fixture
def mend(clean_file):
    """mend(file, images) -> the cleaned content, and (what, id) of each change; training takes the copy."""

    def mended(file, images):
        copy = clean_file(file, images)
        file.write_text(json.dumps(copy.content))
        assert CocoDataset(file, images).problems == []
        return copy.content, [(c["what"], c["entry"].get("id")) for c in copy.changes]

    return mended


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
        ((0, 1, (30, 5, 9, 9)), "new id", {"id": 2}),
        (("a1", 1, (30, 5, 9, 9)), "new id", {"id": 2, "original_id": "a1"}),
        ((7, 1, (30, 5, 9, 9), {"area": -1}), "corrected area", AREA),
        ((7, 1, (30, 5, 9, 9), {"area": 0}), "corrected area", AREA),
        ((7, 1, (30, 5, 9, 9), {"area": ...}), "corrected area", AREA),
        ((7, 1, (30, 5, 9, 9), {"area": None}), "corrected area", AREA),
        ((7, 1, (30, 5, 9, 9), {"area": 101}), "corrected area", AREA),  # more than 10 x 10
        ((7, "1", (30, 5, 9, 9)), "number", {"image_id": 1}),
        ((7.0, 1, (30, 5, 9, 9)), "number", {"id": 7}),
        ((7, 1, (30, 5, 9, 9), {"category_id": " 7"}), "number", {"category_id": 7}),
        ((7, 1, (30, 5, 9, 9), {"category_id": "dog"}), "new reference", {"category_id": 7}),
        ((7, "1.png", (30, 5, 9, 9)), "new reference", {"image_id": 1}),
        ((7, 1, (30, 5, 9, 9), {"bbox": ["30", 5.5, "9", " 9"]}), "number", {"bbox": [30, 5.5, 9, 9]}),
        ((7, 1, (30, 5, 9, 9), {"iscrowd": "true"}), "number", {"iscrowd": 1}),
        ((7, 1, (30, 5, 9, 9), {"area": "40"}), "number", {"area": 40}),
        (
            (7, 1, (30, 5, 9, 9), {"bbox": ..., "segmentation": [[30, 5, 39, 8, 33, 14]]}),
            "box from segmentation",
            {"bbox": [30, 5, 9, 9]},
        ),
    ],
)
def test_annotations_that_can_be_mended(write_coco, mend, row, what, expected):
    content, changes = mend(*write_coco([GOOD, row]))
    assert [c for c, _ in changes] == [what]
    assert len(content["annotations"]) == 2
    entry = content["annotations"][1]
    assert {key: entry[key] for key in expected} == expected
    assert [type(entry[key]) for key in ("id", "image_id", "category_id")] == [int] * 3


@pytest.mark.parametrize(
    "row",
    [
        (7, 1, (10, 20, 0, 5)),
        (7, 1, (10, 20, -4, -5)),
        (7, 1, (70, 5, 10, 10)),
        (7, 99, (5, 5, 9, 9)),
        (7, None, (5, 5, 9, 9)),
        (7, True, (5, 5, 9, 9)),  # equals 1 in Python, and says nothing
        (7, 1, (5, 5, 9, 9), {"category_id": 4}),
        (7, 1, (5, 5, 9, 9), {"category_id": "none"}),
        (7, 1, (5, 5, 9, 9), {"bbox": ...}),
        (7, 1, (5, 5, 9, 9), {"bbox": ["one", 2, 3, 4]}),
        (7, 1, (5, 5, 9, 9), {"iscrowd": 2}),
        (7, 1, (10, float("nan"), 4, 5)),
        (7, 1, (5, 5, 10, 9.5)),
        (7, 1, (5, 5, 9, 9), {"bbox": ..., "segmentation": [[5, 5, 14, 14]]}),
        "a word",
        None,
        3,
    ],
)
def test_annotations_that_are_left_out(write_coco, mend, row):
    content, changes = mend(*write_coco([GOOD, row]))
    assert [c for c, _ in changes] == ["dropped annotation"]
    assert [entry["id"] for entry in content["annotations"]] == [1]


def test_what_is_right_stays_as_it_is(write_coco, mend):
    rows = [
        (5, 1, (5, 5, 10, 10), {"segmentation": [[1, 2, 3, 4, 5, 6]], "mine": "x"}),
        (9, 1, (0, 0, 60, 40), {"iscrowd": 1}),
        (-3, 1, (5, 5, 10, 10), {"ignore": 1}),
        (8, 1, (20, 20, 10, 10), {"area": 121}),  # both edges counted
    ]
    file, images = write_coco(rows)
    before = json.loads(file.read_text())
    before["info"] = {"year": 2026}
    before["images"][0]["license"] = 3
    file.write_text(json.dumps(before))
    assert mend(file, images) == (before, [])


def test_images(write_coco, mend):
    file, images = write_coco([GOOD, (2, 2, (1, 1, 5, 5)), (3, 5, (1, 1, 5, 5))])
    content = json.loads(file.read_text())
    first, second = content["images"]
    first |= {"height": 60, "width": 40}  # exchanged
    del second["height"]
    content["images"] += [
        first,
        {"id": 8, "height": 5, "width": 5},
        "word",
        {"id": 5, "file_name": "gone.png", "height": 9, "width": 9},
    ]
    file.write_text(json.dumps(content))
    cleaned, changes = mend(file, images)
    assert sorted(changes, key=str) == [
        ("dropped annotation", 3),
        ("dropped image", 5),
        ("dropped image", 8),
        ("dropped image", None),
        ("merged image", 1),
        ("resized image", 1),
        ("resized image", 2),
    ]
    assert [(i["id"], i["height"], i["width"]) for i in cleaned["images"]] == [(1, 40, 60), (2, 50, 30)]


def test_images_of_one_id_are_left_out_with_their_annotations(write_coco, clean_file):
    """Two exports put together: nobody can tell whose the boxes are."""
    file, images = write_coco([GOOD, (2, 1, (20, 5, 9, 9)), (3, 2, (1, 1, 5, 5))])
    content = json.loads(file.read_text())
    content["images"].append({"id": "1", "file_name": "2.png", "height": 50, "width": 30})
    file.write_text(json.dumps(content))
    copy = clean_file(file, images)
    assert [entry["file_name"] for entry in copy.content["images"]] == ["2.png"]
    assert [entry["id"] for entry in copy.content["annotations"]] == [3]
    assert copy.lost("image") == {"ambiguous_id": 2}
    assert copy.lost("annotation") == {"image_left_out": 2}
    assert copy.loses_much


@pytest.mark.parametrize(("count", "bad", "much"), [(10, 1, False), (19, 2, True), (20, 2, False)])
def test_a_tenth_of_the_boxes_may_be_lost(write_coco, clean_file, count, bad, much):
    rows = [(i, 1, (2 * i, 5, 2, 9 * (i > bad))) for i in range(1, count + 1)]
    copy = clean_file(*write_coco(rows))
    assert copy.lost("annotation") == {"empty_box": bad}
    assert copy.loses_much is much
    assert copy.losses == f"0 of 2 images and {bad} of {count} boxes ({bad} empty_box)"


def test_categories_of_one_id_are_left_out_with_their_annotations(write_coco, mend):
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 7, "name": "cow"}, {"name": "no id"}]
    content, changes = mend(*write_coco([GOOD, (2, 1, (20, 5, 9, 9), {"category_id": 7})], categories=categories))
    assert sorted(changes, key=str) == [
        ("dropped annotation", 2),
        ("dropped category", 7),
        ("dropped category", 7),
        ("dropped category", None),
    ]
    assert content["categories"] == [{"id": 3, "name": "cat"}]


def test_names_of_categories(write_coco, mend):
    categories = [{"id": 3}, {"id": 7, "name": 12}, {"id": 7, "name": 12}, {"id": 8, "name": True}]
    content, changes = mend(*write_coco([GOOD], categories=categories))
    assert changes == [
        ("named category", 3),
        *[("named category", 7)] * 2,
        ("named category", 8),
        ("merged category", 7),
    ]
    assert [c["name"] for c in content["categories"]] == ["3", "12", "8"]


def test_ids_that_are_texts(write_coco, mend):
    """Numbers are given in the order of the texts, so that files with the same categories agree."""
    file, images = write_coco([])
    content = {
        "images": [
            {"id": "b/2.png", "file_name": "2.png", "height": 50, "width": 30},
            {"id": "a/1.png", "file_name": "1.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": "e5f", "name": "dog"}, {"id": "0a7", "name": "cat"}],
        "annotations": [
            {"id": "x", "image_id": "a/1.png", "category_id": "0a7", "bbox": [1, 2, 50, 4], "area": 200, "iscrowd": 0},
            {"id": "y", "image_id": 1, "category_id": "0a7", "bbox": [1, 2, 5, 4], "area": 20, "iscrowd": 0},
        ],
    }
    file.write_text(json.dumps(content))
    cleaned, changes = mend(file, images)
    assert [(e["id"], e["original_id"]) for e in cleaned["categories"]] == [(2, "e5f"), (1, "0a7")]
    # An annotation is of an image 1 that the file does not have. It is left out, whoever gets that id.
    assert [(e["id"], e["original_id"], e["file_name"]) for e in cleaned["images"]] == [
        (2, "b/2.png", "2.png"),
        (1, "a/1.png", "1.png"),
    ]
    (entry,) = cleaned["annotations"]
    assert [entry[k] for k in ("id", "original_id", "image_id", "category_id")] == [1, "x", 1, 1]
    assert ("dropped annotation", "y") in changes


def test_a_clipped_box_may_be_that_of_another_annotation(write_coco, mend):
    content, changes = mend(*write_coco([(1, 1, (40, 10, 20, 20)), (2, 1, (40, 10, 60, 20))]))
    assert changes == [("clipped box", 2), ("dropped annotation", 2)]
    assert [entry["id"] for entry in content["annotations"]] == [1]


def test_corners_become_sizes_on_the_evidence_of_the_whole_file(write_coco, mend):
    """One box that cannot be corners shows that none are, in an image that is left out too."""
    rows = [(i, 1, (20 + i, 10 + i, 40 + i, 28 + i), {"area": 360}) for i in range(1, 13)]
    content, changes = mend(*write_coco(rows))
    assert {what for what, _ in changes} == {"corners to sizes"}
    assert content["annotations"][0]["bbox"] == [21, 11, 20, 18]

    file, images = write_coco([*rows, (20, 2, (10, 10, 5, 5))])
    (images / "2.png").unlink()
    content, changes = mend(file, images)
    assert {what for what, _ in changes} == {"clipped box", "dropped image", "dropped annotation"}
    assert content["annotations"][0]["bbox"] == [21, 11, 39, 29]


def test_a_picture_that_exif_turns_keeps_the_size_that_it_was_labelled_with(write_coco, mend):
    file, images = write_coco([(1, 1, (5, 5, 20, 10))], images={1: (60, 40)})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(images / "1.png", exif=exif)
    content, changes = mend(file, images)
    assert changes == []
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (60, 40)


def test_runs_of_another_size_than_the_file_make_no_box(write_coco, clean_file):
    """The entry and the mask agree, but the file is 60 wide and 40 high: the runs would be cut at the wrong height."""
    runs = {"size": [60, 40], "counts": [0, 4, 56, 4, 2336]}
    file, images = write_coco([GOOD, (2, 1, (0, 0, 2, 4), {"bbox": None, "segmentation": runs})])
    content = json.loads(file.read_text())
    content["images"][0] |= {"height": 60, "width": 40}
    file.write_text(json.dumps(content))
    copy = clean_file(file, images)
    assert [entry["id"] for entry in copy.content["annotations"]] == [1]


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
            (8, 2, (5, 5, 10, 10), {"ignore": 1}),
        ]
    )
    found = repeated_boxes(read_annotations(file))
    assert [(p.position, p.annotation_id, p.what.split()[-2]) for p in found] == [
        (1, 2, "1"),
        (2, 3, "2"),
        (6, 7, "5"),
    ]


def test_repeated_boxes_among_many(write_coco):
    """More than one block of rows: a box repeats one of its own block, of an earlier one, and a repetition."""
    boxes = [(10 * i, 0, 5, 5) for i in range(600)]
    for later, first in ((100, 3), (300, 290), (599, 3), (598, 257)):
        boxes[later] = boxes[first]
    file, _ = write_coco([(i + 1, 1, box) for i, box in enumerate(boxes)])
    found = {p.position: p.what.split()[-2] for p in repeated_boxes(read_annotations(file))}
    assert found == {100: "4", 300: "291", 598: "258", 599: "4"}


def test_repeated_boxes_of_none(write_coco):
    file, _ = write_coco([])
    assert repeated_boxes(read_annotations(file)) == []
    assert np.array_equal(read_annotations(file).ids, [])
