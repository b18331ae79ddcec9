"""The one reader of image files: every kind that Pillow knows, as RGB. Training and the data doctor share it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_image

from detector.exceptions import DataError

ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held
SIDEWAYS = (5, 6, 7, 8)  # its values that exchange width and height
WHITE = 65535  # the largest value of 16 bits
REMOVE = "replace or remove the file"
OF_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as warnings.filters has it


@dataclass(frozen=True)
class Reading:
    """How the files of a data set are read.

    Attributes:
        upright: turn pictures as their EXIF orientation says, as viewers show them. It decides only where the size in
            an annotation file does not: where there is none, and where turning does not change it.
        white: the value of a 16-bit file that is white.
    """

    upright: bool = False
    white: int = WHITE

    @classmethod
    def of(cls, exif: str, white: int) -> Reading:
        """With "apply" or "auto" for ``exif`` pictures are turned, with "ignore" they are not."""
        return cls(exif != "ignore", white)


STORED, SHOWN = Reading(), Reading(upright=True)


class Pixels(NamedTuple):
    """What an image file holds.

    Attributes:
        array: ``[H, W, 3]`` RGB as it is stored: uint8, or float32 in 0..1 if the file has more than 8 bits.
        orientation: EXIF's, 1..8; 1 if the picture is stored as it is to be shown.
        brightest: the largest value of a file with 16 bits; -1 for one with 8.
    """

    array: np.ndarray
    orientation: int
    brightest: int = -1


class PixelError(ValueError):
    """Pixels that are sound but have no meaning as colours."""


def read_image(
    file: Path, size: tuple[int, int] | None = None, said_by: str = "", reading: Reading = STORED
) -> torch.Tensor:
    """The image as float32 [3, H, W], RGB in 0..1.

    If EXIF says that the picture lies on its side, ``size`` tells whether it was annotated as it is stored or as it is
    shown; ``reading`` decides about the others. Alpha is ignored, 16-bit values are divided by ``reading.white``, and
    of several frames the first is read.

    Args:
        file: the image file.
        size: (height, width) that the image must have; None: any.
        said_by: where ``size`` comes from, for the message.
        reading: what the file does not tell.

    Raises:
        DataError: the file is missing, damaged, of an unknown kind, or of another size.
    """
    array, orientation, _ = read_pixels(file, reading.white, listed=size is not None)
    if is_turned(orientation, array.shape[:2], size, reading.upright):
        array = turn(array, orientation)
    height, width = array.shape[:2]
    if size is not None and (height, width) != size:
        source = f" in {said_by}" if said_by else ""
        raise DataError(
            f"{file} is {width} x {height} pixels (width x height), but its entry{source} says {size[1]} x {size[0]}. "
            "Correct width and height there, or restore the image that was annotated: boxes are in its pixels."
        )
    return to_tensor(array)


def read_drawn(file: Path, size: tuple[int, int] | None, reading: Reading) -> torch.Tensor:
    """:func:`read_image` for drawings: a file of another size than ``size`` is no error."""
    try:
        return read_image(file, size, reading=reading)
    except DataError:
        return read_image(file, reading=reading)


def read_pixels(file: Path, white: int = WHITE, listed: bool = True) -> Pixels:
    """The content of an image file.

    Args:
        file: the image file.
        white: see :class:`Reading`.
        listed: an annotation file names it; for the message.

    Raises:
        DataError: the file is missing, damaged, or of an unknown kind.
    """
    try:
        with open_image(file) as image:
            if image.format == "PNG" and is_reduced(image):
                array, brightest = deep_colours(file, white)
                image.load()  # for what follows the pixels
            else:
                array, brightest = to_rgb(image, white)
            return Pixels(array, orientation_of(image), brightest)
    except MemoryError:
        raise
    except FileNotFoundError:
        raise DataError(f"no image file {file}.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"cannot read the image {file}: it has more than the {limit:,} pixels that Pillow reads; cut it into tiles."
        ) from None
    except PixelError as error:
        raise DataError(f"cannot read the image {file}: {error}.") from None
    except Exception as error:  # Pillow's decoders raise what they like: OSError, SyntaxError, struct.error, ...
        unknown = isinstance(error, UnidentifiedImageError)  # its message may name an object by its address
        reason = "Pillow knows no such kind of file" if unknown else str(error) or type(error).__name__
        remedy = "replace the file, or take its entry out of the annotation file" if listed else REMOVE
        raise DataError(f"cannot read the image {file}: {reason}. It is damaged or not an image; {remedy}.") from None


@contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """``Image.open`` without Pillow's warnings about odd metadata of a file that can be read."""
    # Not warnings.catch_warnings: it changes and restores a list of the whole process, which threads spoil. Once only:
    # a new filter makes Python forget which warnings it has shown.
    if OF_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    with Image.open(file) as image:
        yield image


# -------------------------------------------------------------------------------------------- orientation
def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation of a loaded image, 1..8; 1 where there is none, or none that can be read.

    Pillow turns TIFF files as it loads them, whatever their orientation is: it is 1 then.
    """
    try:
        # The method of PNG images decodes the whole file to find EXIF data behind the pixels.
        value = Image.Image.getexif(image).get(ORIENTATION)
    except Exception:  # rubbish in the metadata does not spoil the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def header_of(file: Path) -> tuple[int, int, int]:
    """Height, width and EXIF orientation of an image file as :func:`read_pixels` has them, without its pixels.

    Zeros for a file that cannot be read.
    """
    try:
        with open_image(file) as image:
            return image.height, image.width, 1 if image.format == "TIFF" else orientation_of(image)
    except Exception:  # the reader of the pixels says what is wrong
        return 0, 0, 0


def is_turned(orientation: int, stored: tuple[int, ...], size: tuple[int, int] | None, upright: bool) -> bool:
    """Whether a picture is to be turned as its EXIF orientation says.

    Args:
        orientation: 1..8.
        stored: (height, width) of the file.
        size: (height, width) that the annotation file says; None: it says nothing.
        upright: see :class:`Reading`.
    """
    if orientation in SIDEWAYS and stored[0] != stored[1] and size is not None:
        return size == stored[::-1]
    return upright and orientation > 1


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """``array`` ([H, W, ...]) as EXIF's ``orientation`` says it is to be shown."""
    if orientation in SIDEWAYS:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


# ------------------------------------------------------------------------------------------------- pixels
def to_tensor(array: np.ndarray) -> torch.Tensor:
    """:attr:`Pixels.array` as float32 [3, H, W] in 0..1."""
    planes = torch.from_numpy(array).permute(2, 0, 1).contiguous()
    return planes.float().div_(255) if planes.dtype == torch.uint8 else planes


def image_tensor(image: Image.Image, reading: Reading) -> torch.Tensor:
    """An image of Pillow's as float32 [3, H, W], RGB in 0..1.

    Raises:
        DataError: its pixels are no colours, or it cannot be loaded.
    """
    try:
        array, _ = to_rgb(image, reading.white)
    except Exception as error:
        raise DataError(f"cannot read the {image.format or 'PIL'} image of mode {image.mode}: {error}") from None
    orientation = orientation_of(image)
    return to_tensor(turn(array, orientation) if reading.upright else array)


def to_rgb(image: Image.Image, white: int) -> tuple[np.ndarray, int]:
    """:attr:`Pixels.array` and :attr:`Pixels.brightest` of an image.

    Raises:
        PixelError: there is no saying which value is white.
    """
    if image.mode == "F":
        raise PixelError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if white != WHITE and is_reduced(image):
        raise PixelError(
            f"of 16-bit colours in a {image.format} file only the upper 8 bits are read, too few with "
            f"data.white={white}; save it as PNG"
        )
    if not image.mode.startswith("I"):
        return np.array(image if image.mode == "RGB" else image.convert("RGB")), -1
    values = np.asarray(image)  # 16-bit grey; Pillow's own conversion to RGB would cut values at 255
    lowest, brightest = int(values.min()), int(values.max())
    if lowest < 0 or brightest > WHITE:
        raise PixelError(
            f"its pixels are whole numbers from {lowest:,} to {brightest:,}, of which 0..{WHITE:,} have a meaning; "
            "save it with 8 or 16 bits"
        )
    return np.repeat(scaled(values, white)[:, :, None], 3, axis=2), brightest


def is_reduced(image: Image.Image) -> bool:
    """Whether the file of an image that is not loaded has colours of 16 bits, of which Pillow keeps 8."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw, str) and ";16" in raw and not image.mode.startswith("I")


def deep_colours(file: Path, white: int) -> tuple[np.ndarray, int]:
    """:func:`to_rgb` for a PNG file with colours of 16 bits."""
    content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    values = decode_image(content, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
    return scaled(values, white), int(values.max())


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """16-bit ``values`` as float32 in 0..1."""
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)
