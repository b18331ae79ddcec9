"""The files that a check leaves, at most five with the log: gpu_check.json, gpu_check.md, ncu.txt, roi.ncu-rep."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from gpu_kit.budget import Outcome

PACKAGES = ("torch", "torchvision", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "pytorch-lightning")
CARD = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit")
FILES = ("gpu_check.json", "gpu_check.md", "ncu.txt", "roi.ncu-rep")
TABLES = ("ops", "train")  # steps that leave STEP.json and STEP.md


def facts(where: str, environment: dict[str, str]) -> dict[str, Any]:
    """What the results depend on: date, card, driver, versions, how many kernels are compiled.

    Args:
        where: "cuda" or "emulator".
        environment: of the steps.
    """
    return {
        "date": date.today().isoformat(),
        "where": where,
        "card": card(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "cubins": cubins(environment) if where == "cuda" else (0, 0),
    }


def card() -> dict[str, str]:
    """What nvidia-smi says about the first card; empty without one, or if it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.split("\n")[0].split(",")]
    return dict(zip(CARD, values, strict=True)) if len(values) == len(CARD) else {}


def cubins(environment: dict[str, str]) -> tuple[int, int] | None:
    """How many kernels the cache has for the card, and how many there are; None if they cannot be counted."""
    # In a process of its own: this one must not hold the GPU while the steps run.
    command = [sys.executable, "-c", "from gpu_kit import cuda_cache; print(*cuda_cache.count())"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        found, every = map(int, done.stdout.split())
    except (subprocess.SubprocessError, ValueError):
        return None
    return found, every


def clear(out: Path) -> None:
    """Remove the files of a check before this one, which would pass for this one's."""
    for name in FILES:
        (out / name).unlink(missing_ok=True)


def version(name: str) -> str:
    """Of an installed package; "-" if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def write(out: Path, work: Path, known: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write both files anew, with the tables that are in ``work`` by now."""
    tables = {
        name: json.loads((work / f"{name}.json").read_text()) for name in TABLES if (work / f"{name}.md").is_file()
    }
    numbers = {**known, "steps": [asdict(outcome) for outcome in outcomes], "tables": tables}
    parts = [headline(known), summary(outcomes), *((work / f"{name}.md").read_text().strip() for name in tables)]
    for name, text in (("gpu_check.json", json.dumps(numbers, indent=1)), ("gpu_check.md", "\n\n".join(parts))):
        unfinished = work / name
        unfinished.write_text(text + "\n", encoding="utf-8")
        shutil.move(unfinished, out / name)


def headline(known: dict[str, Any]) -> str:
    """Heading, and a line about the machine."""
    words = [f"{key} {value}" for key, value in known["card"].items()] or ["no GPU: the emulator and the CPU"]
    words += [f"Python {known['python']}", *(f"{name} {value}" for name, value in known["versions"].items())]
    text = f"# Check on a GPU, {known['date']}\n\n{', '.join(words)}."
    if known["cubins"] is None:
        return f"{text}\n\nWARNING: compiled kernels cannot be counted."
    found, every = known["cubins"]
    if found < every:
        text += (
            f"\n\nWARNING: {found} of {every} kernels are compiled for this card, NVRTC and source. The steps compile "
        )
        text += "the others in their own time; `make gpu-kit` prepares them."
    return text


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table of the steps."""
    rows = [f"| {o.name} | {o.outcome} | {o.seconds:.0f} | {o.detail} |" for o in outcomes]
    return "\n".join(["| step | outcome | seconds | |", "|---|---|---|---|", *rows])
