"""Forked commands end as started ones do, and are refused what they cannot do."""

import os
import subprocess
import sys
import time

import pytest
from forked import Forked, run

SLEEPS = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def runs(pid):
    """Whether there is such a process that is no zombie: of those whose parent is gone another process takes care."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_timeout_ends_the_command_and_what_it_started(tmp_path):
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    process = Forked([sys.executable, "sleeps.py"], cwd=tmp_path)
    end = time.monotonic() + 60
    while not process.output().endswith("\n") and time.monotonic() < end:
        time.sleep(0.02)
    child = int(process.output())
    assert runs(child)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        process.communicate(timeout=0.01)
    assert raised.value.output == f"{child}\n".encode()
    end = time.monotonic() + 10
    while runs(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not runs(child)
    assert process.poll() == -9


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"])
def test_variables_that_count_at_imports_are_refused(tmp_path, name):
    with pytest.raises(AssertionError, match="server"):
        run([sys.executable, "x.py"], cwd=tmp_path, env={**os.environ, name: "77"})


def test_other_variables_arrive(tmp_path):
    (tmp_path / "says.py").write_text("import os; print(os.environ['THIS'])")
    assert run([sys.executable, "says.py"], cwd=tmp_path, env={**os.environ, "THIS": "that"}).stdout == "that\n"
