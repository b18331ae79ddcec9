"""Reads and writes videos through PyAV, an optional dependency that brings its own FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.exceptions import DataError

CODECS = (("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"qscale": "3"}))


def library() -> ModuleType:
    """PyAV.

    Raises:
        DataError: it is not installed; names the extra.
    """
    try:
        import av
    except ImportError:
        raise DataError(
            "videos need the library PyAV, which is not installed: pip install "
            "'multiscale-rcnn[video]', or pip install av. Images work without it."
        ) from None
    return av


@dataclass(frozen=True)
class Frame:
    """A frame: float32 [3, H, W] in 0..1, its time in seconds, and its time in the units of the stream."""

    image: Tensor
    seconds: float | None
    pts: int


class VideoReader:
    """The first video stream of a file.

    Attributes:
        length: number of frames; 0 if the file does not say.
        rate: frames per second, on average.
        time_base: seconds per unit of ``pts``.

    Raises:
        DataError: PyAV is missing, or the file cannot be read as a video.
    """

    def __init__(self, path: Path):
        self.path = path
        av = library()
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise DataError(f"{path}: there is no picture in this file, only sound")
                stream = container.streams.video[0]
                self.length = int(stream.frames or 0)
                self.rate = Fraction(stream.average_rate or 25)
                self.time_base = Fraction(stream.time_base or 1 / self.rate)
        except av.error.FFmpegError as error:
            raise DataError(f"{path}: cannot be read as a video: {error.strerror or error}") from None

    def frames(self) -> Iterator[Frame]:
        """All frames in order, rotated as the file says.

        Raises:
            DataError: the file is damaged.
        """
        av = library()
        pts = -1
        try:
            with av.open(str(self.path)) as container:
                container.streams.video[0].thread_type = "AUTO"
                for frame in container.decode(video=0):
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
                    pts = pts + 1 if frame.pts is None else max(frame.pts, pts + 1)
                    yield Frame(image, frame.time, pts)
        except av.error.FFmpegError as error:
            raise DataError(f"{self.path}: damaged after {max(pts, 0)} frames: {error.strerror or error}") from None


class VideoWriter:
    """Writes an MP4 without sound, in H.264 where PyAV has it.

    Most players need even sizes: for an odd height or width, the last row or column is written twice.

    Args:
        path: the file.
        rate: frames per second.
        time_base: seconds per unit of ``pts``.
    """

    def __init__(self, path: Path, rate: Fraction, time_base: Fraction):
        av = library()
        self._av, self._rate, self._time_base = av, rate, time_base
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: Any = None

    def write(self, pixels: np.ndarray, pts: int) -> None:
        """Append a frame, uint8 [H, W, 3]. All frames have one size, and ``pts`` ascends."""
        height, width = pixels.shape[:2]
        if self._stream is None:
            codec, options = next((c, o) for c, o in CODECS if c in self._av.codecs_available)
            stream = self._container.add_stream(codec, rate=self._rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            stream.codec_context.time_base = self._time_base
            self._stream = stream
        padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and end the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
