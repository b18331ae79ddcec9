"""Everything that can be wrong with a data set, and what the user is told."""

import json
import math

import pytest

from detector.data.coco import CocoDataset
from detector.exceptions import DataError

GOOD = (1, 1, (5, 5, 10, 10))

# A bad annotation (image 1 is 60 pixels wide and 40 high), its kind, and words of its line.
BAD = {
    "no width": (
        (7, 1, (10, 20, 0, 5)),
        "empty_box",
        "annotation 7, image 1 (1.png), box [10, 20, 0, 5]: the box has no area",
    ),
    "no height": ((7, 1, (10, 20, 5, 0.001)), "empty_box", "box [10, 20, 5, 0.001]: the box has no area"),
    "negative size": ((7, 1, (10, 20, -4, -5)), "empty_box", "box [10, 20, -4, -5]: the box has no area"),
    "nan": ((7, 1, (10, math.nan, 4, 5)), "bad_box", "box [10, nan, 4, 5]: the box is not four finite numbers"),
    "infinite": ((7, 1, (10, 5, math.inf, 5)), "bad_box", "box [10, 5, inf, 5]: the box is not four finite numbers"),
    "huge": ((7, 1, (10, 5, 10**400, 5), {"area": 1}), "bad_box", "not four finite numbers"),
    "three numbers": (
        (7, 1, (5, 5, 9, 9), {"bbox": [1, 2, 3]}),
        "bad_box",
        "box [1, 2, 3]: the box is not four finite",
    ),
    "words": (
        (7, 1, (5, 5, 9, 9), {"bbox": ["1", "2", "3", "4"]}),
        "bad_box",
        "box ['1', '2', '3', '4']: the box is not four",
    ),
    "crowd as text": ((7, 1, (5, 5, 9, 9), {"iscrowd": "0"}), "bad_iscrowd", "iscrowd is '0', not 0 or 1"),
    "no known mark": ((7, 1, (5, 5, 9, 9), {"ignore": "perhaps"}), "bad_ignore", 'ignore is "perhaps", not 0 or 1'),
    "a mark of 2": ((7, 1, (5, 5, 9, 9), {"ignore": 2}), "bad_ignore", "ignore is 2, not 0 or 1"),
    "a list as mark": ((7, 1, (5, 5, 9, 9), {"ignore": []}), "bad_ignore", "ignore is [], not 0 or 1"),
    "no box": ((7, 1, (5, 5, 9, 9), {"bbox": ...}), "bad_box", "annotation 7, image 1 (1.png)"),
    "outside": (
        (7, 1, (70, 5, 10, 10)),
        "outside_image",
        "annotation 7, image 1 (1.png), box [70, 5, 10, 10]: the box is outside its image of 60 x 40 pixels",
    ),
    "beside the border": ((7, 1, (60, 5, 0.5, 10)), "outside_image", "the box is outside its image"),
    "leaves": (
        (7, 1, (55, 30, 10, 15)),
        "leaves_image",
        "annotation 7, image 1 (1.png), box [55, 30, 10, 15]: the box leaves its image of 60 x 40 pixels",
    ),
    "negative corner": ((7, 1, (-3, 5, 10, 10)), "leaves_image", "box [-3, 5, 10, 10]: the box leaves its image"),
    "no such image": (
        (7, 99, (5, 5, 9, 9)),
        "unknown_image",
        "annotation 7, image 99, box [5, 5, 9, 9]: there is no image with the id 99",
    ),
    "no such category": (
        (7, 1, (5, 5, 9, 9), {"category_id": 4}),
        "unknown_category",
        "annotation 7, image 1 (1.png), box [5, 5, 9, 9]: there is no category with the id 4",
    ),
    "id used twice": (
        (1, 1, (5, 5, 9, 9)),
        "duplicate_id",
        "annotation 1, image 1 (1.png), box [5, 5, 9, 9]: an annotation before it has the same id",
    ),
    "no id": ((7, 1, (5, 5, 9, 9), {"id": ...}), "bad_annotation", "annotations[1] has no integer 'id'"),
    "image id in quotes": (
        (7, 1, (5, 5, 9, 9), {"image_id": "1"}),
        "bad_annotation",
        "annotations[1] has no integer 'image_id'",
    ),
    "id beyond 64 bits": ((2**63, 1, (5, 5, 9, 9)), "bad_annotation", "annotations[1] has no integer 'id'"),
    "no object": (None, "bad_annotation", "annotations[1] has no integer 'id' and 'image_id' and 'category_id'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_annotation_is_named(write_coco, name):
    bad, _, words = BAD[name]
    file, folder = write_coco([GOOD, bad])
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)
    message = str(caught.value)
    assert f"{file}: 1 problem:" in message
    assert words in message
    assert "on_invalid=drop to leave out 1 annotation" in message


@pytest.mark.parametrize("on_invalid", ["drop", "clip"])
@pytest.mark.parametrize("name", BAD)
def test_bad_annotation_is_dropped_or_clipped(write_coco, name, on_invalid):
    bad, kind, _ = BAD[name]
    dataset = CocoDataset(*write_coco([GOOD, bad]), on_invalid=on_invalid)
    (problem,) = dataset.problems
    assert problem.kind == kind
    kept = dataset[0][1]["boxes"].tolist()
    if on_invalid == "clip" and kind == "leaves_image":
        assert problem.action == "clipped"
        x, y, w, h = bad[2]
        assert kept[1:] == [[max(x, 0), max(y, 0), min(x + w, 60), min(y + h, 40)]]
    else:
        assert problem.action == "dropped"
        assert kept == [[5, 5, 15, 15]]


def test_clipped_box_keeps_its_share_of_the_area(write_coco):
    dataset = CocoDataset(*write_coco([(1, 1, (50, 10, 20, 10), {"area": 120})]), on_invalid="clip")
    assert dataset[0][1]["area"].tolist() == [60]  # half of the box is left


def test_message_lists_twenty_problems_in_the_order_of_the_file_and_counts_all(write_coco):
    rows = [(i, 1, (5, 5, 0, 5) if i % 2 else (50, 5, 30, 5)) for i in range(1, 31)]
    rows += [(i, 99, (5, 5, 5, 5)) for i in range(31, 34)]
    with pytest.raises(DataError) as caught:
        CocoDataset(*write_coco(rows))
    message = str(caught.value)
    assert "33 problems" in message
    assert "and 13 more" in message
    positions = [message.index(f"annotation {i}, image 1") for i in range(1, 21)]
    assert positions == sorted(positions)
    assert "annotation 21," not in message
    assert "on_invalid=drop to leave out 33 annotations" in message
    assert "on_invalid=clip to clip 15 boxes to the image and leave out 18 annotations" in message


def test_missing_image_files(write_coco):
    file, folder = write_coco([GOOD, (2, 2, (1, 1, 5, 5), {"category_id": 7})])
    (folder / "1.png").unlink()
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)
    assert f"image 1 (1.png): there is no file {folder / '1.png'}" in str(caught.value)
    assert "on_invalid=drop to leave out 1 image and its annotations." in str(caught.value)
    dataset = CocoDataset(file, folder, on_invalid="drop")
    assert dataset.image_ids == [2]
    assert dataset[0][1]["boxes"].tolist() == [[1, 1, 6, 6]]
    assert dataset[0][1]["labels"].tolist() == [2]
    assert [(p.kind, p.action, p.file) for p in dataset.problems] == [("missing_file", "dropped", "1.png")]


def test_missing_image_files_leave_the_others_annotations_alone(write_coco):
    rows = [(10 * image + k, image, (image, k, 5, 5)) for k in range(3) for image in (1, 2, 3, 4)]
    file, folder = write_coco(rows, images=dict.fromkeys((1, 2, 3, 4), (40, 40)))
    (folder / "2.png").unlink()
    dataset = CocoDataset(file, folder, on_invalid="drop")
    assert dataset.image_ids == [1, 3, 4]
    for index, image in enumerate(dataset.image_ids):
        assert dataset[index][1]["boxes"][:, :2].tolist() == [[image, 0], [image, 1], [image, 2]]


def test_missing_annotation_file_lists_the_ones_there_are(write_coco):
    file, folder = write_coco()
    with pytest.raises(DataError) as caught:
        CocoDataset(file.parent / "valid.json", folder)
    assert f"{file.parent / 'valid.json'}: there is no such file (COCO annotations expected)" in str(caught.value)
    assert "train.json" in str(caught.value)


def test_a_folder_for_a_file(write_coco):
    file, folder = write_coco()
    with pytest.raises(DataError, match=r"this is a folder, and a file has to be given .*JSON files in .*train\.json"):
        CocoDataset(file.parent, folder)


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere either"):
        CocoDataset(tmp_path / "nowhere" / "train.json", tmp_path)


def test_missing_image_folder(write_coco):
    file, folder = write_coco()
    with pytest.raises(DataError, match=r"no image folder .*photos, which the file names in .*train.json"):
        CocoDataset(file, folder.parent / "photos")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [', "not valid JSON, line 1, column 13: Expecting value"),
        ("", "the file is empty"),
        ("[" * 100_000, "nesting or numbers too long"),
        ("[]", "it looks like a results file"),
        ("3", "COCO annotations are an object with 'images', 'annotations' and 'categories', found 3"),
        ('{"images": [], "annotations": {}, "categories": []}', "'annotations' is {}, but COCO annotations need"),
        ('{"images": [], "annotations": []}', "there is no 'categories', but COCO"),
        ('{"images": [], "annotations": [], "categories": []}', "the list 'images' is empty"),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 1, "width": 1}], "annotations": [], "categories": []}',
            "the list 'categories' is empty",
        ),
    ],
)
def test_file_that_is_no_annotation_file(tmp_path, text, words):
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        CocoDataset(file, tmp_path)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_file_that_is_no_text(tmp_path):
    file = tmp_path / "train.json"
    file.write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    with pytest.raises(DataError, match=r"train.json: COCO annotations must be JSON text in UTF-8"):
        CocoDataset(file, tmp_path)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": 1, "file_name": "b.png", "height": 5, "width": 5}, "image 1 (b.png): images[1] has the id of 1.png"),
        ({"id": "2", "file_name": "b.png", "height": 5, "width": 5}, "images[1] has no integer 'id' or no 'file_name'"),
        ({"id": 2, "height": 5, "width": 5}, "images[1] has no integer 'id' or no 'file_name'"),
        (
            {"id": 2, "file_name": "b.png"},
            "image 2 (b.png): 'height' and 'width' must be whole numbers above 0, but are None",
        ),
        ({"id": 2, "file_name": "b.png", "height": 0, "width": 5}, "but are 0 and 5"),
    ],
)
def test_bad_image_entry_is_never_dropped(write_coco, entry, words):
    file, folder = write_coco(images={1: (40, 60)})
    content = json.loads(file.read_text())
    content["images"].append(entry)
    file.write_text(json.dumps(content))
    for on_invalid in ("error", "drop", "clip"):
        with pytest.raises(DataError) as caught:
            CocoDataset(file, folder, on_invalid=on_invalid)
        assert words in str(caught.value)
        assert "Correct the file" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": 3, "name": "dog"}, "categories[1] (dog) has the id 3, which cat has already"),
        ({"id": 4, "name": 7}, "categories[1] has no integer 'id', or its 'name' is no text"),
        ({"name": "dog"}, "categories[1] has no integer 'id', or its 'name' is no text"),
    ],
)
def test_bad_category_entry(write_coco, entry, words):
    with pytest.raises(DataError) as caught:
        CocoDataset(*write_coco(categories=[{"id": 3, "name": "cat"}, entry]))
    assert words in str(caught.value)


def test_category_without_a_name_is_called_by_its_id(write_coco):
    assert CocoDataset(*write_coco(categories=[{"id": 4}])).class_names == ["4"]


def test_size_that_is_not_the_images(write_coco):
    file, folder = write_coco([GOOD])
    content = json.loads(file.read_text())
    content["images"][0] |= {"height": 41, "width": 61}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)[0]
    for words in (str(folder / "1.png"), "60 x 40 pixels", f"{file} says 61 x 41"):
        assert words in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_image_that_cannot_be_read(write_coco, damage):
    file, folder = write_coco([GOOD])
    path = folder / "1.png"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not an image"}[damage])
    with pytest.raises(DataError, match=r"cannot read the image .*1.png"):
        CocoDataset(file, folder)[0]
