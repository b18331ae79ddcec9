import numpy as np
import pytest
import torch
from PIL import Image

import detector
from detector.exceptions import DataError
from detector.inference.detector import as_image
from detector.models.checkpoint import load_trained_model


def test_every_kind_of_image_gives_the_same(checkpoint, data_set):
    path = data_set / "images" / "40.png"
    picture = Image.open(path)
    array = np.asarray(picture)
    planes = torch.from_numpy(array.copy()).permute(2, 0, 1)
    one = detector.load(checkpoint, "cpu")
    kinds = [path, str(path), picture, array, array.astype(np.float32) / 255, planes, planes.float() / 255]
    with torch.no_grad():
        expected = load_trained_model(checkpoint)([planes.float() / 255])[0]
    assert len(expected["boxes"]) == 5
    for kind in kinds:
        (found,) = one(kind)
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(found, name), expected[name]), type(kind)
        assert found.names == [["cat", "dog"][label - 1] for label in expected["labels"]]
        assert len(found) == 5


def test_batches_do_not_change_who_gets_what(checkpoint, data_set):
    one = detector.load(checkpoint, "cpu")
    paths = sorted((data_set / "images").iterdir())
    alone = [one(path)[0] for path in paths]
    together = one(paths, batch_size=2)
    assert len(together) == 5
    for a, b in zip(alone, together, strict=True):
        # Images of a batch are padded to one size, which moves the untrained network's boxes a little.
        assert a.scores == pytest.approx(b.scores, abs=0.05)
    assert one([]) == []


def test_the_score_threshold(checkpoint, data_set):
    one = detector.load(checkpoint, "cpu")
    path = data_set / "images" / "40.png"
    everything = one(path)[0]
    middle = everything.scores[2].item()
    kept = one(path, score_thresh=middle)[0]
    assert len(kept) == 3
    assert kept.names == everything.names[:3]


def test_sideways_photographs_are_turned(tmp_path):
    picture = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer must turn by 90 degrees clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    turned = torch.from_numpy(np.rot90(np.asarray(picture), -1).copy()).permute(2, 0, 1) / 255
    assert torch.equal(as_image(tmp_path / "a.png"), turned)
    assert torch.equal(as_image(Image.open(tmp_path / "a.png")), turned)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\) is not an image"),
        (torch.zeros(8, 8, 3), r"\(8, 8, 3\) is not an image"),
        (torch.full((3, 4, 4), 255.0), r"from 255 to 255: they must be in 0\.\.1"),
        (torch.full((3, 4, 4), float("nan")), "must be in 0"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (7, "int is not an image"),
        ("no/such/file.png", "no image file"),
    ],
)
def test_what_is_not_an_image_is_refused(image, says):
    with pytest.raises(DataError, match=says):
        as_image(image)


@pytest.mark.parametrize("images", [3, None, 1.5, {"a": 1}, b"png", object(), [3], [["a.png"]]])
def test_what_is_no_list_of_images(checkpoint, images):
    with pytest.raises(DataError, match="a path, a PIL image, an array or a tensor, or a list of them"):
        detector.load(checkpoint, "cpu")(images)


def test_grey_and_alpha():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert torch.equal(as_image(grey)[0], torch.from_numpy(grey) / 255)
    rgba = np.zeros((2, 3, 4), np.uint8)
    assert as_image(rgba).shape == (3, 2, 3)


def test_drawn_boxes(checkpoint, data_set):
    """Every box's left edge has its class's colour, except where labels or other boxes cover it."""
    from detector.plots.figure import color_of

    grey = np.full((200, 300, 3), 128, np.uint8)
    found = detector.inference.detector.Prediction(
        torch.tensor([[50.0, 60, 150, 120], [180, 20, 260, 190]]),
        torch.tensor([0.9, 0.8]),
        torch.tensor([1, 2]),
        ["cat", "dog"],
    )
    drawn = np.asarray(found.draw(grey))
    for box, label in zip(found.boxes.int().tolist(), [1, 2], strict=True):
        color = [int(color_of(label - 1)[i : i + 2], 16) for i in (1, 3, 5)]
        assert drawn[(box[1] + box[3]) // 2, box[0]].tolist() == color
        assert drawn[box[3], (box[0] + box[2]) // 2].tolist() == color
    assert (drawn[5, 5] == 128).all()
    assert (drawn[90, 100] == 128).all()
    assert (grey == 128).all()
