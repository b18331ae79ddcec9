"""Files of named tensors: read without running code from them, and held against those of a model."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.exceptions import WeightsError
from detector.words import first_line

LISTED = 5  # a message names this many keys of each kind
BEGINNING = 512  # bytes of a file that tell what it is
SAVED = "torch.save(network.state_dict(), FILE)"


def read_tensors(path: Path, named: str, finite: bool = True) -> Any:
    """The content of a file of ``torch.save``, on the CPU, without running code from it.

    Args:
        path: a file that exists.
        named: how messages name it.
        finite: refuse tensors with NaN or infinite values, in the file or in a dict in it.

    Raises:
        WeightsError: the file is damaged, holds other things than tensors and plain values, or values that no training
            can start from.
    """
    try:
        reason = foreign(path)
        content = None if reason else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # PyTorch's message advises to run what is in the file
        reason = (
            pickled_module(path) or "it is no file of torch.save, or holds other things than tensors and plain values"
        )
    except OSError as error:
        reason = first_line(error)
    except Exception as error:  # torch.load raises a different type for each kind of damage, with PyTorch's insides
        reason = f"it is damaged or cut off, or no file of torch.save ({type(error).__name__})"
    if reason:
        raise WeightsError(f"{named}: cannot be read ({path.stat().st_size:,} bytes): {reason}.")
    wrong = [key for key, value in named_tensors(content) if not is_finite(value)] if finite else []
    if wrong:
        raise WeightsError(
            f"{named}: {len(wrong)} of its tensors have NaN or infinite values: {', '.join(wrong[:LISTED])}"
            f"{', ...' if len(wrong) > LISTED else ''}. The training that wrote it went wrong: give an earlier file"
        )
    return content


def foreign(path: Path) -> str:
    """What the file of another program is, and what to do with it, in words; "" for what may be one of torch.save.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        begins = file.read(BEGINNING)
    text = begins.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is an HTML page, not the file that the page leads to: download that"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, which stands for the file: run `git lfs pull` where it was cloned"
    if text.startswith((b"{", b"[")):
        return f"it is a JSON file, not one of {SAVED}"
    if begins[8:9] == b"{" and 1 < int.from_bytes(begins[:8], "little") < path.stat().st_size:
        return "it is a safetensors file: write it anew with torch.save(safetensors.torch.load_file(FILE), NEW_FILE)"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return (
                    "it is a TorchScript archive, a program and its weights: take the weights out of it with "
                    "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
                )
    return ""


def pickled_module(path: Path) -> str:
    """That a file of ``torch.save`` holds a module, and what to do about it, in words; "" if it holds none."""
    try:
        needed = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged pickle, or one of before PyTorch 1.6
        return ""
    if not any(name.startswith("torch.nn.modules.") for name in needed):
        return ""
    own = next((name for name in needed if not name.startswith("torch.nn.modules.")), needed[0])
    return f"it holds a whole pickled module ({own}), which is code. Save its weights alone: {SAVED}"


def named_tensors(content: Any, depth: int = 2) -> Iterator[tuple[str, Tensor]]:
    """The tensors by name of a dict, and of the dicts in it."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield str(key), value
        elif depth > 1:
            yield from named_tensors(value, depth - 1)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are; tensors of whole numbers, and of kinds that cannot be asked, count as such."""
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return True
    return tensor.layout != torch.strided or bool(torch.isfinite(tensor).all())


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
