"""Reads image files of any kind that Pillow knows as RGB tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps

from detector.exceptions import DataError

ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held
SIDEWAYS = (5, 6, 7, 8)  # its values that exchange width and height


def read_image(
    file: Path, size: tuple[int, int] | None = None, said_by: str = "", upright: bool = False
) -> torch.Tensor:
    """The image as float32 [3, H, W], RGB in 0..1.

    Boxes refer to the pixels as they are stored, so EXIF orientation is not applied. Only if ``size`` has the stored
    width and height exchanged and EXIF says that the picture lies on its side was the annotation made on the turned
    picture, and it is turned here too. Alpha is ignored, 16-bit grey values are scaled by 1 / 65535, and of several
    frames the first is read.

    Args:
        file: the image file.
        size: (height, width) that the image must have; None: any.
        said_by: where ``size`` comes from, for the message.
        upright: turn the picture as EXIF says, as viewers show it; for pictures without annotations.

    Raises:
        DataError: the file is missing, damaged, of an unknown kind, or of another size.
    """
    try:
        with quiet_open(file) as stored:
            stored.load()
            if upright:
                return image_tensor(ImageOps.exif_transpose(stored))
            fits = size is None or (stored.height, stored.width) == size
            return image_tensor(stored if size is None or fits else _turned(stored, size, file, said_by))
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        raise DataError(f"no image file {file}.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"cannot read the image {file}: it has more than the {limit:,} pixels that Pillow reads; cut it into tiles."
        ) from None
    except Exception as error:  # Pillow's decoders raise what they like: OSError, SyntaxError, struct.error, ...
        entry = ", or take its entry out of the annotation file"
        remedy = "replace or remove the file" if size is None else f"replace the file{entry}"
        raise DataError(
            f"cannot read the image {file}: {error or type(error).__name__}. It is damaged or not an image; {remedy}."
        ) from None


@contextmanager
def quiet_open(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """``Image.open`` without Pillow's warnings about odd metadata of a file that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            yield image


def image_tensor(image: Image.Image) -> torch.Tensor:
    """``image`` as float32 [3, H, W], RGB in 0..1.

    Raises:
        ValueError: its pixels are floating-point numbers.
    """
    planes = torch.from_numpy(_to_rgb(image)).permute(2, 0, 1).contiguous()
    return planes.float().div_(255) if planes.dtype == torch.uint8 else planes


def _turned(image: Image.Image, size: tuple[int, int], file: Path, said_by: str) -> Image.Image:
    """The image turned as EXIF says, if that gives it ``size`` (height, width); else an error."""
    if image.getexif().get(ORIENTATION) in SIDEWAYS and (image.width, image.height) == size:
        return ImageOps.exif_transpose(image)
    source = f" in {said_by}" if said_by else ""
    raise DataError(
        f"{file} is {image.width} x {image.height} pixels (width x height), but its entry{source} says "
        f"{size[1]} x {size[0]}. Correct width and height there, or restore the image that was annotated: "
        "boxes are in its pixels."
    )


def _to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels as uint8 [H, W, 3], or float32 [H, W, 3] in 0..1 if they have more than 8 bits."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion to RGB would cut values at 255
        grey = np.clip(np.asarray(image, dtype=np.float32) / np.float32(65535), 0, 1)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
