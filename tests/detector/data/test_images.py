"""Every kind of image file becomes the same kind of tensor."""

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.images import ORIENTATION, read_image
from detector.exceptions import DataError

RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [10, 20, 30], [0, 0, 0]]], dtype=np.uint8)


def check(file, expected, atol=0.0):
    image = read_image(file)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    expected = torch.from_numpy(np.asarray(expected, dtype=np.float32)).permute(2, 0, 1)
    torch.testing.assert_close(image, expected, atol=atol, rtol=0)


def test_rgb(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    check(tmp_path / "a.png", RGB / np.float32(255))


def test_grey(tmp_path):
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    check(tmp_path / "a.png", np.repeat(grey[:, :, None], 3, 2) / np.float32(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_range(tmp_path, suffix):
    grey = np.array([[0, 300], [32768, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    check(tmp_path / f"a.{suffix}", np.repeat(grey[:, :, None], 3, 2) / np.float32(65535), atol=1e-7)


def test_palette(tmp_path):
    Image.fromarray(RGB).quantize(8).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    check(tmp_path / "a.png", RGB / np.float32(255))


def test_alpha_is_ignored(tmp_path):
    alpha = np.array([[0, 128, 255], [0, 1, 2]], dtype=np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    check(tmp_path / "a.png", RGB / np.float32(255))


def test_cmyk(tmp_path):
    pixels = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(pixels, mode="CMYK").save(tmp_path / "a.tif")
    check(tmp_path / "a.tif", [[[1, 1, 1], [0, 1, 1], [0, 0, 0]]], atol=1e-6)  # white, cyan, black


def test_one_bit(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "a.png")
    check(tmp_path / "a.png", [[[0, 0, 0], [1, 1, 1]]])


def test_first_frame_of_several(tmp_path):
    frames = [Image.new("RGB", (3, 2), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    check(tmp_path / "a.gif", np.broadcast_to([1, 0, 0], (2, 3, 3)))


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a.tif: floating-point pixels have no defined range"):
        read_image(tmp_path / "a.tif")


def test_more_pixels_than_pillow_reads(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)  # an error from twice as many on
    with pytest.raises(DataError, match=r"a.png: it has more than the 4 pixels .* cut it into tiles"):
        read_image(tmp_path / "a.png")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no image file .*a.png"):
        read_image(tmp_path / "a.png")


def test_truncated_jpeg(tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cannot read the image .*a.jpg"):
        read_image(file)


def turned(folder, orientation):
    """A file that stores RGB (2 x 3 pixels) and says that the camera was held in another way."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(RGB).save(folder / "a.png", exif=exif)
    return folder / "a.png"


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_boxes_are_in_stored_pixels_so_exif_is_not_applied(tmp_path, orientation):
    image = read_image(turned(tmp_path, orientation), size=(2, 3))
    assert torch.equal(image[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_image_is_turned_if_the_annotations_were_made_on_the_turned_one(tmp_path):
    image = read_image(turned(tmp_path, 6), size=(3, 2))  # 6: stored turned to the left, the top is at the right
    expected = torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(image, expected)


@pytest.mark.parametrize(("orientation", "size"), [(1, (3, 2)), (3, (3, 2)), (6, (4, 2))])
def test_other_sizes_are_errors(tmp_path, orientation, size):
    with pytest.raises(DataError, match=rf"3 x 2 pixels .* says {size[1]} x {size[0]}"):
        read_image(turned(tmp_path, orientation), size=size)
