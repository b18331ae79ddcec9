"""What ``source=`` may name: image files, or the frames of a video. Both are read in batches."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import CocoDataset
from detector.data.images import SHOWN, Reading, read_image
from detector.exceptions import ConfigError, DataError
from detector.inference.video import VideoReader, VideoWriter
from detector.words import counted

VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")


@dataclass(frozen=True)
class InputImage:
    """One image of a source.

    Attributes:
        name: its path relative to the source, or ``frame_000001`` and so on.
        image_id: its number, from 1, or its id in the annotation file.
        pixels: float32 [3, H, W], 0..1.
        seconds: the time of a video's frame.
        pts: the same time in the units of the video.
    """

    name: str
    image_id: int
    pixels: Tensor
    seconds: float | None = None
    pts: int = 0


@dataclass(frozen=True)
class ImageSource(Dataset["InputImage | DataError"]):
    """Image files in order. An item is an image, or the error that says why it cannot be read.

    Attributes:
        paths: the files.
        names: their names in results.
        image_ids: their ids.
        sizes: (height, width) that each must have according to an annotation file; None: images may have any size.
        said_by: that annotation file.
        reading: how the files are read.
    """

    paths: list[Path]
    names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int]] | None = None
    said_by: str = ""
    reading: Reading = SHOWN

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> InputImage | DataError:
        size = None if self.sizes is None else self.sizes[index]
        try:
            pixels = read_image(self.paths[index], size, self.said_by, self.reading)
        except DataError as error:
            return error
        return InputImage(self.names[index], self.image_ids[index], pixels)

    def batches(self, batch_size: int, workers: int) -> Iterator[list[InputImage | DataError]]:
        """All items in order, read by ``workers`` processes."""
        yield from DataLoader(self, batch_size=batch_size, num_workers=workers, collate_fn=list)


class VideoSource:
    """The frames of a video, decoded one after another."""

    def __init__(self, reader: VideoReader):
        self.reader = reader

    def __len__(self) -> int:
        """Number of frames, 0 if the file does not say."""
        return self.reader.length

    def batches(self, batch_size: int, workers: int) -> Iterator[list[InputImage | DataError]]:
        """All frames in order; ``workers`` is not used, because a video has one decoder."""
        images = (
            InputImage(f"frame_{number:06d}", number, frame.image, frame.seconds, frame.pts)
            for number, frame in enumerate(self.reader.frames(), 1)
        )
        while batch := list(islice(images, batch_size)):
            yield batch  # type: ignore[misc]  # a list of images is one of images or errors

    def writer(self, path: Path) -> VideoWriter:
        """A writer of a video with the times of this one."""
        return VideoWriter(path, self.reader.rate, self.reader.time_base)


Source = ImageSource | VideoSource


def open_source(source: str, annotations: str = "") -> tuple[Source, CocoDataset | None]:
    """The images that ``source`` names, and the data set of ``annotations`` if they are given.

    Raises:
        ConfigError: ``annotations`` are given, and ``source`` is not a folder.
        DataError: there is nothing, or nothing that can be read.
    """
    path = Path(source).expanduser()
    if annotations:
        if not path.is_dir():
            raise ConfigError(f"source={source}: with annotations, source is the folder of their images")
        data = CocoDataset(annotations, path, on_invalid="drop")
        if not len(data):
            raise DataError(f"{path}: none of the images of {annotations} is in this folder")
        names = [str(name) for name in data.table.file_names]
        paths = [data.file_path(i) for i in range(len(data))]
        return ImageSource(paths, names, data.image_ids, data.sizes, annotations), data
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return VideoSource(VideoReader(path)), None
    files, root = find_images(source)
    names = [Path(os.path.relpath(file, root)).as_posix() for file in files]
    return ImageSource(files, names, list(range(1, len(files) + 1))), None


def find_images(source: str) -> tuple[list[Path], Path]:
    """The image files that ``source`` names, sorted by path, and the folder that their names are relative to.

    Raises:
        DataError: there are none.
    """
    path = Path(source).expanduser()
    if path.is_file():  # its ending does not matter: Pillow looks at the content
        return [path], path.parent
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in endings())
        if not files:
            there = sorted({p.suffix for p in path.rglob("*") if p.is_file() and p.suffix})
            found = f"there are no images in this folder, only files ending in {', '.join(there[:8])}"
            raise DataError(f"source={source}: {found if there else 'this folder is empty'}")
        return files, path
    if glob.has_magic(source):
        matched = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        files = [p for p in matched if p.is_file() and p.suffix.lower() in endings()]
        if not files:
            raise DataError(
                f"source={source}: {counted(len(matched), 'file matches', 'files match')} this pattern, "
                f"and no image is among them (relative paths start at {Path.cwd()})"
            )
        return files, Path(os.path.commonpath([file.parent for file in files]))
    raise DataError(
        f"source={source}: there is no such file or folder (relative paths start at {Path.cwd()}); give an "
        "image, a folder of images, a pattern in quotes such as 'photos/*.jpg', or a video"
    )


@cache
def endings() -> frozenset[str]:
    """Endings of the files that Pillow can read."""
    Image.init()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)
