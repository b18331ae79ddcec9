"""``scripts/inspect_data.py`` as a user runs it."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import CocoDataset

COMMON = ("data=coco", "data.root=.", "model=c4", "output_dir=out")


@pytest.fixture
def data(write_coco, tmp_path):
    """A training set of two images, one of which the validation set of two has as well."""
    write_coco([(1, 1, (5, 5, 10, 10)), (2, 2, (5, 5, 20, 20), {"category_id": 7})], name="train.json")
    write_coco([(1, 8, (5, 5, 10, 10))], images={8: (40, 60), 9: (30, 30)}, name="val.json")
    (tmp_path / "images" / "8.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    return tmp_path


def test_what_is_in_the_data(call_script, data):
    code, out, err = call_script("inspect_data", *COMMON)
    assert (code, err) == (0, "")
    assert "Training and validation share images: 1 training image is in validation too, such as 1.png as 8.png." in out
    assert "Classes without a box in validation, which have no AP: dog." in out
    assert out.splitlines()[-1] == "Results are in out: augmentation.png, data.json, data.png"
    content = json.loads((data / "out" / "data.json").read_text())
    train, val = content["splits"]["train"], content["splits"]["val"]
    assert train["classes"] == {"cat": 1, "dog": 1}
    assert val["classes"] == {"cat": 1, "dog": 0}
    assert (train["boxes_per_image"], val["boxes_per_image"], val["empty_images"]) == ([0, 2], [1, 1], 1)
    assert train["problems"] == val["problems"] == []
    assert content["same_images"] == [{"first": ["train", "1.png"], "second": ["val", "8.png"], "same_file": True}]
    # 40 x 60 becomes 800 x 1200 and 50 x 30 1333 x 800: sides 200 and 533.
    assert content["train_side"]["0.01"] == pytest.approx(200 + 0.01 * (20 * 80 / 3 - 200), rel=1e-3)
    assert content["train_height_by_width"]["0.5"] == pytest.approx(1.0, abs=1e-3)  # 799.8 pixels are 799
    printed = out[out.index("python ") :].replace("\\\n", " ").splitlines()[0]
    arguments = content["recipe"]["arguments"]
    assert shlex.split(printed)[-len(arguments) - 1 :] == ["train", *arguments]
    assert {"experiment=finetune_small", "model.name=c4"} <= {*arguments}
    for name in ("data.png", "augmentation.png"):
        assert np.asarray(Image.open(data / "out" / name)).std() > 0
    given = "optim.lr=0.0002"  # what data=coco says, too
    assert given not in arguments
    assert call_script("inspect_data", *COMMON, "sheet_images=0", given)[0] == 0
    assert given in json.loads((data / "out" / "data.json").read_text())["recipe"]["arguments"]
    assert sorted(path.name for path in (data / "out").iterdir()) == ["data.json", "data.png"]


def test_cleaned_copies_are_clean(call_script, data):
    content = json.loads((data / "train.json").read_text())
    content["images"] += [
        {"id": 3, "file_name": "gone.png", "height": 5, "width": 5},
        {"id": 4, "file_name": "cut.png", "height": 40, "width": 60},
        {"id": 5, "file_name": "9.png", "height": 31, "width": 30},
        {"id": 6, "file_name": "2.png"},
    ]
    cut = (data / "images" / "2.png").read_bytes()
    (data / "images" / "cut.png").write_bytes(cut[: len(cut) // 2])
    row = {"image_id": 2, "category_id": 3, "area": 1, "iscrowd": 0}
    content["annotations"] += [
        {**row, "id": 2, "bbox": [25, 1, 10, 10]},
        {**row, "id": 8, "bbox": [1, 1, 0, 5]},
        {**row, "id": 9, "image_id": 4, "bbox": [1, 1, 5, 5]},
        {**row, "id": "10", "bbox": [1, 40, 5, 5]},
        {**row, "id": 11, "bbox": [float("nan"), 1, 5, 5]},
    ]
    (data / "train.json").write_text(json.dumps(content))
    advice = " ".join(call_script("inspect_data", *COMMON)[1].split())
    assert "fix=OUT.json writes a cleaned copy" in advice
    assert "fix=OUT.json writes a training file without them" in advice
    code, out, err = call_script("inspect_data", *COMMON, "fix=clean.json", "fix_val=val_clean.json", "force=true")
    assert (code, err) == (0, "")
    assert "Training and validation share images" in out
    assert "=OUT.json" not in out  # the copies are there, and not advised
    listed = json.loads((data / "out" / "data.json").read_text())["splits"]["train"]["problems"]
    kinds = [p["kind"] for p in listed]
    assert sorted(kinds) == sorted(
        [
            "bad_image",
            "missing_file",
            "damaged_file",
            "wrong_size",
            "duplicate_id",
            "empty_box",
            "bad_annotation",
            "bad_box",
        ]
    )
    empty = listed[kinds.index("empty_box")]
    assert (empty["file"], empty["annotation_id"], empty["box"]) == ("2.png", 8, [1, 1, 0, 5])
    assert "annotation 8, image 2 (2.png), box [1, 1, 0, 5]: the box has no area" in out
    # What train and val share is gone from train, as are the images that cannot be read; 6 has the size of its file.
    cleaned = CocoDataset(data / "clean.json", data / "images")
    assert cleaned.problems == []
    assert cleaned.image_ids == [2, 6]
    assert cleaned.table.annotation_ids.tolist() == [2, 12, 10]
    log = json.loads((data / "clean-changes.json").read_text())
    assert sorted(c["what"] for c in log) == sorted(
        ["number", *["dropped image"] * 4, "resized image", "new id", "clipped box", *["dropped annotation"] * 4]
    )
    assert json.loads((data / "val_clean.json").read_text()) == json.loads((data / "val.json").read_text())
    code, out, _ = call_script("inspect_data", *COMMON[:3], "output_dir=again", "data.train_annotations=clean.json")
    assert code == 0
    assert "problems in" not in out
    assert "share images" not in out
    # The copies are not replaced without being asked.
    code, _, err = call_script("inspect_data", *COMMON, "fix=clean.json")
    assert (code, "there is such a file already" in err) == (2, True)
    arguments = ("fix=clean.json", "overwrite=true", "open_images=false", "force=true")
    assert call_script("inspect_data", *COMMON, *arguments)[0] == 0


def test_a_copy_that_would_lose_much_is_not_written_without_being_asked(call_script, write_coco, tmp_path):
    write_coco([(1, 1, (5, 5, 10, 10)), (2, 2, (5, 5, 10, 0)), (3, 9, (1, 1, 5, 5))], name="train.json")
    write_coco([(1, 8, (5, 5, 10, 10))], images={8: (40, 60)}, name="val.json")
    (tmp_path / "images" / "2.png").write_bytes(b"")
    code, out, err = call_script("inspect_data", *COMMON, "fix=clean.json", "fix_val=val_clean.json")
    assert code == 2
    for words in ("error: fix=clean.json", "1 of 2 images (1 damaged_file)", "2 of 3 boxes", "force=true"):
        assert words in err
    assert "1 image_left_out" in err
    assert "1 unknown_image" in err
    assert "Results are in out" in out
    made = {path.name for path in tmp_path.iterdir()} | {path.name for path in (tmp_path / "out").iterdir()}
    assert {"data.json", "data.png", "val_clean.json"} <= made
    assert not {"clean.json", "clean-changes.json"} & made


def test_the_built_in_data_are_in_order(call_script, tmp_path):
    code, out, _ = call_script(
        "inspect_data", "output_dir=out", "data.shapes.train_images=20", "data.shapes.val_images=6", "sheet_images=2"
    )
    assert code == 0
    assert "problem" not in out.split("Classes")[1]
    assert "share images" not in out


@pytest.mark.parametrize(
    "content",
    [
        {"images": [], "annotations": [], "categories": []},
        {"images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}], "annotations": [], "categories": []},
        {"images": ["word"], "annotations": [1], "categories": [None]},
        {
            "images": [],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}],
            "categories": [{"id": 3, "name": "$a$ [b]"}],
        },
    ],
)
def test_files_with_nothing_in_them(call_script, data, content):
    (data / "train.json").write_text(json.dumps(content))
    code, out, err = call_script("inspect_data", *COMMON, "fix=clean.json", "data.val_annotations=''", "force=true")
    assert (code, err) == (0, "")
    assert "There is no box to train on." in out
    assert json.loads((data / "clean.json").read_text())["annotations"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.train_annotations=none.json"], "none.json: there is no such file"),
        (["data.train_annotations=list.json"], "are the two files swapped?"),
        (["data.train_annotations=''"], "data.train_annotations is empty"),
        (["data.train_images=none"], "no image folder none"),
        (["fix=train.json"], "fix=train.json: this is the file that is cleaned"),
        (["fix=val.json"], "fix=val.json: this is the file that is cleaned"),
        (["fix=out"], "name a .json file"),
        (["fix=a.json", "fix_val=a.json"], "fix and fix_val name the same file"),
        (["fix_val=a.json", "data.val_annotations=''"], "there are no validation annotations to clean"),
        (["model.anchors.sizes=[[32],[64]]"], "model=c4 has 1 feature map (strides 16), give one list of sizes"),
        (["model.anchors.sizes=[[]]"], "model.anchors.sizes=[[]]: every map needs the same number of sizes, at least"),
        (["model.min_size=[]"], "model.min_size=[]: give at least one short side"),
        (["fixx=a.json"], "unknown key 'fixx'; did you mean 'fix'?"),
        (["output_dir=train.json/out"], "train.json is not a folder that you may write to"),
        (["output_dir=busy"], "busy holds data.json of something else"),
    ],
)
def test_mistakes_are_one_message(call_script, data, arguments, message):
    (data / "list.json").write_text("[1]")
    (data / "busy").mkdir()
    (data / "busy" / "data.json").write_text("{}")
    before = (data / "train.json").read_bytes()
    code, out, err = call_script("inspect_data", *COMMON, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert (data / "train.json").read_bytes() == before


def test_help_lists_the_groups_of_training(call_script):
    code, out, _ = call_script("inspect_data", "--help")
    assert code == 0
    assert "data=coco" in out
    assert "Look at a data set" in out
