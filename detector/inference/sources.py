"""What ``source=`` may name: image files, the frames of one animated or multi-page file, or those of a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.data.annotations import Annotations, load_lists, parse_annotations
from detector.data.file_names import Found, absent, find_files
from detector.data.images import SHOWN, Reading, image_tensor, open_image, read_image
from detector.data.orientation import Evidence, Headers, find_evidence
from detector.exceptions import ConfigError, DataError, MissingData
from detector.files import problem_list
from detector.inference.source_files import VIDEOS, find_images
from detector.inference.video import VideoReader, VideoWriter
from detector.words import counted

FRAMED = {".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
REDUCED = 0x00FE  # the TIFF tag whose lowest bit marks a page as a smaller copy of another one


@dataclass(frozen=True)
class InputImage:
    """One image of a source.

    Attributes:
        name: its path relative to the source, or ``frame_000001`` and so on.
        image_id: its number, from 1, or its id in the annotation file.
        pixels: float32 [3, H, W], 0..1.
        seconds: the time of a video's frame.
        pts: the same time in the units of the video.
        frames: frames or pages of the file; this is the first of them.
    """

    name: str
    image_id: int
    pixels: Tensor
    seconds: float | None = None
    pts: int = 0
    frames: int = 1


@dataclass(frozen=True)
class ImageSource(Dataset["InputImage | DataError"]):
    """Image files in order. An item is an image, or the error that says why it cannot be read.

    Attributes:
        paths: the files.
        names: their names in results.
        image_ids: their ids.
        sizes: (height, width) that each must have according to an annotation file; None: an image may have any size.
        said_by: that annotation file.
        skipped: what was found and is not read, in words.
        reading: how the files are read.
    """

    paths: list[Path]
    names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int] | None] | None = None
    said_by: str = ""
    skipped: str = ""
    reading: Reading = SHOWN

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> InputImage | DataError:
        size = None if self.sizes is None else self.sizes[index]
        path = self.paths[index]
        try:
            pixels = read_image(path, size, self.said_by, self.reading)
        except DataError as error:
            return error
        return InputImage(self.names[index], self.image_ids[index], pixels, frames=len(frames_of(path)))

    @property
    def evidence(self) -> Evidence:
        """What the sizes tell about pictures that EXIF turns."""
        sizes = [size or (0, 0) for size in self.sizes or ()]
        headers = Headers(Path(), np.array([str(path) for path in self.paths[: len(sizes)]], dtype=str))
        return find_evidence(headers, np.array(sizes, dtype=np.int64).reshape(-1, 2))

    def batches(self, batch_size: int, workers: int) -> Iterator[list[InputImage | DataError]]:
        """All items in order, read by ``workers`` processes."""
        yield from DataLoader(self, batch_size=batch_size, num_workers=workers, collate_fn=list)


class FrameSource:
    """The frames of an animated image, or the pages of a TIFF file, one after another."""

    skipped = ""

    def __init__(self, path: Path):
        self.path = path
        self.frames = frames_of(path)
        self.reading = SHOWN

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def batches(self, batch_size: int, workers: int) -> Iterator[list[InputImage | DataError]]:
        """All frames in order; ``workers`` is not used, because a frame may be drawn over the one before."""
        images = self.read()
        while batch := list(islice(images, batch_size)):
            yield batch

    def read(self) -> Iterator[InputImage | DataError]:
        """Each frame, and the error of the first that cannot be read."""
        word = "page" if FRAMED.get(self.path.suffix.lower()) == "TIFF" else "frame"
        seconds = 0.0
        with open_image(self.path) as image:
            for number, frame in enumerate(self.frames, 1):
                try:
                    image.seek(frame)
                    pixels = image_tensor(image, self.reading)
                except Exception as error:  # Pillow's decoders raise what they like
                    yield DataError(
                        f"{self.path}: {word} {number} cannot be read: {str(error) or type(error).__name__}"
                    )
                    return
                name = f"{word}_{number:06d}"
                yield InputImage(name, number, pixels, None if word == "page" else seconds)
                seconds += float(image.info.get("duration", 0)) / 1000


class VideoSource:
    """The frames of a video, decoded one after another."""

    skipped = ""

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


Source = ImageSource | FrameSource | VideoSource


def open_source(source: str, key: str = "source") -> Source:
    """The images that ``source`` names.

    Args:
        source: a file, a folder, or a pattern.
        key: the key that gave it, for messages.

    Raises:
        DataError: there is nothing, or nothing that can be read.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return VideoSource(VideoReader(path))
    files, root, skipped = find_images(source, key)
    if path.is_file() and len(frames_of(path)) > 1:
        return FrameSource(path)
    names = [Path(os.path.relpath(file, root)).as_posix() for file in files]
    endings = ", ".join(f"{count:,} {ending}" for ending, count in skipped.most_common(5))
    said = f"{counted(skipped.total(), 'other file')} skipped ({endings})" if skipped else ""
    return ImageSource(files, names, list(range(1, len(files) + 1)), skipped=said)


def open_listed(source: str, annotations: str) -> tuple[ImageSource, Annotations, list[str]]:
    """The images that an annotation file lists, with their ids; their objects are not needed.

    Args:
        source: the folder of the images.
        annotations: COCO JSON with "images"; "categories", "annotations", and the sizes of the images may be missing.

    Returns:
        The images that are there, what the file holds, and sentences on file names that mean another file.

    Raises:
        ConfigError: ``source`` is not a folder.
        DataError: the file cannot be used, or none of its images is in the folder.
    """
    folder, file = Path(source).expanduser(), Path(annotations).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"source={source}: with annotations, source is the folder of their images")
    read = read_listed(file)
    all_names = read.file_names.tolist()
    missing = absent(folder, all_names)
    lost = read.file_names[missing].tolist()
    found = find_files(folder, lost, read.file_names[~missing].tolist()) if lost else Found()
    there = [row for row, gone in enumerate(missing.tolist()) if not gone or all_names[row] in found.files]
    if not there:
        raise DataError(
            f"source={source}: none of the {counted(len(lost), 'image')} of {file} is in this folder; the first would "
            f"be {folder / lost[0]}"
        )
    left = [name for name in lost if name not in found.files]
    named = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
    listed = ImageSource(
        paths=[folder / found.files.get(all_names[row], all_names[row]) for row in there],
        names=[all_names[row] for row in there],
        image_ids=read.image_ids[there].tolist(),
        sizes=[(h, w) if h and w else None for h, w in read.sizes[there].tolist()],
        said_by=annotations,
        skipped=f"{counted(len(left), 'image')} of {file} not in the folder ({named})" if left else "",
    )
    return listed, read, list(found.sentences(all_names, folder).values())


def read_listed(file: Path) -> Annotations:
    """The entries of an annotation file, of which only images need to be there and right.

    Raises:
        MissingData: there is no such file.
        DataError: it lists no images, or an image without an id of its own or a file name.
    """
    try:
        content = load_lists(file, needed=("images",))
    except MissingData as error:
        raise DataError(f"annotations={error}") from None
    read = parse_annotations(file, content, need_pictures=False, strict=False)
    wrong = [str(problem) for problem in read.structure if problem.kind == "bad_image"]
    wrong += [f"image {i} has no 'file_name'" for i in read.image_ids[read.file_names == ""].tolist()]
    if wrong:
        raise problem_list(
            f"{file}: {counted(len(wrong), 'image')} of {len(content['images']):,} cannot be found",
            wrong,
            "An image needs an 'id', a whole number that no other image has, and a 'file_name'.",
        )
    if not content["images"]:
        raise DataError(f"{file}: the list 'images' is empty.")
    return read


def frames_of(path: Path) -> list[int]:
    """The frames or pages of an image file; not smaller copies of a page. One, if it is of a kind that has no more."""
    if path.suffix.lower() not in FRAMED:
        return [0]
    try:
        with open_image(path) as image:
            count = getattr(image, "n_frames", 1)
            if image.format not in FRAMED.values() or count == 1:
                return [0]
            return [frame for frame in range(count) if not is_smaller_copy(image, frame)]
    except Exception:  # Pillow's decoders raise what they like; the reader of the image says what is wrong
        return [0]


def is_smaller_copy(image: Image.Image, frame: int) -> bool:
    """Whether a page of a TIFF file is a copy of another one in a lower resolution."""
    if image.format != "TIFF" or frame == 0:
        return False
    image.seek(frame)
    return bool(image.tag_v2.get(REDUCED, 0) & 1)  # type: ignore[attr-defined]
