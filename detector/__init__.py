"""Train, compare and use Faster R-CNN detectors. ``detector.load(checkpoint)`` gives a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if not Path(__path__[0], "configs").is_dir():
    # In a clone `detector.configs` lies beside the package. An installed one has it inside, where the wheel puts it.
    __path__.append(str(Path(__path__[0]).parent))

if TYPE_CHECKING:
    from detector.data.datamodule import DetectionDataModule
    from detector.inference.detector import load
    from detector.training.module import DetectionModule

__all__ = ["DetectionDataModule", "DetectionModule", "load"]


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
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
