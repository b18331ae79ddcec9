import math

import numpy as np
import pytest
import torch

from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.scoring import evaluate
from detector.exceptions import DataError

FOUND = Detections([12, 5], [3, 7], [[10, 10, 40, 40], [0, 0, 100, 120]], [0.5, 0.5])


def test_attributes(write_json, truth_content):
    truth = GroundTruth(write_json("gt.json", truth_content))
    assert (truth.image_ids, truth.category_ids, truth.class_names) == ([5, 12], [3, 7], ["cat", "dog"])
    assert truth.notes == []
    assert truth.ids.tolist() == [2, 1, 3]
    assert truth.image.tolist() == [0, 1, 1]
    assert truth.label.tolist() == [1, 0, 1]
    assert truth.boxes_xywh[0].tolist() == [0, 0, 100, 120]
    assert truth.area.tolist() == [12000, 1600, 2500]
    assert truth.iscrowd.tolist() == [False, False, True]
    assert truth.ids[truth.rows([12])].tolist() == [1, 3]


def test_images_are_sorted_with_their_names_and_sizes(write_json, truth_content):
    truth_content["images"] = [{"id": 12, "file_name": "b.jpg", "height": 4, "width": 3}, {"id": 5}]
    truth = GroundTruth(write_json("gt.json", truth_content))
    assert truth.image_ids == [5, 12]
    assert truth.file_names.tolist() == ["", "b.jpg"]
    assert truth.sizes.tolist() == [[0, 0], [4, 3]]


def test_missing_area_and_iscrowd_have_a_stated_treatment(write_json, truth_content):
    complete = evaluate(write_json("complete.json", truth_content), FOUND)
    for annotation in truth_content["annotations"][:2]:  # their area is width times height
        del annotation["area"], annotation["iscrowd"]
    truth = GroundTruth(write_json("gt.json", truth_content))
    area, crowd = truth.notes
    assert area.startswith(
        "Annotations without an area (missing, negative or no number): 2; width times height of the box"
    )
    assert area.endswith("annotation ids 1, 2.")
    assert crowd == "Annotations without iscrowd: 2; they count as single objects."
    assert evaluate(truth, FOUND).metrics == complete.metrics
    assert evaluate(truth, FOUND).notes[-2:] == truth.notes


def test_area_decides_the_size_of_an_object(write_json, truth_content):
    truth_content["annotations"][0]["area"] = 900  # of the mask; the box is 40 x 40
    result = evaluate(write_json("gt.json", truth_content), FOUND)
    assert result.metrics["APs"] == pytest.approx(1.0)
    assert result.metrics["APm"] is None


@pytest.mark.parametrize(
    ("area", "words"),
    [(0, "with the area 0: 1"), (1682, "with an area larger than the box: 1"), (-5, "without an area"), (1681, "")],
)
def test_areas_that_cannot_be_right_are_said(write_json, truth_content, area, words):
    """The box is 40 x 40; 41 x 41 may be an area that counts both edges."""
    truth_content["annotations"][0]["area"] = area
    notes = GroundTruth(write_json("gt.json", truth_content)).notes
    assert len(notes) == bool(words)
    for note in notes:
        assert words in note
        assert note.endswith("annotation ids 1.")


def test_annotations_marked_ignore_count_and_are_said(write_json, truth_content):
    before = evaluate(write_json("before.json", truth_content), FOUND)
    truth_content["annotations"][0]["ignore"] = 1
    truth_content["annotations"][2]["ignore"] = 1  # a crowd
    truth = GroundTruth(write_json("gt.json", truth_content))
    (note,) = truth.notes
    assert note.startswith("Annotations marked ignore: 1;")
    assert "pycocotools" in note
    assert evaluate(truth, FOUND).metrics == before.metrics


def test_classes_are_left_out_by_name(write_json, truth_content):
    """With their detections; what is left is scored as if they had never been there."""
    truth = GroundTruth(write_json("gt.json", truth_content), drop_categories=["dog", "yak"])
    assert (truth.category_ids, truth.ids.tolist(), truth.dropped) == ([3], [1], {"dog": 2})
    assert truth.notes == ["Not scored (drop_categories): class dog with 2 annotations."]
    entries = [
        {"image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.5},
        {"image_id": 5, "category_id": 7, "bbox": [0, 0, 9, 9], "score": 0.5},
    ]
    found = truth.read_detections(write_json("dt.json", entries))
    assert found.category_id.tolist() == [3]
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(1.0)
    with pytest.raises(DataError, match="category 8 is not in the annotation file"):
        truth.read_detections(write_json("other.json", [{**entries[0], "category_id": 8}]))


def test_what_pycocotools_ignores_is_said(write_json, truth_content):
    stray = {"area": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
    before = evaluate(write_json("before.json", truth_content), FOUND)
    truth_content["annotations"] += [
        {"id": 8, "image_id": 77, "category_id": 3, **stray},
        {"id": 9, "image_id": 5, "category_id": 77, **stray},
    ]
    truth = GroundTruth(write_json("gt.json", truth_content))
    assert truth.notes == [
        "Annotations of an image or a category that the file does not list: 2; not counted, as in "
        "pycocotools; ids 8, 9."
    ]
    assert evaluate(truth, FOUND).metrics == before.metrics


@pytest.mark.parametrize("bbox", [[5, 5, 0, 10], [5, 5, 10, -1]])
def test_boxes_without_area_count_as_missed(write_json, truth_content, bbox):
    truth_content["annotations"][0]["bbox"] = bbox
    truth = GroundTruth(write_json("gt.json", truth_content))
    assert truth.notes == [
        "Boxes without a positive width and height: 1; nothing can match them, they count as missed; annotation ids 1."
    ]
    found = Detections([12, 5], [3, 7], [[5, 5, 0, 10], [0, 0, 100, 120]], [0.5, 0.5])
    cat, dog = evaluate(truth, found).per_class
    assert (cat.AP, cat.boxes) == (0.0, 1)
    assert pytest.approx(1.0) == dog.AP


@pytest.mark.parametrize("evaluator", ["builtin", "pycocotools"])
def test_annotation_id_0_is_scored_as_any_other_and_pointed_out(write_json, truth_content, evaluator):
    before = evaluate(write_json("before.json", truth_content), FOUND)
    truth_content["annotations"][0]["id"] = 0
    result = evaluate(write_json("gt.json", truth_content), FOUND, evaluator=evaluator)
    assert result.metrics == before.metrics
    assert pytest.approx(1.0) == result.per_class[0].AP
    assert any(note.startswith("An annotation has the id 0") and "pycocotools" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": None}, "annotation 1, image 12, box 'missing': the box is not four finite numbers"),
        (
            {"bbox": [0, 0, math.nan, 1]},
            "annotation 1, image 12, box [0, 0, nan, 1]: the box is not four finite numbers",
        ),
        ({"bbox": [0, 0, 1]}, "annotation 1, image 12, box [0, 0, 1]: the box is not four finite numbers"),
        ({"image_id": "12"}, 'annotation 1: annotations[0] has no integer \'image_id\': {"id": 1, "image_id": "12", '),
        ({"category_id": None}, "annotation 1, image 12: annotations[0] has no integer 'category_id': {\"id\": 1, "),
        ({"id": "a"}, 'image 12: annotations[0] has no integer \'id\': {"id": "a", '),
        ({"iscrowd": "no"}, "annotation 1, image 12, box [10, 10, 40, 40]: iscrowd is 'no', not 0 or 1"),
        ({"id": 2}, "annotation 2, image 5, box [0, 0, 100, 120]: an annotation before it has the same id"),
    ],
)
def test_unreadable_annotations_are_listed_or_left_out(write_json, truth_content, change, message):
    truth_content["annotations"][0].update(change)
    path = write_json("gt.json", truth_content)
    with pytest.raises(DataError) as caught:
        GroundTruth(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 1 of 3 annotations cannot be evaluated"
    assert lines[1].startswith(f"  {message}")
    assert lines[2].startswith("Correct or remove them")

    truth = GroundTruth(path, drop_invalid=True)
    assert truth.notes[0].startswith(f"Annotations left out because they cannot be read: 1; {message}")
    assert len(truth.ids) == 2
    assert evaluate(truth, Detections.empty()).boxes == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [],
            "COCO annotations are an object with 'images', 'annotations' and 'categories', found []; it looks like a "
            "results file: are the two files swapped?",
        ),
        ("7", "COCO annotations are an object with 'images', 'annotations' and 'categories', found 7"),
        ("", "the file is empty; COCO annotations expected"),
        ("{", "not valid JSON, line 1, column 2"),
        ({"images": [], "annotations": []}, "there is no 'categories', but COCO annotations need a list of categories"),
        (
            {"images": {}, "annotations": [], "categories": []},
            "'images' is {}, but COCO annotations need a list of images",
        ),
        (
            {"images": [{"file_name": "a.jpg"}], "annotations": [], "categories": []},
            '1 problem:\n  images[0] has no integer \'id\': {"file_name": "a.jpg"}',
        ),
        ({"images": [], "annotations": [], "categories": ["cat"]}, "1 problem:\n  categories[0] has no integer 'id'"),
        (
            {"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": []},
            "1 problem:\n  image 1: images[1] has the id of an image before it",
        ),
    ],
)
def test_files_of_another_kind(write_json, content, message):
    path = write_json("gt.json", content)
    with pytest.raises(DataError) as caught:
        GroundTruth(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_category_without_a_name_is_called_by_its_id(write_json, truth_content):
    del truth_content["categories"][0]["name"]
    assert GroundTruth(write_json("gt.json", truth_content)).class_names == ["cat", "7"]


def test_categories_of_one_name_are_told_apart(write_json, truth_content):
    """Tables and files go by names; one without any goes by its id."""
    truth_content["categories"] += [{"id": 9, "name": "cat"}, {"id": 11, "name": " "}]
    truth = GroundTruth(write_json("gt.json", truth_content))
    assert truth.class_names == ["cat (3)", "dog", "cat (9)", "11"]


@pytest.mark.parametrize(
    ("escape", "good"),
    [
        (r"\ud83d\ude00", True),
        (r"\uD83D\uDE00\ud83d\ude00", True),
        (r"images\\udder", True),
        (r"\ud800", False),
        (r"\ude00", False),
        (r"\ud83d\ude00\ude00", False),
        (r"\\\udc00", False),
    ],
)
def test_half_a_character_is_no_text(tmp_path, escape, good):
    """JSON can write one, but it cannot go to a file again: a message instead of a traceback at the end."""
    path = tmp_path / "gt.json"
    path.write_text('{"images": [], "annotations": [],\n "categories": [{"id": 1, "name": "' + escape + '"}]}')
    if good:
        assert GroundTruth(path).class_names[0].encode()
        return
    with pytest.raises(DataError, match="in line 2 is one half of a character"):
        GroundTruth(path)


def test_targets_are_the_ground_truth_that_a_file_with_them_is(write_json):
    """Ids not in order, an image without a box, a crowd, and an area that is not the box's."""
    boxes = torch.tensor([[2.0, 3.0, 12.5, 9.0], [0.0, 0.0, 4.0, 4.0]])
    targets = {
        9: {"boxes": boxes, "labels": torch.tensor([2, 1]), "iscrowd": torch.tensor([0, 1])},
        4: {"boxes": boxes[:1], "labels": torch.tensor([1]), "area": torch.tensor([5.0])},
        7: {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    }
    found = GroundTruth.from_targets(targets, dict.fromkeys(targets, (20, 30)), ["ant", "bee"], [3, 8])
    row = lambda number, image, category, box, area, crowd: {
        "id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd
    }  # fmt: skip
    wide, square = [2.0, 3.0, 10.5, 6.0], [0.0, 0.0, 4.0, 4.0]
    rows = [row(1, 9, 8, wide, 63.0, 0), row(2, 9, 3, square, 16.0, 1), row(3, 4, 3, wide, 5.0, 0)]
    categories = [{"id": 3, "name": "ant"}, {"id": 8, "name": "bee"}]
    images = [{"id": i, "height": 20, "width": 30} for i in targets]
    expected = GroundTruth(write_json("t.json", {"images": images, "annotations": rows, "categories": categories}))
    for name in ("image_ids", "category_ids", "class_names", "notes"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("sizes", "ids", "image", "label", "boxes_xywh", "area", "iscrowd"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_targets_that_are_not_finite():
    target = {"boxes": torch.tensor([[0.0, 0.0, float("nan"), 1.0]]), "labels": torch.tensor([1])}
    with pytest.raises(DataError, match="targets: 1 of 1 annotations cannot be evaluated"):
        GroundTruth.from_targets({1: target}, {1: (4, 4)}, ["a"], [1])
