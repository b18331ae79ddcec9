"""Mistakes of a whole annotation file: each is one sentence, and the data doctor mends what can be mended."""

import json

import numpy as np
import pytest
from PIL import Image

from detector.data.annotations import read_annotations
from detector.data.coco import CocoDataset
from detector.data.images import ORIENTATION
from detector.data.splits import Split
from detector.data.systematic import exchange_sizes, straighten_boxes
from detector.exceptions import DataError

DOCTOR = ("inspect_data", "data=coco", "data.root=.", "model=c4", "data.val_annotations=''", "output_dir=out")
IMAGES = {1: (40, 60), 2: (50, 30), 3: (20, 20)}  # id: (height, width)
ROWS = [(1, 1, (45, 5, 12, 20)), (2, 1, (30, 10, 25, 25)), (3, 1, (1, 1, 9, 9)), (4, 2, (5, 35, 10, 12))]


def change(file, function):
    """Edit the file's content."""
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))


def exchange(content):
    for entry in content["images"]:
        entry["height"], entry["width"] = entry["width"], entry["height"]


def corners(content):
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]


def fractions(content):
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
    for entry in content["annotations"]:
        (w, h), box = sizes[entry["image_id"]], entry["bbox"]
        entry["bbox"] = [box[0] / w, box[1] / h, box[2] / w, box[3] / h]


def twelve_boxes():
    """Boxes of image 1, six of which leave it if their lower right corner is taken for a size."""
    return [(i + 1, 1, (4 * i, 3 * i, 12, 7)) for i in range(12)]


@pytest.mark.parametrize("on_invalid", ["error", "drop", "clip"])
@pytest.mark.parametrize(
    ("rows", "mistake", "words"),
    [
        (
            ROWS,
            exchange,
            "width and height are exchanged in the entries of 2 of 3 images: image 1 (1.png) is 60 x 40 pixels "
            "(width x height), its entry says 40 x 60\n",
        ),
        (
            twelve_boxes(),
            corners,
            "6 of 12 boxes leave their images as [x, y, width, height], and none as [x1, y1, x2, y2], such as "
            "annotation 1 with [0, 0, 12, 7]: they seem to be corners",
        ),
        (
            ROWS,
            fractions,
            "the boxes of all 4 annotations are within 0 and 1, such as annotation 1 with [0.75, 0.125, 0.2, 0.5]: "
            "they seem to be fractions",
        ),
    ],
    ids=["exchanged", "corners", "fractions"],
)
def test_one_sentence_whatever_is_to_be_done_about_single_boxes(write_coco, rows, mistake, words, on_invalid):
    file, folder = write_coco(rows, IMAGES)
    assert CocoDataset(file, folder).problems == []
    change(file, mistake)
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder, on_invalid=on_invalid)
    message = str(caught.value)
    assert message.startswith(f"{file}: 1 problem:\n  {words}")
    assert "data.on_invalid" not in message
    assert "With fix=OUT.json (fix_val=OUT.json for validation) python scripts/inspect_data.py writes" in message


def test_other_problems_are_held_against_the_true_sizes(write_coco):
    file, folder = write_coco([*ROWS, (5, 1, (50, 30, 30, 5)), (6, 3, (0, 0, 20, 0))], IMAGES)
    change(file, exchange)
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)
    lines = str(caught.value).splitlines()
    assert "3 problems" in lines[0]
    assert "exchanged in the entries of 2 of 3 images" in lines[1]
    assert lines[2].endswith("box [50, 30, 30, 5]: the box leaves its image of 60 x 40 pixels")
    assert lines[3].endswith("box [0, 0, 20, 0]: the box has no area")


def test_pictures_that_were_turned_after_they_were_labelled(write_coco):
    """The boxes fit the size in the annotation file, not that of the image file."""
    file, folder = write_coco([(1, 1, (0, 50, 30, 10)), (2, 1, (0, 30, 40, 28)), (3, 1, (35, 5, 8, 8))], {1: (60, 40)})
    with Image.open(folder / "1.png") as image:
        image.rotate(90, expand=True).save(folder / "1.png")
    read = read_annotations(file)
    assert exchange_sizes(read, folder) == (read, [])
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)
    assert "annotation 3, image 1 (1.png), box [35, 5, 8, 8]: the box leaves its image of 40 x 60" in str(caught.value)


def test_a_picture_that_exif_turns_is_as_its_entry_says(write_coco):
    file, folder = write_coco([(1, 1, (35, 5, 8, 8))], {1: (60, 40)})
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "1.png", exif=exif)
    assert exchange_sizes(read_annotations(file), folder)[1] == []


def test_files_are_opened_only_where_boxes_leave(write_coco):
    """A few boxes that stick out of a large data set do not cost a look into all of its files."""
    file, folder = write_coco([(1, 1, (55, 5, 9, 9)), (2, 2, (5, 5, 9, 9))], IMAGES)
    read = read_annotations(file)
    change(file, exchange)
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes())  # now of another size than its entry
    assert exchange_sizes(read, folder) == (read, [])
    corrected, (problem,) = exchange_sizes(read_annotations(file), folder)
    assert corrected.sizes.tolist() == [[40, 60], [30, 50], [20, 20]]
    assert "of 1 of 3 images" in problem.what


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(1, 1, (30, 5, 59, 39))],  # one box that leaves its image may be any mistake
        [(i, 1, (1 + i, 1, 45, 30)) for i in range(1, 20)],  # many large objects of which few leave by a pixel or two
        [(1, 1, (0, 0, 1, 1)), (2, 1, (0, 0, 1, 2))],
    ],
)
def test_boxes_that_are_what_they_should_be(write_coco, rows):
    read = read_annotations(write_coco(rows)[0])
    assert straighten_boxes(read) == (read, [])


@pytest.mark.parametrize("look", ["true", "false"])
def test_the_doctor_exchanges_sizes(call_script, write_coco, tmp_path, look):
    file, _ = write_coco(ROWS, IMAGES)
    before = json.loads(file.read_text())
    change(file, exchange)
    code, out, err = call_script(*DOCTOR, "fix=clean.json", f"open_images={look}", "sheet_images=0")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "out/data.json").read_text())["splits"]["train"]
    assert [p["kind"] for p in found["problems"]] == ["exchanged_size"]
    assert found["image_sizes"] == {"60 x 40": 1, "30 x 50": 1, "20 x 20": 1}
    assert found["boxes"] == 4
    assert "train.json: 1 exchanged_size\n  width and height are exchanged in the entries of 2 of 3 images" in out
    assert "(2 x resized image;" in out
    assert json.loads((tmp_path / "clean.json").read_text()) == before


def test_the_doctor_leaves_turned_pictures_out(call_script, write_coco, tmp_path):
    _, folder = write_coco([(1, 1, (0, 50, 30, 10)), (2, 2, (5, 5, 9, 9))], {1: (60, 40), 2: (30, 30)})
    with Image.open(folder / "1.png") as image:
        image.rotate(90, expand=True).save(folder / "1.png")
    assert call_script(*DOCTOR, "fix=clean.json", "force=true", "sheet_images=0")[0] == 0
    assert [entry["id"] for entry in json.loads((tmp_path / "clean.json").read_text())["images"]] == [2]


def test_the_doctor_makes_corners_sizes(call_script, write_coco, tmp_path):
    file, _ = write_coco(twelve_boxes(), IMAGES)
    before = json.loads(file.read_text())
    change(file, corners)
    code, out, _ = call_script(*DOCTOR, "fix=clean.json", "sheet_images=0")
    assert code == 0
    assert "train.json: 1 corner_boxes\n" in out
    assert "(12 x corners to sizes;" in out
    assert json.loads((tmp_path / "clean.json").read_text()) == before


def test_the_doctor_does_not_guess_what_fractions_mean(call_script, write_coco, tmp_path):
    file, _ = write_coco(ROWS, IMAGES)
    change(file, fractions)
    code, out, err = call_script(*DOCTOR, "fix=clean.json", "sheet_images=0")
    assert code == 2
    assert "4 of 4 boxes (4 relative_boxes)" in err
    assert not (tmp_path / "clean.json").exists()
    assert "train.json: 1 relative_boxes\n" in out
    assert "There is no box to train on." in out


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
def test_a_folder_without_any_of_the_images(write_coco, on_invalid):
    file, _ = write_coco(ROWS, IMAGES)
    (file.parent / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        CocoDataset(file, file.parent / "empty", on_invalid=on_invalid)
    assert str(caught.value).startswith(f"{file}: none of its 3 images is in the folder {file.parent / 'empty'};")
    with pytest.raises(DataError) as caught:
        Split("train", file, file.parent / "empty", on_invalid, keys="data.train_images").dataset()
    assert str(caught.value).endswith("Set data.train_images.")


def test_an_image_that_validation_has_too_is_left_out_whatever_else_is_wrong_with_it(call_script, write_coco, tmp_path):
    file, folder = write_coco(ROWS, IMAGES)
    change(file, exchange)
    write_coco([(1, 8, (5, 5, 10, 10))], images={8: (40, 60)}, name="val.json")
    (folder / "8.png").write_bytes((folder / "1.png").read_bytes())
    arguments = ("data.val_annotations=val.json", "fix=clean.json", "force=true", "sheet_images=0")
    code, _, _ = call_script(*DOCTOR, *arguments)
    assert code == 0
    assert [entry["id"] for entry in json.loads((tmp_path / "clean.json").read_text())["images"]] == [2, 3]
