"""Which files ``source=`` names: brackets in names, odd endings, hidden files, and what no file is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.exceptions import DataError
from detector.inference.source_files import VIDEOS, endings, find_images


@pytest.fixture
def photos(tmp_path):
    """photos("a.jpg", ...) is a folder with these files; they need no content to be found."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("imgs[1]", ["imgs[1]/a.jpg", "imgs[1]/b*.jpg"]),
        ("imgs[1]/*.jpg", ["imgs[1]/a.jpg", "imgs[1]/b*.jpg"]),
        ("imgs[1]/a.jpg", ["imgs[1]/a.jpg"]),
        ("imgs[1]/b*.jpg", ["imgs[1]/b*.jpg"]),  # a file of this very name
        ("imgs[12]/*.jpg", ["imgs1/c.jpg", "imgs2/d.jpg"]),  # no folder of this name: a pattern
        ("img?[1]/*.jpg", ["imgs1/c.jpg"]),
        ("[2024] trip*.jpg", ["[2024] trip 1.jpg", "[2024] trip 2.jpg"]),
        ("**/*.jpg", ["[2024] trip 1.jpg", "[2024] trip 2.jpg", "imgs1/c.jpg", "imgs2/d.jpg", "imgs[1]/a.jpg",
                      "imgs[1]/b*.jpg"]),
        ("**/**/c.jpg", ["imgs1/c.jpg"]),  # once
    ],
)  # fmt: skip
def test_brackets_in_names(photos, source, found):
    folder = photos("imgs[1]/a.jpg", "imgs[1]/b*.jpg", "imgs1/c.jpg", "imgs2/d.jpg", "[2024] trip 1.jpg",
                    "[2024] trip 2.jpg", "note.txt")  # fmt: skip
    assert [str(path.relative_to(folder)) for path in find_images(str(folder / source)).files] == found


def test_relative_patterns(photos, monkeypatch):
    monkeypatch.chdir(photos("imgs[1]/a.jpg", "b.jpg"))
    assert find_images("imgs[1]/*").files == [Path("imgs[1]/a.jpg")]
    assert find_images("*.jpg").files == [Path("b.jpg")]


def test_what_is_skipped_is_counted(photos):
    folder = photos("a.jpg", "sub/UP.JPG", "b.txt", "c.txt", "v.mp4", "old.mpg", "data.h5", "README",
                    "._a.jpg", ".hidden.jpg", ".cache/d.jpg", "__MACOSX/e.jpg", "Thumbs.db", ".DS_Store", "Desktop.ini",
                    "sub/@eaDir/f.jpg")  # fmt: skip
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "0a1b2c", format="PNG")  # an image without an ending
    listing = find_images(str(folder))
    assert [str(path.relative_to(folder)) for path in listing.files] == ["0a1b2c", "a.jpg", "sub/UP.JPG"]
    assert listing.skipped == {".txt": 2, ".mp4": 1, ".mpg": 1, ".h5": 1, "without an ending": 1}
    assert find_images(str(folder / "*")).skipped == listing.skipped
    assert find_images(str(folder / "._a.jpg")).files == [folder / "._a.jpg"]  # asked for by name


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "this folder is empty"),
        (["Thumbs.db", "._a.jpg"], "this folder is empty"),
        (["a.txt", "b.csv"], "only files ending in .txt, .csv"),
        (["README"], "only files without an ending"),
        (["a.mp4"], "Give each video by itself"),
    ],
)
def test_a_folder_without_images(photos, files, words):
    with pytest.raises(DataError) as caught:
        find_images(str(photos(*files)), "images")
    assert words in str(caught.value)
    assert str(caught.value).startswith("images=")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("-", "standard input"),
        ("https://example.com/a.jpg", "download"),
        ("s3://bucket/a.jpg", "download"),
        ("www.example.com/a.jpg?x=1", "download"),
        ("file:///tmp/a.jpg", "without file://"),
        ("rtsp://camera/stream", "cameras"),
        ("0", "cameras"),
        ("nowhere.jpg", "no such file or folder"),
        ("nowhere/*.jpg", "0 files match"),
    ],
)
def test_what_is_no_file(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        find_images(source, "images")
    assert str(caught.value).startswith(f"images={source}: ")
    assert words in str(caught.value)


def test_videos_are_no_images():
    assert {".3gp", ".mp4", ".mpg", ".ogv", ".m2ts"} <= VIDEOS
    assert not endings() & VIDEOS
    assert {".jpg", ".png", ".tif", ".gif", ".webp", ".bmp"} <= endings()
