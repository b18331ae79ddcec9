"""The steps of scripts/gpu_check.py: what is run, for how long at most, in which environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# PyTorch's allocator hands out pieces of blocks of 2 MB that it has had before: an access beyond a tensor stays inside
# the block, and memory that nobody has written holds what was there before. memcheck and initcheck would see neither.
WITHOUT_CACHING = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
SANITIZERS = {
    "memcheck": ([], ["align", "align_max", "pool"], WITHOUT_CACHING),
    "racecheck": (["--racecheck-report", "analysis"], ["align", "align_max"], {}),
    "synccheck": ([], ["align", "align_max"], {}),
    "initcheck": ([], ["align", "align_max", "pool"], WITHOUT_CACHING),
}
FOUND = "66"  # exit code of a sanitizer that found something
EMULATED = "emulator and not test_cuda_kernels"
PROCESSES, THREADS = 6, "2"  # of the tests at most, and threads of each: more would wait for each other


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: on the command line.
        command: what is run.
        limit: seconds after which it is given up.
        environment: variables beyond those of all steps.
        skipped: why it cannot be run here; "": it can.
        note: what is different from a run on a GPU.
    """

    name: str
    command: Sequence[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    skipped: str = ""
    note: str = ""


def all_steps(where: str, work: Path, out: Path) -> list[Step]:
    """Every step, the most wanted first.

    Args:
        where: "cuda", or "emulator" on a machine without a GPU.
        work: a folder for tables that are not finished.
        out: the folder of the results.
    """
    on_gpu = where == "cuda"
    python, device = sys.executable, "cuda" if on_gpu else "cpu"
    module = lambda name, *arguments: [python, "-m", f"gpu_kit.{name}", *arguments]
    without, needed = ("", "") if on_gpu else ("on the CPU, in small sizes", "a GPU is needed")
    # Without a GPU the same tests, which have a case for the emulator too, but for the longest file.
    selection = ["-m", "gpu and not slow"] if on_gpu else ["-m", "not slow", "-k", EMULATED]
    tests, emulated = pytest(selection, "tests/roi_ops"), "" if on_gpu else "on the emulator"
    threads = {"OMP_NUM_THREADS": THREADS}
    counters = module("counters", str(out)) if on_gpu else module("profiled_calls", device)
    return [
        Step("smoke", module("smoke", where), 75, note=emulated),
        Step("tests", tests, 130 if on_gpu else 300, threads, note=emulated),
        Step("ops", module("tables", "ops", device, str(work)), 75, note=without),
        Step("train", module("tables", "train", device, str(work)), 75, note=without),
        *(sanitizer(tool, where) for tool in ("memcheck", "racecheck")),
        Step("ncu", counters, 75, skipped=missing("ncu") if on_gpu else "", note="" if on_gpu else "without ncu"),
        *(sanitizer(tool, where) for tool in ("synccheck", "initcheck")),
        Step("slow", pytest(["-m", "gpu and slow"], "tests"), 130, threads, needed),
        Step("detector", pytest(["-m", "gpu and not slow"], "tests/detector"), 130, threads, needed),
    ]


DEFAULT = ("smoke", "tests", "ops", "train", "memcheck", "racecheck", "ncu", "synccheck", "initcheck")


def sanitizer(tool: str, where: str) -> Step:
    """The scenario of the emulator's tests under a tool of compute-sanitizer; without the tool on the emulator."""
    options, kinds, environment = SANITIZERS[tool]
    scenario = [sys.executable, "-m", "cuda_emulator.scenario", where, *kinds]
    if where != "cuda":
        again = "" if tool == "memcheck" else "it would be the step memcheck again: compute-sanitizer needs a GPU"
        return Step(tool, scenario, 60, environment, again, "without compute-sanitizer")
    command = ["compute-sanitizer", "--tool", tool, *options, "--error-exitcode", FOUND, *scenario]
    return Step(tool, command, 60, environment, missing("compute-sanitizer"))


def pytest(selection: Sequence[str], folder: str) -> list[str]:
    """The selected tests in several processes; one that hangs costs its own time only."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *selection]
    command += ["--maxfail=25", "--durations=8"]
    if importlib.util.find_spec("xdist"):
        processes = min(PROCESSES, os.cpu_count() or 1)
        command += ["-n", str(processes), "--dist", "worksteal", "-o", "console_output_style=count"]
    if importlib.util.find_spec("pytest_timeout"):
        command.append("--timeout=100")
    return [*command, folder]


def missing(tool: str) -> str:
    """Why a tool cannot be run: it is not installed; "" if it is."""
    return "" if shutil.which(tool) else f"{tool} is not installed"
