"""The scripts in processes that need not import PyTorch and Lightning first: a server has imported them, and forks.

Everything after the imports is as in a process of its own: arguments, working directory, environment, output, signals,
exit code. What depends on how Python starts needs a process that is started: ``.ci/run`` trains and evaluates in such
ones, and so do the last run of ``test_five_kills`` and ``test_torchrun_makes_one_folder``.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["detector.training.train", "detector.evaluation.evaluate", "torch.utils.tensorboard"])


class Forked:
    """A running command; the names are those of :class:`subprocess.Popen`. It leads a process group.

    Args:
        command: ``[sys.executable, "scripts/NAME.py", *arguments]``.
        cwd: where it runs.
        env: its environment; by default that of this process.
    """

    def __init__(self, command: list[str], *, cwd: str | Path, env: dict[str, str] | None = None):
        assert command[0] == sys.executable
        self.files = [tempfile.NamedTemporaryFile(suffix=name) for name in ("stdout", "stderr")]  # noqa: SIM115
        self.process = SERVER.Process(
            target=_run, args=(command[1:], str(cwd), env or dict(os.environ), [file.name for file in self.files])
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

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"{self.pid} runs on")
        return self.process.exitcode

    def output(self) -> str:
        """What it has printed so far."""
        return Path(self.files[0].name).read_text()

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for the end; what it has printed."""
        self.wait(timeout)
        out, err = (Path(file.name).read_text() for file in self.files)
        return out, err


def run(command: list[str], *, cwd: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    process = Forked(command, cwd=cwd, env=env)
    out, err = process.communicate()
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
