"""The scripts in processes that need not import PyTorch and Lightning first: a server has imported them, and forks.

After the imports much is as in a process of its own: arguments, working directory, output, signals, exit code, and the
environment as far as it is read then. Not so:

- Variables that are read while libraries are imported (``OMP_*``, ``MKL_*``, ``CUDA_*``) are those of the server, that
  is, those that this module was imported with. A command with others is refused.
- What is registered with :mod:`atexit` does not run at the end.

What depends on these needs a process that is started: ``.ci/run`` trains and evaluates in such ones, and so do the last
run of ``test_five_kills`` and ``test_torchrun_makes_one_folder``.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["detector.training.train", "detector.evaluation.evaluate", "torch.utils.tensorboard"])
AT_IMPORT = ("OMP_", "MKL_", "CUDA_")  # how the names of variables begin that libraries read while they are imported


class Forked:
    """A running command; the names are those of :class:`subprocess.Popen`. It leads a process group.

    Args:
        command: ``[sys.executable, "scripts/NAME.py", *arguments]``.
        cwd: where it runs.
        env: its environment; by default that of this process. Variables of :data:`AT_IMPORT` are as here.
    """

    def __init__(self, command: list[str], *, cwd: str | Path, env: dict[str, str] | None = None):
        assert command[0] == sys.executable
        environment = dict(os.environ) if env is None else env
        assert at_import(environment) == SERVERS, "the server has imported what reads these variables"
        self.command = command
        self.files = [tempfile.NamedTemporaryFile(suffix=name) for name in ("stdout", "stderr")]  # noqa: SIM115
        self.process = SERVER.Process(
            target=_run, args=(command[1:], str(cwd), environment, [file.name for file in self.files])
        )
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def kill_group(self) -> None:
        """End it and what it has started."""
        if self.process.exitcode is None:
            self.process.kill()
        with contextlib.suppress(ProcessLookupError):  # it had not begun yet, or all have ended
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; :class:`subprocess.TimeoutExpired` if it runs on after ``timeout`` seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.command, timeout)
        return self.process.exitcode

    def output(self) -> str:
        """What it has printed so far."""
        return Path(self.files[0].name).read_text()

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for the end; what it has printed. After ``timeout`` seconds its group is killed, unlike Popen's."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill_group()
            error.output, error.stderr = (Path(file.name).read_bytes() for file in self.files)
            raise
        out, err = (Path(file.name).read_text() for file in self.files)
        return out, err


def at_import(env: Mapping[str, str]) -> dict[str, str]:
    """Those variables that count only while libraries are imported."""
    mine = {name: value for name, value in env.items() if name.startswith(AT_IMPORT)}
    mine.pop("CUDA_MODULE_LOADING", None)  # PyTorch sets it when it first uses a GPU
    return mine


SERVERS = at_import(os.environ)  # the server inherits them


def run(
    command: list[str], *, cwd: str | Path, env: dict[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess:
    """Run a command to its end; after ``timeout`` seconds it is killed with what it has started."""
    process = Forked(command, cwd=cwd, env=env)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _run(words: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(files, 1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.argv = words
    sys.path[0] = str(Path(words[0]).resolve().parent)
    runpy.run_path(words[0], run_name="__main__")
