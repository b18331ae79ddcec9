"""What the doctor finds, and the copies that follow from it, without a command line."""

import json

import pytest

from detector.config.defaults import default
from detector.config.schema import InspectConfig
from detector.data.coco import CocoDataset
from detector.exceptions import ConfigError
from detector.inspection.advice import advice
from detector.inspection.cleaned_copy import clean
from detector.inspection.doctor import examine, splits_of


@pytest.fixture
def look(tmp_path):
    """look(key=value of the data, ...) -> configuration and examination of the files of ``write_coco``."""

    def looked(**data):
        config = default(InspectConfig)
        files = {"name": "coco", "root": str(tmp_path), "train_images": "images", "val_images": "images"}
        for key, value in {**files, "train_annotations": "train.json", "val_annotations": "val.json", **data}.items():
            setattr(config.data, key, value)
        return config, examine(config, splits_of(config.data))

    return looked


def test_marks_and_classes_without_a_box(look, write_coco):
    categories = [{"id": 0, "name": "_background_"}, {"id": 3, "name": "cat"}, {"id": 4, "name": "a b"}]
    rows = [(1, 1, (5, 5, 10, 10)), (2, 1, (20, 5, 9, 9), {"ignore": 1}), (3, 1, (30, 5, 9, 9), {"ignore": 0})]
    write_coco([*rows, (0, 2, (5, 5, 9, 9), {"area": 0})], categories=categories, name="train.json")
    write_coco([(1, 8, (5, 5, 10, 10))], images={8: (40, 60)}, categories=categories, name="val.json")
    _, found = look()
    train = found.splits[0].to_dict(found.class_names)
    assert (train["boxes"], train["crowds"], train["ignored"]) == (3, 0, 1)
    assert [(p["kind"], p["annotation_id"]) for p in train["problems"]] == [("odd_area", None), ("zero_id", 0)]
    assert "annotation 0" in train["problems"][0]["what"]
    said = " ".join(advice(found))
    assert "Marked ignore in train: 1 annotation." in said
    assert """'data.drop_categories=['"'"'_background_'"'"','"'"'a b'"'"']'""" in said

    _, found = look(drop_categories=["_background_", "a b"])
    assert found.class_names == ["cat"]
    assert "class _background_ with 0 annotations, class a b with 0 annotations" in " ".join(advice(found))
    with pytest.raises(
        ConfigError, match=r"data.drop_categories: .*train.json has no class 'background'; .*'_background_'"
    ):
        look(drop_categories=["background"])


def test_images_whose_ids_are_texts_are_looked_at_once_they_can_be_read(look, write_coco, tmp_path):
    """Damage, wrong sizes and images shared with validation are found behind ids that the reader does not take."""
    write_coco([], images=dict.fromkeys(range(1, 13), (40, 60)), name="train.json")
    content = json.loads((tmp_path / "train.json").read_text())
    for entry in content["images"]:
        entry["id"] = f"u{entry['id']}"
    content["annotations"] = [
        {"id": i, "image_id": f"u{i}", "category_id": 3, "bbox": [i, 5, 9, 9], "area": 81, "iscrowd": 0}
        for i in range(1, 13)
    ]
    content["images"][1]["height"] = 41
    (tmp_path / "train.json").write_text(json.dumps(content))
    write_coco([(1, 40, (5, 5, 10, 10))], images={40: (40, 60)}, name="val.json")
    images = tmp_path / "images"
    (images / "40.png").write_bytes((images / "1.png").read_bytes())
    (images / "3.png").write_bytes(b"")
    config, found = look()
    (copy,) = clean(found, [0], config, lambda share: None)
    assert copy.lost("image") == {"damaged_file": 1, "shared_image": 1, "wrong_size": 1}
    (tmp_path / "train.json").write_text(json.dumps(copy.content))
    cleaned = CocoDataset(tmp_path / "train.json", images)
    assert cleaned.table.file_names.tolist() == [f"{i}.png" for i in range(4, 13)]
    assert [cleaned[i][1]["boxes"][0, 0].item() for i in range(9)] == list(range(4, 13))
    texts = sorted(f"u{i}" for i in range(1, 13))
    new = {c["before"]: c["after"] for c in copy.changes if c["what"] == "new id"}
    assert new == {text: number for number, text in enumerate(texts, 1)}
    _, again = look()
    assert clean(again, [0], config, lambda share: None)[0].changes == []
