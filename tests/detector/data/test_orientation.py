"""Photographs that EXIF turns: whether their boxes are of the picture as stored or as shown.

The pictures are grey with one red object, in the same place as shown: where the box is right, its mean colour is red.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig
from detector.data import orientation
from detector.data.coco import CocoDataset
from detector.data.datamodule import DetectionDataModule
from detector.data.images import ORIENTATION
from detector.data.orientation import Headers, find_evidence
from detector.exceptions import DataError

BOX = (6, 4, 24, 16)
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another one
WAYS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
        7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip


def photograph(file, way, width, height, box=BOX):
    """A file that viewers show as ``width`` x ``height`` pixels, with a red object at ``box``."""
    shown = np.full((height, width, 3), 110, dtype=np.uint8)
    x, y, w, h = box
    shown[y : y + h, x : x + w] = (220, 30, 30)
    image = Image.fromarray(shown)
    if way > 1:
        image = image.transpose(Image.Transpose[WAYS[BACK[way]]])
    exif = Image.Exif()
    exif[ORIENTATION] = way
    image.save(file, exif=exif)


@pytest.fixture
def photographs(tmp_path):
    """photographs({name: (orientation, (width, height) shown, (width, height) of the entry)}, ...) -> the file."""
    (tmp_path / "images").mkdir()

    def write(pictures, annotations="train.json", box=BOX):
        images, rows = [], []
        for number, (name, (way, shown, entry)) in enumerate(pictures.items(), 1):
            photograph(tmp_path / "images" / name, way, *shown, box)
            images.append({"id": number, "file_name": name, "width": entry[0], "height": entry[1]})
            rows.append({"id": number, "image_id": number, "category_id": 1, "bbox": list(box), "iscrowd": 0})
        content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "red"}]}
        (tmp_path / annotations).write_text(json.dumps(content))
        return tmp_path / annotations

    return write


def is_red(dataset):
    """Whether each image is red inside its box."""
    found = []
    for image, target in dataset:
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        red, green, _ = image[:, y1:y2, x1:x2].mean(dim=(1, 2)).tolist()
        found.append(red > 0.8 and green < 0.2)
    return found


def dataset(file, exif="auto"):
    found = CocoDataset(file, file.parent / "images")
    found.exif = exif
    return found


UNDECIDED = {"upside.png": (3, (80, 48), (80, 48)), "square.png": (6, (64, 64), (64, 64)),
             "mirrored.png": (2, (80, 48), (80, 48)), "flipped.png": (4, (80, 48), (80, 48))}  # fmt: skip
PLAIN = {"plain.png": (1, (80, 48), (80, 48))}
AS_SHOWN = {"shown.png": (6, (80, 48), (80, 48))}  # stored as 48 x 80
AS_STORED = {"stored.png": (8, (80, 48), (48, 80))}


@pytest.mark.parametrize(
    ("pictures", "evidence", "red"),
    [
        ({**AS_SHOWN, **UNDECIDED, **PLAIN}, "apply", [True] * 6),
        ({**AS_STORED, **UNDECIDED, **PLAIN}, "ignore", [False] * 5 + [True]),  # boxes are of the pictures as shown
        ({**UNDECIDED, **PLAIN}, "auto", [True] * 5),
        ({**AS_SHOWN, **AS_STORED, **UNDECIDED}, "auto", [True, False, *[True] * 4]),
        (PLAIN, "auto", [True]),
    ],
)
def test_other_entries_tell_for_those_that_do_not(photographs, pictures, evidence, red):
    found = dataset(photographs(pictures))
    assert found.evidence.exif == evidence
    assert is_red(found) == red


@pytest.mark.parametrize(("exif", "upright"), [("apply", True), ("ignore", False)])
def test_the_key_decides_where_sizes_do_not(photographs, exif, upright):
    assert is_red(dataset(photographs({**AS_SHOWN, **UNDECIDED, **PLAIN}), exif)) == [True, *[upright] * 4, True]


def test_each_way_of_holding_a_camera(photographs):
    pictures = {f"{k}.jpg": (k, (64, 64), (64, 64)) for k in range(1, 9)}
    assert all(is_red(dataset(photographs(pictures))))


def test_boxes_that_fit_the_picture_as_shown_tell_that_its_size_is_the_stored_one(photographs):
    """As tools write it that ask an image library for the size, and show the picture in a browser."""
    box = (50, 20, 24, 16)
    file = photographs({"a.png": (6, (80, 48), (48, 80)), **PLAIN, "b.png": (8, (80, 48), (48, 80))}, box=box)
    with pytest.raises(DataError) as caught:
        CocoDataset(file, file.parent / "images", on_invalid="clip")
    assert "exchanged in the entries of 2 of 3 images: image 1 (a.png) is stored as 48 x 80" in str(caught.value)
    content = json.loads(file.read_text())
    content["images"][1].update(width=80, height=48)
    content["images"][0].update(width=80, height=48)
    content["images"][2].update(width=80, height=48)
    file.write_text(json.dumps(content))
    assert is_red(dataset(file)) == [True] * 3


def test_a_careless_box_does_not_tell(photographs):
    file = photographs({"a.png": (6, (80, 48), (48, 80)), **PLAIN}, box=(26, 10, 24, 16))  # 2 of 48 pixels too far
    with pytest.raises(DataError) as caught:
        CocoDataset(file, file.parent / "images")
    assert "exchanged" not in str(caught.value)
    assert "the box leaves its image of 48 x 80 pixels" in str(caught.value)


def test_pictures_that_contradict_each_other_keep_their_own_size(photographs):
    """One box leaves its picture as stored, that of another one its picture as shown."""
    far, low = (50, 20, 24, 16), (10, 55, 24, 16)
    file = photographs({"a.png": (6, (80, 48), (48, 80)), "b.png": (8, (80, 48), (48, 80))}, box=far)
    content = json.loads(file.read_text())
    content["annotations"][1]["bbox"] = list(low)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"exchanged in the entries of 1 of 2 images: image 1 \(a.png\)"):
        CocoDataset(file, file.parent / "images")


def test_a_large_data_set_is_not_searched_where_a_sample_is_not_turned(photographs, monkeypatch):
    monkeypatch.setattr(orientation, "SAMPLE", 3)
    pictures = {f"{k}.png": (3 if k == 2 else 1, (80, 48), (80, 48)) for k in range(1, 8)}
    file = photographs(pictures)
    assert len(dataset(file).evidence.undecided) == 0  # 1, 4 and 7 were opened
    photographs({**pictures, "4.png": (3, (80, 48), (80, 48))})
    assert dataset(file).evidence.undecided.tolist() == [1, 3]


def test_splits_tell_for_each_other(photographs):
    file = photographs({**AS_STORED, **PLAIN})
    photographs({"other.png": (3, (80, 48), (80, 48))}, "val.json")
    keys = {"name": "coco", "root": str(file.parent), "workers": 0}
    for exif, decided in (("auto", "ignore"), ("apply", "apply")):
        data = DetectionDataModule(default(DataConfig, **keys, exif=exif), default(AugmentConfig), 0)
        data.setup()
        assert (data.exif, data.val_dataset.exif) == (decided, decided)
        assert is_red(data.val_dataset) == [decided == "apply"]


@pytest.mark.parametrize(("exif", "told"), [("auto", True), ("apply", False)])
def test_training_says_what_it_cannot_know(photographs, exif, told):
    file = photographs({**UNDECIDED, **PLAIN})
    keys = {"name": "coco", "root": str(file.parent), "val_annotations": "train.json", "exif": exif}
    data = DetectionDataModule(default(DataConfig, **keys), default(AugmentConfig), 0)
    data.setup()
    assert ("4 images of train turned by EXIF" in data.summary()) is told
    assert ("data.exif" in data.summary()) is told


def test_white_of_16_bit_files_reaches_the_images(photographs):
    file = photographs(PLAIN)
    Image.fromarray(np.full((48, 80), 4095, dtype=np.uint16)).save(file.parent / "images/plain.png")
    keys = {"name": "coco", "root": str(file.parent), "val_annotations": "train.json", "white": 4095}
    data = DetectionDataModule(default(DataConfig, **keys), default(AugmentConfig), 0)
    data.setup()
    assert torch.equal(data.train_dataset[0][0], torch.ones(3, 48, 80))


def test_headers_that_are_known_are_all_looked_at(tmp_path):
    """The doctor has opened every file: one that is turned tells, wherever it stands."""
    headers = Headers(tmp_path, np.array(["a.jpg"] * 10_000))
    headers.sizes[:], headers.orientation[:], headers.opened[:] = (40, 60), 1, True
    headers.orientation[[3, 8]] = 6, 3
    sizes = headers.sizes.copy()
    sizes[3] = 60, 40
    found = find_evidence(headers, sizes)
    assert (found.exif, found.shown, found.undecided.tolist()) == ("apply", 3, [8])
