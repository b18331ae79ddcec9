"""Errors of Lightning, PyTorch and the operating system that a user can mend, explained by the keys to change."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from detector.config.schema import Config
from detector.config.targets import in_words, name_of
from detector.exceptions import ConfigError, DetectorError, TrainingError
from detector.files import UNWRITABLE
from detector.training.callbacks.interrupt import Interruption
from detector.training.distributed import ConnectionLost
from detector.training.resume import how_to_resume
from detector.words import first_line

# Words in the errors of collectives when the process at the other end is gone.
LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout", "recvValue failed"),
    *("Timed out waiting", "NCCL error", "gloo"),
)


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Errors inside the block whose reason is known leave it as a :class:`DetectorError` with a message that says what
    to do, and Ctrl-C as a ``KeyboardInterrupt`` with one that says how to go on. All other errors pass unchanged."""
    try:
        yield
    except Interruption:
        raise KeyboardInterrupt(f"interrupted; to go on: {how_to_resume(config)}") from None
    except SystemExit as error:  # Lightning's answer to a KeyboardInterrupt
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt(f"interrupted; to go on: {how_to_resume(config)}") from None
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU is out of memory ({first_line(error)}). A smaller data.batch_size with a larger "
            "optim.accumulate, a smaller model.min_size or trainer.precision=bf16-mixed need less. If it came in the "
            f"middle of the training, larger images came too; to go on: {how_to_resume(config)}"
        ) from None
    except MemoryError:
        raise TrainingError(out_of_memory(config)) from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise TrainingError(
            f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}. The last checkpoint "
            f"that was written is whole. Make room, then go on: {how_to_resume(config)}"
        ) from None
    except torch.distributed.DistError as error:
        raise ConnectionLost(lost(error)) from None
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise TrainingError(
                f"a loader process ended: {first_line(error)} If the machine ran out of memory, use fewer "
                f"data.workers. To go on: {how_to_resume(config)}"
            ) from None
        if any(kind.__name__ == "BackendCompilerFailed" for kind in type(error).__mro__):  # torch._dynamo's
            raise ConfigError(
                f"compile=backbone: torch.compile failed ({first_line(error)}). It needs a C++ compiler (g++) on a CPU "
                "and Triton on a GPU; compile=none needs neither."
            ) from None
        if "DefaultCPUAllocator" in str(error):
            raise TrainingError(out_of_memory(config)) from None
        if str(error).startswith("Function '") and "returned nan values" in str(error):  # trainer.detect_anomaly
            raise TrainingError(
                f"{first_line(error)} The operation that its forward pass belongs to is in the traceback that PyTorch "
                "has printed above. A lower optim.lr, optim.clip_norm=1 or trainer.precision=32 help where numbers "
                "grew too large."
            ) from None
        if torch.distributed.is_initialized() and any(word in str(error) for word in LOST):
            raise ConnectionLost(lost(error)) from None
        raise


@contextmanager
def blamed(parts: Mapping[str, Any]) -> Iterator[None]:
    """What a callback or logger of the user's raises leaves the block as :class:`ConfigError` with its key.

    It is the cause of that error. A :class:`DetectorError` says enough and passes unchanged.

    Args:
        parts: key -> the callback or logger.
    """
    try:
        yield
    except DetectorError:
        raise
    except Exception as error:
        for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
            for key, part in parts.items():
                if frame.f_locals.get("self") is part:
                    raise ConfigError(f"{key}: {name_of(type(part))} failed with {in_words(error)}") from error
        raise


def out_of_memory(config: Config) -> str:
    """The message for a machine without free memory, of a run of ``config``."""
    return (
        "the machine is out of memory: a smaller data.batch_size with a larger optim.accumulate, a smaller "
        f"model.min_size or fewer data.workers need less. To go on: {how_to_resume(config)}"
    )


def lost(error: BaseException) -> str:
    """The message for a collective that failed."""
    return (
        f"another process of this run has ended, and its message says why; this one lost the connection "
        f"({first_line(error)})"
    )
