"""One process at a time trains in the folder of a run."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from detector.exceptions import ConfigError

logger = logging.getLogger(__name__)

LOCK = ".training.lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without locks say


@contextmanager
def claimed(run_dir: str) -> Iterator[None]:
    """Hold the folder of a run inside the block, against every other process that wants to train in it.

    The lock is one of the system, which takes it back when the process ends, however it ends; loader processes do not
    share it. Its file says who holds it and is removed at the end, with the folder if nothing else came into it. Where
    the file system has no locks the run goes on without.

    Args:
        run_dir: the folder; made if it is not there.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    folder = Path(run_dir).expanduser()
    file = folder / LOCK
    # The other way to lock, where there are no locks of the system, would outlive a process that is killed.
    lock = FileLock(file, fallback_to_soft=False)
    with ExitStack() as undo:
        try:
            if not folder.exists():
                undo.callback(remove_if_empty, folder)
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            undo.callback(lock.release)
            undo.callback(file.unlink, missing_ok=True)  # before the release: afterwards it may be another one's
            with suppress(PermissionError):  # SMB lets nobody touch a locked file but through the handle that locked it
                file.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        except Timeout:
            raise ConfigError(
                f"run_dir={folder}: another process is training in this folder{holder(file)}. Choose another run_dir; "
                f"or let it end, or stop it, and then go on with its run: run_dir={folder} resume=auto"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise ConfigError(f"run_dir={folder}: cannot be written: {error.strerror}") from None
            undo.callback(file.unlink, missing_ok=True)
            logger.info("note    %s is on a file system without locks: let no second run use it meanwhile", folder)
        yield


def holder(file: Path) -> str:
    """Who holds the lock of ``file``, in brackets; "" if it does not say."""
    with suppress(OSError):
        words = file.read_text(encoding="utf-8", errors="replace").strip()
        return f" ({words})" if words else ""
    return ""


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless there is something in it."""
    with suppress(OSError):
        folder.rmdir()
