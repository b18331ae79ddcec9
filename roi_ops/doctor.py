"""Which backends work here, and why the others do not: ``python -m roi_ops.doctor [--json]``.

Every backend that works is tested against the reference for about a second. That compiles the CUDA kernels it uses,
unless they are in the cache.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from typing import Any

import torch

from roi_ops import backends, cpu, cuda, functional

# Largest relative difference to the reference that passes: float32 rounding of a few hundred terms.
TOLERANCE = 1e-4


def self_test(name: str, device: str, seconds: float = 1.0) -> dict[str, Any]:
    """Compare a backend's results and gradients with the reference on random boxes.

    Returns:
        ``cases`` compared, ``largest_error`` (relative to the largest value) and ``passed``.
    """
    generator = torch.Generator().manual_seed(0)
    end, cases, worst = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end or not cases:
        maps = [torch.randn(2, 8, 64 >> i, 64 >> i, generator=generator).to(device) for i in range(2)]
        corners = torch.rand(16, 2, 2, generator=generator) * 280 - 12
        boxes = torch.cat([torch.randint(2, (16, 1), generator=generator), corners.sort(1).values.flatten(1)], 1)
        boxes = boxes.to(device)
        for pool in _POOLS:
            results = []
            for backend in (name, "reference"):
                leaves = [m.clone().requires_grad_() for m in maps]
                with backends.use_backend(backend):
                    out = pool(leaves, boxes)
                    results.append([out, *torch.autograd.grad(out, leaves, torch.ones_like(out))])
            for ours, reference in zip(*results, strict=True):
                error = (ours - reference).abs().max() / reference.abs().max().clamp(min=1)
                worst = max(worst, error.item())
            cases += 1
    return {"cases": cases, "largest_error": worst, "passed": worst <= TOLERANCE}


_SCALES = [0.25, 0.125]
_POOLS = (
    lambda f, b: functional.multiscale_roi_align(f, b, 7, _SCALES, 2),
    lambda f, b: functional.multiscale_roi_align(f, b, 7, _SCALES, 0, True),
    lambda f, b: functional.multiscale_roi_align(f, b, 7, _SCALES, 2, mode="max"),
    lambda f, b: functional.multiscale_prroi_pool(f, b, 7, _SCALES),
    lambda f, b: functional.multiscale_roi_pool(f, b, 7, _SCALES),
)


def examine(seconds: float = 1.0) -> dict[str, Any]:
    """Versions, and for each backend whether it works, why not, and its self test."""
    report: dict[str, Any] = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "torchvision": _version()},
        "threads": torch.get_num_threads(),
        "gpus": [describe_gpu(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else [],
        "backends": {},
    }
    for name in backends.NAMES:
        reason = backends.why_not(name)
        entry: dict[str, Any] = {"works": reason is None, "why_not": reason}
        if reason is None and name != "reference":
            try:
                entry["self_test"] = self_test(name, "cuda" if name == "cuda" else "cpu", seconds)
                entry["works"] = entry["self_test"]["passed"]
            except Exception as error:  # a report of what is broken must not break on it
                entry |= {"works": False, "why_not": f"does not work: {type(error).__name__}: {error}"}
        if reason is None and name == "cpu":
            entry["instruction_set"] = cpu.instruction_set()
        report["backends"][name] = entry
    report["backends"]["cuda"] |= cuda.status()
    report["serving"] = {
        "cpu": backends.select("cpu").__name__,
        **({"cuda": backends.select("cuda").__name__} if torch.cuda.is_available() else {}),
    }
    return report


def _version() -> str:
    try:
        return importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe_gpu(index: int) -> str:
    """Name, architecture and memory of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name} (sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB)"


def describe(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [" ".join(f"{k} {v}" for k, v in report["versions"].items())]
    lines.append(f"threads {report['threads']}, GPU: {', '.join(report['gpus']) or 'none'}")
    for name, entry in report["backends"].items():
        if (entry["why_not"] or "").startswith("does not work"):
            lines.append(f"  {name:<10} {entry['why_not']}")
        elif entry["why_not"]:
            lines.append(f"  {name:<10} not available: {entry['why_not']}")
        elif "self_test" in entry:
            test = entry["self_test"]
            verdict = "works" if test["passed"] else "WRONG RESULTS"
            simd = f" ({entry['instruction_set']})" if "instruction_set" in entry else ""
            lines.append(
                f"  {name:<10} {verdict}{simd}: {test['cases']} cases against the reference, "
                f"largest relative error {test['largest_error']:.1e}"
            )
        else:
            lines.append(f"  {name:<10} works")
        if "compiler" in entry:
            lines.append(
                f"  {'':<10} {entry['compiler']}; {entry['cached_kernels']} compiled kernels "
                f"({entry['cached_bytes'] / 1e6:.1f} MB) in {entry['cache']}"
            )
    for device, module in report["serving"].items():
        lines.append(f"tensors on {device} are served by {module}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the report; the exit code is 1 if a backend gives wrong results, or a required one does not work."""
    parser = argparse.ArgumentParser(prog="python -m roi_ops.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--require", metavar="NAME", help="fail unless this backend works", choices=backends.NAMES)
    options = parser.parse_args(arguments)
    report = examine()
    try:
        print(json.dumps(report, indent=2) if options.json else describe(report), flush=True)
    except BrokenPipeError:  # nobody reads on, as behind `| head`: what is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if options.require and not report["backends"][options.require]["works"]:
        return 1
    return int(any(not e["works"] and e["why_not"] is None for e in report["backends"].values()))


if __name__ == "__main__":
    sys.exit(main())
