"""Train, compare and use Faster R-CNN detectors.

``detector.train(data="DIR")`` trains one, ``detector.load(checkpoint)`` gives a trained one, and the other commands are
functions as well: :mod:`detector.api`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if not Path(__path__[0], "configs").is_dir():
    # In a clone `detector.configs` lies beside the package. An installed one has it inside, where the wheel puts it.
    __path__.append(str(Path(__path__[0]).parent))

if TYPE_CHECKING:
    from detector.api import compare, evaluate, inspect_data, predict, train
    from detector.config.configure import configure
    from detector.data.datamodule import DetectionDataModule
    from detector.inference.detector import load
    from detector.training.module import DetectionModule

__all__ = [
    "DetectionDataModule",
    "DetectionModule",
    "compare",
    "configure",
    "evaluate",
    "inspect_data",
    "load",
    "predict",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # PyTorch and Lightning take seconds to import: only who uses them pays for them.
    if name == "load":
        from detector.inference.detector import load

        return load
    if name == "DetectionModule":
        from detector.training.module import DetectionModule

        return DetectionModule
    if name == "DetectionDataModule":
        from detector.data.datamodule import DetectionDataModule

        return DetectionDataModule
    if name in __all__:
        from detector import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
