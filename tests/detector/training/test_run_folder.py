"""The folder of a run belongs to one process at a time: to one of several that start together, to none when it ends."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked, run
from omegaconf import OmegaConf

from detector.exceptions import ConfigError
from detector.training.run_folder import LOCK, run_folder_lock

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import multiprocessing, os, sys, time
from detector.training.run_folder import run_folder_lock

def load():
    print(os.getpid(), flush=True)
    time.sleep(60)

with run_folder_lock(sys.argv[1]):
    multiprocessing.get_context("fork").Process(target=load).start()
    time.sleep(60)
"""
TAKE = """
import sys, time
from pathlib import Path
from detector.config.defaults import default
from detector.config.schema import Config
from detector.exceptions import ConfigError
from detector.training.resume import find_start
from detector.training.run_folder import run_folder_lock, write_config

config = default(Config, run_dir=sys.argv[1], seed=int(sys.argv[2]))
def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.001)

Path("ready" + sys.argv[2]).touch()
wait_for("go")
try:
    with run_folder_lock(config.run_dir):
        write_config(config, find_start(config).checkpoint)
        print("taken", flush=True)
        if sys.argv[3] == "stay":
            wait_for("end")
except ConfigError as error:
    print(error, flush=True)
"""


def test_second_one_is_refused_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "runs" / "a"
    with run_folder_lock(str(folder)):
        (folder / "config.yaml").write_text("")
        who = rf"process {os.getpid()} on \S+, since 20\d\d-\S+ \S+"
        message = rf"^run_dir={folder}: another process .* \({who}\).* resume=auto$"
        with pytest.raises(ConfigError, match=message), run_folder_lock(str(folder)):
            pass
        assert (folder / LOCK).is_file()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    with run_folder_lock(str(folder)):
        pass


def test_error_inside_gives_the_folder_back(tmp_path):
    """A folder that nothing came into goes again, unless it was there before."""
    with pytest.raises(KeyError), run_folder_lock(str(tmp_path / "new")):
        raise KeyError
    (tmp_path / "old").mkdir()
    with run_folder_lock(str(tmp_path / "old")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_killed_process_holds_nothing_though_its_loader_processes_live(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid} "), run_folder_lock(str(tmp_path)):
            pass
        process.kill()
        process.wait()
        with run_folder_lock(str(tmp_path)):
            os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks(tmp_path, monkeypatch, caplog, code):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    caplog.set_level("INFO", "detector")
    with run_folder_lock(str(tmp_path / "run")):
        (tmp_path / "run/config.yaml").write_text("")
    assert f"{tmp_path / 'run'} is on a file system without locks" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_locked_file_that_cannot_be_written_as_on_smb(tmp_path, monkeypatch):
    """flock(2): since Linux 5.5 every access through another file descriptor fails there with EACCES."""

    def refuse(path, *args, **keys):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    with run_folder_lock(str(tmp_path / "run")):
        message = r"another process is training in this folder\. Choose"
        with pytest.raises(ConfigError, match=message), run_folder_lock(str(tmp_path / "run")):
            pass
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"run_dir=\S+/file/run: cannot be written: Not a directory"
    with pytest.raises(ConfigError, match=message), run_folder_lock(str(tmp_path / "file/run")):
        pass


def answers(folder, how, where):
    """What four runs that start at the same moment in the folder ``where`` say."""
    where.mkdir()
    (where / "take.py").write_text(TAKE)
    processes = [Forked([sys.executable, "take.py", str(folder), str(seed), how], cwd=where) for seed in range(4)]
    awaited = [where / f"ready{seed}" for seed in range(4)]
    while not all(path.exists() for path in awaited):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (where / "go").touch()
    while not all(process.output() for process in processes):
        assert not any(process.poll() for process in processes)
        time.sleep(0.01)
    (where / "end").touch()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


def test_runs_that_start_at_the_same_moment(tmp_path):
    folder = tmp_path / "runs" / "now"
    found = answers(folder, "stay", tmp_path / "a")
    assert found.count("taken") == 1
    assert sum("another process is training in this folder" in answer for answer in found) == 3
    assert OmegaConf.load(folder / "config.yaml").seed == found.index("taken")  # whole, and the winner's


def test_a_run_that_has_ended_keeps_its_folder(tmp_path):
    folder = tmp_path / "now"
    assert answers(folder, "go", tmp_path / "a").count("taken") == 1
    before = (folder / "config.yaml").read_bytes()
    refused = ("there is a run in it already", "another process is training in this folder")  # while it looks
    assert all(any(words in answer for words in refused) for answer in answers(folder, "go", tmp_path / "b"))
    assert (folder / "config.yaml").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "resume"), [(1, "resume="), (2, "resume=auto")])
def test_second_command_ends_at_once(script, tmp_path, devices, resume):
    """With several processes too, of which the first one holds the folder; after a SIGKILL the run can go on."""
    keys = ("run_dir=run", f"trainer.devices={devices}", "data.batch_size=1", "trainer.checkpoint_every=1")
    first = Forked(script(*keys, "trainer.max_steps=100000"), cwd=tmp_path)
    try:
        while first.poll() is None and not (tmp_path / "run/checkpoints/last.ckpt").is_file():
            time.sleep(0.05)
        assert first.poll() is None, first.communicate()
        second = run(script(*keys, resume), cwd=tmp_path)
        assert second.returncode == 2
        assert re.search(r"run_dir=run: another process is training in this folder \(process \d+ ", second.stderr)
        assert "Traceback" not in second.stderr
    finally:
        first.kill()
        first.wait()
    deadline = time.monotonic() + (60 if devices > 1 else 0)  # processes whose parent dies end after their step
    while True:
        try:
            with run_folder_lock(str(tmp_path / "run")):
                break
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
