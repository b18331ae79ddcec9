"""What measured numbers depend on: hardware, versions, date."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision

import roi_ops
from detector.benchmark.timing import Bench


def environment(bench: Bench) -> dict[str, Any]:
    """Hardware, versions and date of a measurement, for its report."""
    on_gpu = bench.device.type == "cuda"
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "instruction_set": roi_ops.instruction_set(),
        "gpu": torch.cuda.get_device_name(bench.device) if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "copy_gb_per_s": round(bench.bandwidth / 1e9, 1),
        "repeats": bench.repeats,
    }


def processor() -> str:
    """Name of the processor as Linux tells it, or the platform's word."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def driver_version() -> str:
    """Version of NVIDIA's driver, "unknown" where ``nvidia-smi`` does not tell it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.split("\n")[0].strip() or "unknown"
