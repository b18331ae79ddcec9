"""The folder of a run: one process at a time trains in it, and it holds the configuration and the checkpoints."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from detector.config.schema import Config, to_dict
from detector.exceptions import ConfigError
from detector.files import replacing
from detector.training.result import BEST, LAST

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
LOCK = ".training.lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks


@contextmanager
def run_folder_lock(run_dir: str) -> Iterator[None]:
    """Inside the block no other process can train in the folder of a run.

    The lock is one of the operating system, which takes it back when the process ends, however it ends; loader
    processes do not share it. The lock file says who holds the lock. It is removed at the end of the block, and so is
    the folder if it was made here and nothing else was written to it. Where the file system has no locks the run goes
    on without.

    Args:
        run_dir: the folder; made if it is not there.

    Raises:
        ConfigError: another process holds the lock, or the folder cannot be written.
    """
    folder = Path(run_dir).expanduser()
    file = folder / LOCK
    # filelock's soft lock, for file systems without locks, would outlive a process that is killed.
    lock = FileLock(file, fallback_to_soft=False)
    with ExitStack() as undo:
        try:
            if not folder.exists():
                undo.callback(remove_if_empty, folder)
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            undo.callback(lock.release)
            undo.callback(file.unlink, missing_ok=True)  # before the release: then it may belong to another process
            with suppress(PermissionError):  # on SMB a locked file can only be written by the handle that locked it
                file.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        except Timeout:
            raise ConfigError(
                f"run_dir={folder}: another process is training in this folder{holder(file)}. Choose another run_dir; "
                f"or let it end, or stop it, and then go on with its run: run_dir={folder} resume=auto"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise not_writable(folder, error) from None
            undo.callback(file.unlink, missing_ok=True)
            logger.info("note    %s is on a file system without locks: let no second run use it meanwhile", folder)
        yield


def holder(file: Path) -> str:
    """The process that holds the lock ``file``, in brackets; "" if the file does not say."""
    with suppress(OSError):
        words = file.read_text(encoding="utf-8", errors="replace").strip()
        return f" ({words})" if words else ""
    return ""


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless there is something in it."""
    with suppress(OSError):
        folder.rmdir()


def not_writable(folder: Path, error: OSError) -> ConfigError:
    """The message for a folder in which a file could not be written."""
    return ConfigError(f"run_dir={folder}: cannot be written: {error.strerror}")


def write_config(config: Config, checkpoint: Path | None) -> None:
    """Write ``config.yaml`` into the folder of the run, and copy the checkpoints that a new folder starts with.

    To be called inside :func:`run_folder_lock`, after :func:`detector.training.resume.find_start` has accepted the
    folder.

    Args:
        config: of the run.
        checkpoint: that the run starts from; None: it starts at step 0.

    Raises:
        ConfigError: the folder cannot be written.
    """
    folder = Path(config.run_dir).expanduser()
    try:
        with replacing(folder / CONFIG) as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(to_dict(config))), encoding="utf-8")
        (folder / "checkpoints").mkdir(exist_ok=True)
        for draft in (*folder.glob(".[0-9]*-*"), *folder.glob("checkpoints/.[0-9]*-*")):
            draft.unlink()  # left by a process that was killed
        if checkpoint and not (folder / "checkpoints" / LAST).exists():
            copy_checkpoints(checkpoint, folder / "checkpoints")
    except OSError as error:
        raise not_writable(folder, error) from None


def copy_checkpoints(checkpoint: Path, folder: Path) -> None:
    """Copy ``checkpoint``, and the best one if it lies beside it, as ``last.ckpt`` and ``best.ckpt`` of this run.

    The first evaluation of the run may not be better than the best one before.
    """
    best = checkpoint.parent / BEST
    for source, name in ((checkpoint, LAST), (best if best.is_file() else checkpoint, BEST)):
        with replacing(folder / name) as temporary:
            shutil.copyfile(source, temporary)
