"""Images by their ids in an annotation file, and files of several frames."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detector.exceptions import ConfigError, DataError
from detector.inference.sources import FrameSource, ImageSource, frames_of, open_listed, open_source


def picture(number, size=(12, 10)):
    return Image.fromarray(np.full((size[1], size[0], 3), 40 * number, np.uint8))


@pytest.fixture
def listed(tmp_path):
    """listed(content) opens a file of this content and the folder of five images beside it."""
    for number in range(1, 6):
        picture(number).save(tmp_path / f"{number}.png")

    def make(content):
        (tmp_path / "info.json").write_text(json.dumps(content))
        return open_listed(str(tmp_path), str(tmp_path / "info.json"))

    return make


def test_images_are_all_that_is_needed(listed):
    """No annotations, no categories, no sizes; ids and their order are those of the file."""
    source, read, notes = listed({"images": [{"id": 70, "file_name": "3.png"}, {"id": 7, "file_name": "1.png"}]})
    assert (source.image_ids, source.names, source.sizes) == ([70, 7], ["3.png", "1.png"], [None, None])
    assert [(image.image_id, round(image.pixels[0, 0, 0].item() * 255)) for image in source] == [(70, 120), (7, 40)]
    assert (read.category_ids, notes, source.skipped) == ([], [], "")


def test_what_is_not_used_may_be_broken(listed):
    entries = [{"id": 1, "file_name": "1.png", "width": 12, "height": 10}, {"id": 2, "file_name": "2.png", "width": 9}]
    rubbish = [{"id": "x", "bbox": [1]}, None, {"id": 1, "image_id": 1, "category_id": 9, "bbox": [0, 0, 999, 1]}]
    source, read, _ = listed({"images": entries, "annotations": rubbish, "categories": [{"name": "no id"}]})
    assert source.sizes == [(10, 12), None]
    assert len(source) == 2
    assert read.category_ids == []
    assert len(listed({"images": entries, "annotations": {"a": 1}, "categories": 3})[0]) == 2


def test_the_size_that_the_file_says_is_checked(listed):
    source, _, _ = listed({"images": [{"id": 1, "file_name": "1.png", "width": 13, "height": 10}]})
    assert isinstance(source[0], DataError)
    assert "13 x 10" in str(source[0])


def test_names_written_otherwise_and_images_that_are_not_there(listed, tmp_path):
    names = ["%31.png", "2.PNG", "gone.png", "9.png"]
    source, _, notes = listed({"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]})
    assert [path.name for path in source.paths] == ["1.png", "2.png"]
    assert (source.image_ids, source.names) == ([0, 1], names[:2])
    assert [note[:6] for note in notes] == ["1 of 4", "1 of 4"]
    assert "URL-encoded" in notes[0]
    assert source.skipped.startswith("2 images of ")
    assert "gone.png, 9.png" in source.skipped


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": [{"id": "a", "file_name": "1.png"}]}, "images[0] has no integer 'id'"),
        ({"images": [{"id": 1, "file_name": "1.png"}, {"id": 1, "file_name": "2.png"}]}, "has the id of 1.png"),
        ({"images": [{"id": 5}]}, "image 5 has no 'file_name'"),
        ({"images": []}, "the list 'images' is empty"),
        ({"categories": []}, "there is no 'images'"),
        ({"images": [{"id": 1, "file_name": "a/gone.png"}]}, "none of the 1 image of "),
    ],
)
def test_what_is_used_has_to_be_right(listed, content, words):
    with pytest.raises(DataError) as caught:
        listed(content)
    assert words in str(caught.value)
    assert "data." not in str(caught.value)  # predict has no such keys
    assert "categories" not in str(caught.value).replace("and 'categories'", "")


def test_messages_name_the_keys_of_predict(tmp_path):
    (tmp_path / "info.json").write_text('{"images": [{"id": 1, "file_name": "a.png"}]}')
    with pytest.raises(DataError, match=r"^annotations=.*none\.json: there is no such file"):
        open_listed(str(tmp_path), str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"^source=.*: none of the 1 image of .*info\.json is in this folder"):
        open_listed(str(tmp_path), str(tmp_path / "info.json"))
    with pytest.raises(ConfigError, match="source is the folder of their images"):
        open_listed(str(tmp_path / "a.png"), str(tmp_path / "info.json"))


# ------------------------------------------------------------------------------------------------- frames
FRAMES = {"a.gif": "frame", "a.webp": "frame", "a.png": "frame", "a.tif": "page"}


def save_frames(path):
    options = {"lossless": True} if path.suffix == ".webp" else {}
    duration = {} if path.suffix == ".tif" else {"duration": [100, 250, 400]}
    first, *others = [picture(number) for number in (1, 2, 3)]
    first.save(path, save_all=True, append_images=others, **duration, **options)


@pytest.mark.parametrize("name", FRAMES)
def test_a_file_by_itself_is_read_frame_by_frame(tmp_path, name):
    save_frames(tmp_path / name)
    source = open_source(str(tmp_path / name))
    assert isinstance(source, FrameSource)
    assert len(source) == 3
    batches = list(source.batches(2, 0))
    images = [image for batch in batches for image in batch]
    assert [len(batch) for batch in batches] == [2, 1]
    assert [image.name for image in images] == [f"{FRAMES[name]}_00000{i}" for i in (1, 2, 3)]
    assert [image.image_id for image in images] == [1, 2, 3]
    seconds = [None] * 3 if name == "a.tif" else pytest.approx([0, 0.1, 0.35])
    assert [image.seconds for image in images] == seconds
    for number, image in enumerate(images, 1):
        assert torch.equal(image.pixels, torch.full((3, 10, 12), 40 * number) / 255)


def test_in_a_folder_the_first_frame_is_read_and_the_others_are_counted(tmp_path):
    for name in FRAMES:
        save_frames(tmp_path / name)
    picture(5).save(tmp_path / "b.png")
    source = open_source(str(tmp_path))
    assert isinstance(source, ImageSource)
    assert {image.name: image.frames for image in source} == {**dict.fromkeys(FRAMES, 3), "b.png": 1}
    assert {round(image.pixels[0, 0, 0].item() * 255) for image in source} == {40, 200}


def test_smaller_copies_of_a_page_are_no_pages(tmp_path):
    """As in the pyramids of maps and microscopes."""
    small = picture(2, (6, 5))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    picture(1).save(tmp_path / "a.tif", save_all=True, append_images=[small, picture(3)])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 3
        image.seek(1)
        reduced = image.tag_v2.get(254)
    assert reduced == 1
    assert frames_of(tmp_path / "a.tif") == [0, 2]


def test_a_frame_that_cannot_be_read(tmp_path):
    save_frames(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        image.seek(2)
        start = image.tag_v2[273][0]  # of the pixels of page 3
    content = (tmp_path / "a.tif").read_bytes()
    assert start > 0
    (tmp_path / "a.gif").write_bytes(content)  # the ending is not the kind
    assert len(frames_of(tmp_path / "a.gif")) == 3
    source = FrameSource(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(content[: start + 5])
    *good, bad = [image for batch in source.batches(8, 0) for image in batch]
    assert isinstance(bad, DataError)
    assert str(tmp_path / "a.tif") in str(bad)
    assert len(good) < 3
