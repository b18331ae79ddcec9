"""Train, compare and use Faster R-CNN detectors. ``detector.load(checkpoint)`` gives a trained one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.inference.detector import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # PyTorch and Lightning take seconds to import: only who loads a detector pays for them.
    if name == "load":
        from detector.inference.detector import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
