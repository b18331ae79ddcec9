"""What ``source=`` may name: images in files, or the frames of a video; both are read in batches of items."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.coco import CocoDataset
from detector.data.images import read_image
from detector.exceptions import ConfigError, DataError
from detector.inference.video import VideoReader
from detector.words import counted

VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: its path below the source, or ``frame_000001`` and so on.
        image_id: its number, from 1, or its id in the annotation file.
        image: float32 [3, H, W], 0..1.
        seconds: the time of a video's frame.
        pts: the same in the video's own units.
    """

    name: str
    image_id: int
    image: Tensor
    seconds: float | None = None
    pts: int | None = None


class ImageSource:
    """Image files in order.

    Args:
        paths: the files.
        names: what they are called in results.
        image_ids: their ids.
        sizes: (height, width) that each must have, as an annotation file says; None: any, turned as EXIF says.
        said_by: that annotation file.
    """

    def __init__(
        self,
        paths: list[Path],
        names: list[str],
        image_ids: list[int],
        sizes: list[tuple[int, int]] | None = None,
        said_by: str = "",
    ):
        self.paths, self.names, self.image_ids, self.sizes, self.said_by = paths, names, image_ids, sizes, said_by

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, positions: list[int]) -> ImageSource:
        """The images at these positions."""
        paths, names, ids = ([column[i] for i in positions] for column in (self.paths, self.names, self.image_ids))
        sizes = None if self.sizes is None else [self.sizes[i] for i in positions]
        return ImageSource(paths, names, ids, sizes, self.said_by)  # type: ignore[arg-type]

    def batches(self, batch_size: int, workers: int) -> Iterator[list[Item | DataError]]:
        """The images in order; in the place of one that cannot be read, the error that says why."""
        # An iterator of the loader's is cheap to leave: nothing is read ahead without workers.
        yield from DataLoader(_Files(self), batch_size=batch_size, num_workers=workers, collate_fn=list)


class _Files(Dataset["Item | DataError"]):
    def __init__(self, source: ImageSource):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item | DataError:
        source = self.source
        try:
            if source.sizes is None:
                image = read_image(source.paths[index], upright=True)
            else:
                image = read_image(source.paths[index], source.sizes[index], source.said_by)
        except DataError as error:
            return error
        return Item(source.names[index], source.image_ids[index], image)


class VideoSource:
    """The frames of a video, decoded one after another."""

    def __init__(self, reader: VideoReader):
        self.reader = reader

    def __len__(self) -> int:
        """Frames, 0 if the file does not say."""
        return self.reader.length

    def batches(self, batch_size: int, workers: int) -> Iterator[list[Item | DataError]]:
        """Frames in order; ``workers`` is not used, a video has one decoder."""
        batch: list[Item | DataError] = []
        for number, frame in enumerate(self.reader.frames(), 1):
            batch.append(Item(f"frame_{number:06d}", number, frame.image, frame.seconds, frame.pts))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


Source = ImageSource | VideoSource


def open_source(source: str, annotations: str = "") -> tuple[Source, CocoDataset | None]:
    """What ``source`` names, and the data set of ``annotations``.

    Raises:
        ConfigError: ``annotations`` without a folder of images.
        DataError: nothing is there, or nothing that can be read.
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
    """The image files that ``source`` names, sorted by path, and the folder that they are named relative to.

    Raises:
        DataError: there are none.
    """
    path = Path(source).expanduser()
    if path.is_file():  # whatever its ending: Pillow looks at the content
        return [path], path.parent
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in endings())
        if not files:
            there = sorted({p.suffix for p in path.rglob("*") if p.is_file() and p.suffix})
            found = f"files ending in {', '.join(there[:8])}" if there else "no files"
            raise DataError(
                f"source={source}: there are no images in this folder, only {found}"
                if there
                else f"source={source}: this folder is empty"
            )
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
    """Endings of the files that Pillow reads."""
    Image.init()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)
