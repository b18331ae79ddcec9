"""Measured speed, in suites: the operators, the detector, torchvision's detectors with our operators, the data.

A suite is a module with ``measure(bench, config)``; peers are timed in turn in one process, and every report says what
machine and what versions its numbers come from.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from detector.benchmark.environment import environment
from detector.benchmark.plot_benchmark import plot_benchmark
from detector.benchmark.table import Measured, markdown, tables
from detector.benchmark.timing import Bench, copy_bandwidth
from detector.config.commands import command
from detector.config.results_folder import discard, results_folder
from detector.config.schema import BenchmarkConfig
from detector.exceptions import ConfigError
from detector.files import replacing

__all__ = ["prepare", "report", "run", "tables", "write"]


def run(config: BenchmarkConfig) -> tuple[Measured, list[Path]]:
    """Measure ``config.suite``, write ``SUITE_DEVICE.json``, ``.md`` and, with curves, ``.png``; return all and the
    files.

    Raises:
        ConfigError: ``device=cuda`` without a GPU.
        DetectorError: a checkpoint or data that a suite was given cannot be read.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch finds no CUDA device here; device=cpu measures the CPU.")
    bench = prepare(config)
    suite = importlib.import_module(f"detector.benchmark.{config.suite}_suite")
    measured: Measured = suite.measure(bench, config)
    folder = results_folder(config.output_dir, "benchmark", checkpoint=config.checkpoint)
    name = f"{config.suite}_{config.device}"
    words = f"{command('benchmark')} suite={config.suite}{' device=cuda' if config.device == 'cuda' else ''}"
    files = write(folder, name, report(bench, measured), markdown(environment(bench), measured, name, words))
    picture = folder / f"{name}.png"
    if measured.curves:
        plot_benchmark(measured.curves, picture)
        files.append(picture)
    else:
        discard(folder, [picture.name])
    return measured, files


def prepare(config: BenchmarkConfig) -> Bench:
    """Threads, seed and the bandwidth of a copy, before a suite measures."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    device = torch.device(config.device)
    return Bench(device, 3 if config.quick else config.repeats, config.quick, copy_bandwidth(device))


def report(bench: Bench, measured: Measured) -> dict[str, Any]:
    """Everything that was measured and what it depends on, for JSON."""
    sections = [asdict(section) for section in measured.sections]
    return {**environment(bench), "inputs": measured.inputs, "sections": sections, "curves": measured.curves}


def write(folder: Path, name: str, numbers: dict[str, Any], text: str) -> list[Path]:
    """``NAME.md`` and ``NAME.json``, each whole or not at all."""
    texts = {".md": text, ".json": json.dumps(numbers, indent=2)}
    files = [folder / f"{name}{suffix}" for suffix in texts]
    for file, content in zip(files, texts.values(), strict=True):
        with replacing(file) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
    return files
