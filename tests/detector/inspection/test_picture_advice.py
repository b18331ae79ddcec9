"""What ``scripts/inspect_data.py`` says about pictures, and what its cleaned copies keep of them."""

import json

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import CocoDataset
from detector.data.images import ORIENTATION

COMMON = ("data=coco", "data.root=.", "model=c4", "sheet_images=0", "output_dir=out", "overwrite=true")
CLEAN = ("fix=clean.json", "fix_val=clean_val.json")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """They take most of the time of a small data set."""
    monkeypatch.setattr("detector.inspection.inspect_data.plot_data", lambda *arguments: None)


@pytest.fixture
def write(tmp_path):
    """write("train", {name: (image, box)}, {name: {"width": ...}}) makes the files and the annotations of a split."""
    (tmp_path / "images").mkdir()

    def write_split(split, pictures, changes=None, **options):
        images, rows = [], []
        for number, (name, (image, box)) in enumerate(pictures.items(), 1):
            image.save(tmp_path / "images" / name, **options)
            size = {"width": image.width, "height": image.height, **(changes or {}).get(name, {})}
            images.append({"id": number, "file_name": name, **size})
            if box:
                row = {"id": number, "image_id": number, "category_id": 1, "bbox": list(box), "iscrowd": 0}
                rows.append({**row, "area": box[2] * box[3]})
        content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))

    return write_split


def inspect(call_script, *arguments):
    code, out, err = call_script("inspect_data", *COMMON, *arguments)
    assert (code, err) == (0, "")
    return " ".join(out.split())


def kept(tmp_path, name="clean.json"):
    return [entry["file_name"] for entry in json.loads((tmp_path / name).read_text())["images"]]


def scene(*place, noise=0):
    """A background with an object of 8 x 6 pixels at ``place``."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((160, 120))
    pixels = np.asarray(image) + np.random.default_rng(noise).normal(0, 2, (120, 160, 3))
    x, y = place
    pixels[y : y + 6, x : x + 8] = (255, 0, 0)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), (x, y, 8, 6)


def test_frames_of_a_fixed_camera_stay(call_script, write, tmp_path):
    places = [(44, 53), (63, 45), (4, 0), (18, 0), (100, 58), (97, 28)]
    frames = {f"{k}.jpg": scene(*place, noise=k) for k, place in enumerate(places)}
    names = list(frames)
    write("train", {name: frames[name] for name in names[:4]})
    write("val", {name: frames[name] for name in names[4:]})
    said = inspect(call_script, *CLEAN)
    assert "6 images look nearly like another one, but not the same, such as 0.jpg and 1.jpg" in said
    assert "Training and validation both have some" in said
    assert "share images" not in said
    assert "images show" not in said
    assert (kept(tmp_path), kept(tmp_path, "clean_val.json")) == (names[:4], names[4:])
    content = json.loads((tmp_path / "out/data.json").read_text())
    assert content["same_images"] == []
    assert [second for _, second in content["nearly_alike_images"]] == [
        *(["train", name] for name in names[1:4]),
        *(["val", name] for name in names[4:]),
    ]


def test_images_are_counted_and_all_copies_go(call_script, write, tmp_path):
    """Training has the picture twice, and validation once more, compressed again."""
    picture, other = scene(44, 53), scene(63, 45)
    write("train", {"a.png": picture, "b.png": other, "c.png": picture})
    write("val", {"d.jpg": picture}, quality=80)
    said = inspect(call_script, *CLEAN, "force=true")
    assert "share images: 2 training images are in validation too, such as a.png as d.jpg" in said
    assert "2 images show what another one of train shows" in said
    assert kept(tmp_path) == ["b.png"]
    said = inspect(call_script, "data.train_annotations=clean.json", "fix=again.json")
    assert "share images" not in said
    assert kept(tmp_path, "again.json") == ["b.png"]


def dark(seed):
    """A 16-bit picture of 12-bit values: a black border, and something inside that is another thing for each seed."""
    values = np.zeros((90, 120), dtype=np.uint16)
    values[20:70, 20:100] = (
        np.random.default_rng(seed).integers(0, 4096, (5, 8), dtype=np.uint16).repeat(10, 0).repeat(10, 1)
    )
    return Image.fromarray(values), (20, 20, 30, 30)


def test_nearly_black_pictures(call_script, write, tmp_path):
    write("train", {"a.png": dark(0), "b.png": dark(1)})
    write("val", {"c.png": dark(2)})
    said = inspect(call_script, *CLEAN)
    assert "share images" not in said
    assert "nearly like" not in said
    assert kept(tmp_path) == ["a.png", "b.png"]
    assert "The 16-bit images of train (2) have no value above" in said
    assert "If they hold 12 bits, set data.white=4095." in said
    assert "nearly black" not in inspect(call_script, "data.white=4095")


def photograph(orientation, width=80, height=48):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation or 1  # 0: another picture that is not turned
    image = Image.fromarray(np.random.default_rng(orientation).integers(0, 256, (height, width, 3), dtype=np.uint8))
    image.info["exif"] = exif.tobytes()
    return image, (5, 4, 20, 15)


def write_photographs(write, pictures, changes=None):
    for split in ("train", "val"):
        chosen = {name: picture for name, picture in pictures.items() if (name[0] == "v") == (split == "val")}
        write(split, chosen, changes)


@pytest.fixture
def keep_exif(monkeypatch):
    """Pillow keeps EXIF data of ``info`` only if it is told to."""
    save = Image.Image.save
    monkeypatch.setattr(
        Image.Image,
        "save",
        lambda image, file, **options: save(image, file, **{"exif": image.info.get("exif", b""), **options}),
    )


PHOTOGRAPHS = {"a.png": photograph(3), "b.png": photograph(6, 64, 64), "c.png": photograph(1), "v.png": photograph(0)}


def test_photographs_whose_orientation_nothing_tells_are_counted_and_shown(call_script, write, keep_exif, tmp_path):
    write_photographs(write, PHOTOGRAPHS)
    said = inspect(call_script, "sheet_images=1")
    assert "2 images of train are turned by EXIF without a change of size, such as a.png, and no other entry" in said
    assert "set data.exif=ignore" in said
    turned = json.loads((tmp_path / "out/data.json").read_text())["splits"]["train"]["turned_by_exif"]
    assert turned == {"undecided": ["a.png", "b.png"], "entries_tell": "auto"}
    shown = np.asarray(Image.open(tmp_path / "out/augmentation.png"))
    assert "turned by EXIF" not in inspect(call_script, "sheet_images=1", "data.exif=ignore")
    assert (np.asarray(Image.open(tmp_path / "out/augmentation.png")) != shown).any()  # the same one, stored otherwise
    assert "turned by EXIF" not in inspect(call_script, "data.exif=apply")


def test_entries_that_contradict_each_other_are_both_named(call_script, write, keep_exif):
    sides = {"shown.png": photograph(8), "stored.png": photograph(6)}
    write_photographs(write, {**PHOTOGRAPHS, **sides}, {"shown.png": {"width": 48, "height": 80}})
    said = inspect(call_script)
    assert "that of shown.png has the size as viewers show it, that of stored.png as it is stored" in said


def test_what_is_told_by_the_other_split_is_no_question(call_script, write, keep_exif):
    write_photographs(write, {**PHOTOGRAPHS, "v2.png": photograph(6)}, {"v2.png": {"width": 48, "height": 80}})
    assert "turned by EXIF" not in inspect(call_script)


def test_a_copy_that_may_lack_the_entries_that_tell_comes_with_the_key(call_script, write, keep_exif):
    write_photographs(write, {**PHOTOGRAPHS, "s.png": photograph(6)}, {"s.png": {"width": 48, "height": 80}})
    copies = "fix=clean.json", "fix_val=clean_val.json"
    said = inspect(call_script, *copies)
    assert "data.exif=apply with the copy of the train annotations" in said
    assert "2 photographs" in said
    write_photographs(write, PHOTOGRAPHS)
    assert "with the copy" not in inspect(call_script, *copies, "overwrite=true")


def test_a_cleaned_copy_leaves_the_sizes_of_turned_photographs(call_script, write, keep_exif, tmp_path):
    """The file is stored with width and height exchanged; its entry, and its box, are of the picture as shown."""
    sides = {"shown.png": photograph(8), "stored.png": photograph(6)}
    write_photographs(write, {**PHOTOGRAPHS, **sides}, {"shown.png": {"width": 48, "height": 80}})
    inspect(call_script, *CLEAN)
    assert json.loads((tmp_path / "clean.json").read_text()) == json.loads((tmp_path / "train.json").read_text())


def test_sizes_as_stored_of_boxes_as_shown_are_exchanged(call_script, write, keep_exif, tmp_path):
    """Boxes at the right of pictures that are 80 pixels wide as shown, with entries of 48 x 80 as stored."""
    far = (photograph(6, 48, 80)[0], (55, 10, 20, 15))  # stored 48 pixels wide
    write_photographs(write, {"0.png": far, **PHOTOGRAPHS})
    inspect(call_script, *CLEAN)
    (entry, *others), before = (
        json.loads((tmp_path / name).read_text())["images"] for name in ("clean.json", "train.json")
    )
    assert (entry["width"], entry["height"]) == (80, 48)
    assert others == before[1:]
    dataset = CocoDataset(tmp_path / "clean.json", tmp_path / "images")
    assert (dataset.problems, dataset.evidence.exif) == ([], "apply")
    assert dataset[0][1]["boxes"].tolist() == [[55, 10, 75, 25]]
    assert dataset[0][0].shape == (3, 48, 80)


def test_thin_images_are_named(call_script, write):
    """1333 pixels of 3000: the short side of 1 becomes 0.44."""
    write("train", {"good.png": scene(5, 5), "divider.png": (Image.new("RGB", (3000, 1), "red"), None)})
    write("val", {"v.png": scene(50, 50)})
    assert "1 image of train cannot show anything" in (said := inspect(call_script))
    assert "such as divider.png of 3000 x 1 pixels" in said
