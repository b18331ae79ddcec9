"""Measured speed, in suites: the operators, the detector, torchvision's detectors with our operators, the data.

A suite is a module with ``measure(bench, config)``; peers are timed in turn in one process, and every report says what
machine and what versions its numbers come from.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from detector.benchmark.plot_benchmark import plot_benchmark
from detector.benchmark.report import Measured, markdown, tables
from detector.benchmark.timing import Bench, copy_bandwidth, environment
from detector.config.commands import script
from detector.config.results_folder import discard, results_folder
from detector.config.schema import BenchmarkConfig
from detector.exceptions import ConfigError
from detector.files import replacing

__all__ = ["run", "tables"]


def run(config: BenchmarkConfig) -> tuple[Measured, list[Path]]:
    """Measure ``config.suite``, write ``SUITE_DEVICE.json``, ``.md`` and, with curves, ``.png``; return all and the
    files.

    Raises:
        ConfigError: ``device=cuda`` without a GPU.
        DetectorError: a checkpoint or data that a suite was given cannot be read.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch finds no CUDA device here; device=cpu measures the CPU.")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    device = torch.device(config.device)
    bench = Bench(device, 3 if config.quick else config.repeats, config.quick, copy_bandwidth(device))
    suite = importlib.import_module(f"detector.benchmark.{config.suite}_suite")
    measured: Measured = suite.measure(bench, config)
    folder = results_folder(config.output_dir, "benchmark", checkpoint=config.checkpoint)
    facts = environment(bench)
    name = f"{config.suite}_{config.device}"
    command = f"python {script('benchmark')} suite={config.suite}{' device=cuda' if config.device == 'cuda' else ''}"
    sections = [asdict(section) for section in measured.sections]
    report = {**facts, "inputs": measured.inputs, "sections": sections, "curves": measured.curves}
    texts = {".md": markdown(facts, measured, name, command), ".json": json.dumps(report, indent=2)}
    files = [folder / f"{name}{suffix}" for suffix in texts]
    for file, text in zip(files, texts.values(), strict=True):
        with replacing(file) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    picture = folder / f"{name}.png"
    if measured.curves:
        plot_benchmark(measured.curves, picture)
        files.append(picture)
    else:
        discard(folder, [picture.name])
    return measured, files
