"""Files of named tensors: read without running code from them, and held against those of a model."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.exceptions import WeightsError
from detector.words import first_line

LISTED = 5  # a message names this many keys of each kind


def read_tensors(path: Path, named: str) -> Any:
    """The content of a file of ``torch.save``, on the CPU, without running code from it.

    Args:
        path: a file that exists.
        named: how messages name it.

    Raises:
        WeightsError: the file is damaged, or holds other things than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # PyTorch's message advises to run what is in the file
        reason = "it is no file of torch.save, or holds other things than tensors and plain values"
    except OSError as error:
        reason = first_line(error)
    except Exception as error:  # torch.load raises a different type for each kind of damage, with PyTorch's insides
        reason = f"it is damaged or cut off, or no file of torch.save ({type(error).__name__})"
    raise WeightsError(f"{named}: cannot be read ({path.stat().st_size:,} bytes): {reason}.")


def mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How the keys and shapes of ``state`` differ from those of ``own``, in words; "" if they do not."""
    missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
    mismatched = [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    parts = [
        f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{', ...' if len(keys) > LISTED else ''}"
        for kind, keys in kinds
        if keys
    ]
    return f"Keys {'; '.join(parts)}" if parts else ""
