"""The files that ``predict`` writes: COCO results, a COCO data set with scores, a table, and pictures with boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from torch import Tensor

from detector.evaluation.detections import Detections
from detector.files import replacing
from detector.inference.detector import Prediction
from detector.inference.sources import InputImage, Source, VideoSource

RESULTS, DATASET, TABLE = "predictions.json", "coco.json", "predictions.csv"
DRAWN, DRAWN_VIDEO = "drawn", "drawn.mp4"
SOURCE = "source"  # in the "info" of the data set: what the images were
FILES = (RESULTS, DATASET, TABLE, DRAWN, DRAWN_VIDEO)
JPEG = (".jpg", ".jpeg")
COLUMNS = ("image", "image_id", "seconds", "name", "score", "x1", "y1", "x2", "y2")


class PredictionFiles:
    """Collects detections image by image and writes them.

    Args:
        class_names: ``class_names[label - 1]`` is the name of a label.
        category_ids: their category ids in the files.
        source: where the images come from; it is kept in the data set.
    """

    def __init__(self, class_names: Sequence[str], category_ids: Sequence[int], source: str = ""):
        self.source = source
        self.category_ids = list(category_ids)
        self.names = dict(zip(self.category_ids, class_names, strict=True))
        self._parts: list[Detections] = []
        self._images: dict[int, dict[str, Any]] = {}
        self._times: dict[int, str] = {}

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def add(self, image: InputImage, output: dict[str, Tensor]) -> None:
        """Add ``boxes`` (xyxy pixels), ``labels`` and ``scores`` of one image."""
        number, (height, width) = image.image_id, image.pixels.shape[-2:]
        self._images[number] = {"id": number, "file_name": image.name, "height": height, "width": width}
        self._times[number] = "" if image.seconds is None else f"{image.seconds:.3f}"
        self._parts.append(Detections.from_model([output], [number], self.category_ids))

    def write(self, folder: Path) -> None:
        """Write the three files into ``folder``, each in one step."""
        Detections.concat(self._parts).to_json(folder / RESULTS)
        rows = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        dataset = {
            "info": {"description": "detections with scores", SOURCE: self.source},
            "images": list(self._images.values()),
            "annotations": [
                {"id": number, **row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
                for number, row in enumerate(rows, 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in self.names.items()],
        }
        with replacing(folder / DATASET) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(dataset, file, indent=1, allow_nan=False)
        with replacing(folder / TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in rows:
                number, (x, y, w, h) = row["image_id"], row["bbox"]
                found = self.names[row["category_id"]], f"{row['score']:.4f}"
                box = [f"{v:.2f}" for v in (x, y, x + w, y + h)]
                writer.writerow([self._images[number]["file_name"], number, self._times[number], *found, *box])


@contextmanager
def drawn_images(
    folder: Path, source: Source, score_thresh: float
) -> Iterator[Callable[[InputImage, Prediction], None]]:
    """A function that writes an image of ``source`` with its boxes; a video is complete when the block ends.

    JPEG files stay JPEG, and all others become PNG. Each image has a file of its own below the folder.
    """
    with ExitStack() as stack:
        video: Any = None
        if isinstance(source, VideoSource):
            path = stack.enter_context(replacing(folder / DRAWN_VIDEO))
            video = stack.enter_context(closing(source.writer(path)))
        used: set[str] = set()

        def draw(image: InputImage, prediction: Prediction) -> None:
            drawn = prediction.above(score_thresh).draw(image.pixels)
            if video is not None:
                video.write(np.asarray(drawn), image.pts)
                return
            path = folder / DRAWN / drawn_name(image, used)
            jpeg = path.suffix.lower() in JPEG
            with replacing(path) as temporary:
                drawn.save(temporary, format="JPEG" if jpeg else "PNG", **({"quality": 92} if jpeg else {}))

        yield draw


def drawn_name(image: InputImage, used: set[str]) -> Path:
    """A relative path for the drawing of ``image`` that no other has, in any case of letters; it goes to ``used``.

    The names of an annotation file may be absolute, or lead out of the folder with "..".
    """
    parts = [part for part in PurePath(image.name).parts if part not in (PurePath(image.name).anchor, "..")]
    path = Path(*parts) if parts else Path(str(image.image_id))
    if path.suffix.lower() not in (*JPEG, ".png"):
        path = path.with_name(f"{path.name}.png")
    plain = path
    for number in count(2):
        if str(path).casefold() not in used:
            break
        path = plain.with_name(f"{plain.stem}-{number}{plain.suffix}")
    used.add(str(path).casefold())
    return path
