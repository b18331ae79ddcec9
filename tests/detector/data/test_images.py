"""Every kind of image file becomes the same kind of tensor."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detector.data.images import ORIENTATION, SHOWN, Reading, header_of, read_image, turn
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


def write_deep_png(file, values, colour_type):
    """A PNG of 16 bits: Pillow cannot write colours of 16 bits. Colour type 2 is RGB, 6 RGBA, 4 grey with alpha."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colours_keep_their_bits(tmp_path, colour_type, channels):
    values = np.random.default_rng(0).integers(0, 4096, (4, 5, channels), dtype=np.uint16)
    write_deep_png(tmp_path / "a.png", values, colour_type)
    colours = values[:, :, :3] if channels > 2 else values[:, :, :1].repeat(3, axis=2)
    check(tmp_path / "a.png", colours / 65535, atol=1e-7)
    image = read_image(tmp_path / "a.png", reading=Reading(white=4095))
    np.testing.assert_allclose(image.permute(1, 2, 0), colours / 4095, atol=1e-6)


def test_white_of_16_bit_grey_leaves_other_files_alone(tmp_path):
    grey = np.array([[0, 2048], [4095, 60000]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", reading=Reading(white=4095))
    np.testing.assert_allclose(image[1], [[0, 2048 / 4095], [1, 1]], atol=1e-7)
    Image.fromarray(RGB).save(tmp_path / "b.png")
    assert torch.equal(read_image(tmp_path / "b.png", reading=Reading(white=4095)), read_image(tmp_path / "b.png"))


def write_deep_tiff(file, values):
    """A TIFF of 16-bit RGB, little-endian, one strip: Pillow cannot write it."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    bits = 8 + len(data)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
            (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]  # fmt: skip
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    file.write_bytes(b"II*\0" + struct.pack("<I", bits + 6) + data + struct.pack("<HHH", 16, 16, 16) + table)


def test_16_bit_colours_of_which_only_8_can_be_read(tmp_path):
    values = np.array([[[65535, 0, 32768], [4095, 4095, 4095]]], dtype=np.uint16)
    write_deep_tiff(tmp_path / "a.tif", values)
    check(tmp_path / "a.tif", values / 65535, atol=1 / 255)
    with pytest.raises(DataError, match=r"a.tif: .*data.white=4095; save it as PNG"):
        read_image(tmp_path / "a.tif", reading=Reading(white=4095))


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [("LA", "png", {}), ("P", "png", {"transparency": b"\x10\x80\xff"}), ("YCbCr", "tif", {}),
     ("LAB", "tif", {}), ("L", "jpg", {"quality": 100}), ("I;16B", "tif", {})],
)  # fmt: skip
def test_other_kinds_are_what_they_show(tmp_path, mode, suffix, options):
    grey = np.arange(0, 240, 30, dtype=np.uint8).reshape(2, 4)
    image = Image.fromarray(grey)
    if mode == "I;16B":
        image = Image.frombytes(mode, (4, 2), (grey.astype(">u2") * 257).tobytes())
    elif mode == "P":
        image = image.convert("P")
    elif mode != "L":
        image = image.convert("LA") if mode == "LA" else image.convert("RGB").convert(mode)
    image.save(tmp_path / f"a.{suffix}", **options)
    check(tmp_path / f"a.{suffix}", grey[:, :, None].repeat(3, 2) / 255, atol=3 / 255)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((2, 2), np.float32), "floating-point pixels have no defined range"),
        (np.array([[0, 70_000]], np.int32), "from 0 to 70,000"),
        (np.array([[-5, 7]], np.int32), "from -5 to 7"),
    ],
)
def test_pixels_without_a_defined_range_are_refused(tmp_path, values, says):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.tif")
    assert f"{tmp_path / 'a.tif'}: " in str(caught.value)
    assert says in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_named_by_its_file(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.jpg")
    assert str(tmp_path / "a.jpg") in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def test_threads_leave_the_filters_of_warnings_as_they_are(tmp_path):
    """Warnings of Pillow are hidden, others are not, whichever thread ends first."""
    image = Image.fromarray(RGB)
    buffer = io.BytesIO()
    image.quantize(4).save(buffer, "PNG", transparency=b"\x10\x80\xff\xff")  # Pillow remarks on it
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_image, [tmp_path / "a.png"] * 100))
        with pytest.raises(UserWarning, match="still heard"):
            warnings.warn("still heard", UserWarning, stacklevel=1)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_that_of_pillow(tmp_path, orientation):
    file = turned(tmp_path, orientation)
    with Image.open(file) as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(turn(RGB, orientation), expected)
    assert torch.equal(read_image(file, reading=SHOWN), torch.from_numpy(expected).permute(2, 0, 1) / 255)
    assert header_of(file) == (2, 3, orientation)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pillow_turns_tiff_files_itself(tmp_path, orientation):
    Image.fromarray(RGB).save(tmp_path / "a.tif", tiffinfo={ORIENTATION: orientation})
    expected = torch.from_numpy(turn(RGB, orientation)).permute(2, 0, 1) / 255
    height, width = expected.shape[1:]
    for reading in (SHOWN, Reading()):
        assert torch.equal(read_image(tmp_path / "a.tif", (height, width), reading=reading), expected)
    assert header_of(tmp_path / "a.tif") == (height, width, 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_rubbish_in_exif_does_not_spoil_an_image(tmp_path, exif):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", reading=SHOWN).shape == (3, 2, 3)
    assert header_of(tmp_path / "a.jpg") == (2, 3, 1)


@pytest.mark.parametrize(("orientation", "size"), [(1, (3, 2)), (3, (3, 2)), (6, (4, 2))])
def test_other_sizes_are_errors(tmp_path, orientation, size):
    with pytest.raises(DataError, match=rf"3 x 2 pixels .* says {size[1]} x {size[0]}"):
        read_image(turned(tmp_path, orientation), size=size)
