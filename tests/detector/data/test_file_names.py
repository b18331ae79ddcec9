"""Names that are written otherwise than their files: what they mean, what they do not, and one message for all."""

import json
import unicodedata
from urllib.parse import quote

import pytest

from detector.data.coco import CocoDataset
from detector.data.file_names import absent, find_files
from detector.exceptions import DataError

DOCTOR = ("inspect_data", "data=coco", "data.root=.", "model=c4", "data.val_annotations=''", "output_dir=out",
          "sheet_images=0", "overwrite=true")  # fmt: skip
NFC, NFD = (unicodedata.normalize(form, "Käfer.png") for form in ("NFC", "NFD"))
HASH = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder_of(tmp_path):
    """folder_of("a.jpg", ...) is a folder with these files, which are empty."""

    def make(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("a%20b.jpg", "a b.jpg", ["URL-encoded"]),
        ("%E8%99%AB.png", "虫.png", ["URL-encoded"]),
        ("a%2520b.jpg", "a b.jpg", ["URL-encoded"]),
        ("100% a.jpg", "100%25%20a.jpg", ["URL-encoded"]),
        ("sub%2Fa.jpg", "sub/a.jpg", ["URL-encoded"]),
        (NFC, NFD, ["Unicode form"]),
        (NFD, NFC, ["Unicode form"]),
        (quote(NFD), NFC, ["URL-encoded", "Unicode form"]),
        (NFC.encode().decode("cp1252"), NFC, ["wrong encoding"]),
        (NFC.encode().decode("cp437"), NFC, ["wrong encoding"]),
        ("a&amp;b.jpg", "a&b.jpg", ["HTML"]),
        ("a.jpg?x=1", "a.jpg", ["query string"]),
        ("https://host/x/a.jpg?t=/1", "a.jpg", ["another machine", "query string"]),
        (" a.jpg", "a.jpg", ["blanks"]),
        ("A.JPG", "a.jpg", ["upper and lower case"]),
        ("a.jpg", "a.png", ["another ending"]),
        ("frame.001", "frame.001.tif", ["another ending"]),
        ("a.jpg", "a.jpg.jpg", ["another ending"]),
        ("A%20.jpeg", "a .JPG", ["URL-encoded", "upper and lower case", "another ending"]),
        ("images/a.jpg", "a.jpg", ["other folders"]),
        ("a.jpg", "sub/a.jpg", ["other folders"]),
        ("images\\a.jpg", "images/a.jpg", ["Windows"]),
        ("images/a.jpg", "images\\a.jpg", ["Windows"]),
        ("C:\\Users\\anna\\a.jpg", "a.jpg", ["another machine", "Windows"]),
        ("/srv/photos/a.jpg", "a.jpg", ["another machine"]),
        ("3f2a1b4c-my_photo.jpg", "my photo.jpg", ["prefix"]),
        ("my photo.jpg", "3f2a1b4c-my_photo.jpg", ["prefix"]),
        ("COCO_val2014_000000000042.jpg", "000000000042.jpg", ["prefix"]),
        ("a-b_jpg.rf." + HASH + ".jpg", "a b.jpg", ["suffix"]),
        ("my_photo_1_.jpg", "my photo (1).jpg", ["other signs"]),
    ],
)  # fmt: skip
def test_what_a_name_means(folder_of, name, file, words):
    folder = folder_of(file, "another.jpg")
    assert absent(folder, [name, file]).tolist() == [True, False]
    found = find_files(folder, [name])
    assert (found.files, found.several) == ({name: file}, {})
    ((first, said),) = found.sentences([name], folder).items()
    assert first == name
    assert said.startswith("1 of 1 file name")
    assert str(folder / file) in said
    assert [word for word in words if word not in said] == []
    assert len(found.ways[name]) == len(words)


@pytest.mark.parametrize(
    ("name", "files", "several"),
    [
        ("a.jpg", ["x/a.jpg", "y/a.jpg"], 2),
        ("other/c.png", ["sub/c.png", "sub/d.png"], 0),
        ("a.jpg", ["a.png", "a.bmp"], 2),
        ("A.jpg", ["a.JPG", "a.jpg"], 2),
        ("a b.jpg", ["a%20b.jpg", "a&#32;b.jpg"], 2),
        ("notes.jpg", ["notes.txt"], 0),
        ("a.jpg", ["._a.jpg"], 0),
        ("images/", ["a.jpg"], 0),
        ("", ["a.jpg"], 0),
        ("cam1/1.jpg", ["cam2/1.jpg", "cam1/2.jpg"], 0),
        ("cam1/1.jpg", ["cam2/1.jpg", "cam2/2.jpg"], 0),
        ("val/1.jpg", ["train/1.jpg"], 0),
        ("2023-001.jpg", ["2024-001.jpg"], 0),
        ("x" * 5000 + ".jpg", ["a.jpg"], 0),
        ("\0.jpg", ["a.jpg"], 0),
    ],
)
def test_no_file_is_guessed(folder_of, name, files, several):
    """Two candidates, files of other kinds, and files of a folder that is another camera or subset."""
    folder = folder_of(*files)
    found = find_files(folder, [name])
    assert found.files == {}
    assert [len(candidates) for candidates in found.several.values()] == [several] * bool(several)


def test_folders_tell_files_of_one_name_apart(folder_of):
    folder = folder_of("train/1.jpg", "val/1.jpg", "cam1/1.png", "cam2/1.jpg")
    wanted = {"C:\\data\\train\\1.jpg": "train/1.jpg", "/data/val/1.jpg": "val/1.jpg", "cam1/1.jpg": "cam1/1.png"}
    assert find_files(folder, list(wanted)).files == wanted


def test_a_folder_that_was_renamed(folder_of):
    folder = folder_of("photos/1.jpg", "photos/2.jpg", "others/3.jpg")
    names = ["pics/1.jpg", "pics/2.jpg"]
    assert find_files(folder, names).files == {"pics/1.jpg": "photos/1.jpg", "pics/2.jpg": "photos/2.jpg"}
    assert find_files(folder, names[:1]).files == {}  # of two photos that happen to have a number in common


def test_a_file_belongs_to_one_name(folder_of):
    folder = folder_of("a.jpg", "x.jpg")
    assert find_files(folder, ["a.png"], taken=["a.jpg"]).files == {}
    assert find_files(folder, ["a.png"], taken=["./a.jpg"]).files == {}
    found = find_files(folder, ["A/x.jpg", "B/x.jpg"])
    assert (found.files, set(found.several)) == ({}, {"A/x.jpg", "B/x.jpg"})


def test_names_of_annotation_tools_count_only_all_together(folder_of):
    folder = folder_of("my photo.jpg", "b.jpg")
    both = {"3f2a-my_photo.jpg": "my photo.jpg", "0aa1-b.jpg": "b.jpg"}
    assert find_files(folder, list(both)).files == both
    assert find_files(folder, [*both, "c1d2-gone.jpg"]).files == {}
    assert find_files(folder, ["3f2a-my_photo.jpg"], taken=["b.jpg"]).files == {}
    assert find_files(folder, ["3f2a-b.jpg", "0aa1-b.jpg"]).files == {}


def spell(file, rename):
    """Give every entry of an annotation file another name; returns its content before."""
    before = json.loads(file.read_text())
    content = json.loads(file.read_text())
    for entry in content["images"]:
        entry["file_name"] = rename(entry["file_name"])
    file.write_text(json.dumps(content))
    return before


IMAGES = dict.fromkeys(range(1, 31), (10, 12))


@pytest.mark.parametrize("on_invalid", ["error", "drop", "clip"])
def test_one_message_for_all_names(write_coco, on_invalid):
    file, _ = write_coco(images=IMAGES)
    spell(file, lambda name: f"%{ord(name[0]):02X}{name[1:]}" if name != "30.png" else name)
    with pytest.raises(DataError) as caught:
        CocoDataset(file, file.parent / "images", on_invalid=on_invalid)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file}: 1 problem:"
    assert "29 of 30 file names" in lines[1]
    assert f"%31.png means {file.parent / 'images' / '1.png'}" in lines[1]
    assert "fix=OUT.json" in lines[2]
    assert "data.on_invalid" not in str(caught.value)


def test_the_doctor_gives_images_the_names_of_their_files(call_script, write_coco, tmp_path):
    """What could be two files is left out, with its boxes."""
    rows = [(1, 2, (1, 1, 5, 5)), (2, 3, (2, 2, 5, 5))]
    file, folder = write_coco(rows, images=dict(list(IMAGES.items())[:12]))
    before = spell(file, lambda name: f"%{ord(name[0]):02X}{name[1:]}" if name != "2.png" else "2.tif")
    (folder / "2.bmp").write_bytes((folder / "2.png").read_bytes())
    with pytest.raises(DataError) as caught:
        CocoDataset(file, folder)
    assert "image 2 (2.tif): there is no file" in str(caught.value)
    assert "2.bmp, 2.png" in str(caught.value)
    code, out, err = call_script(*DOCTOR, "fix=clean.json", "force=true")  # one of the two boxes is lost
    assert (code, err) == (0, "")
    assert "train.json: 1 misnamed_file, 1 missing_file\n" in out
    assert "11 of 12 file names" in out
    before["images"].pop(1)
    before["annotations"].pop(0)
    assert json.loads((tmp_path / "clean.json").read_text()) == before
    assert CocoDataset(tmp_path / "clean.json", folder).problems == []
