"""Measured speed of the RoI operators against torchvision's: both in one process, in turn, medians and ratios.

The table says for each workload how long ours and torchvision's take, their ratio, and the floor: the bytes that
have to move (output written, touched feature pixels read, each once) over the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import track

from detector.config import BenchmarkConfig
from detector.errors import ConfigError
from detector.files import replacing
from detector.inference.benchmark import cpu_suite, cuda_suite
from detector.inference.benchmark.report import markdown, table
from detector.inference.benchmark.timing import Bench, Row, copy_bandwidth, environment
from detector.plots import plot_benchmark

__all__ = ["run", "table"]


def run(config: BenchmarkConfig) -> tuple[list[Row], Path]:
    """Measure the suite, write ``NAME.json``, ``NAME.md`` and ``NAME.png`` and return the rows and the folder.

    Raises:
        ConfigError: ``device=cuda`` without a GPU.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch finds no CUDA device here; device=cpu measures the CPU kernels.")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    device = torch.device(config.device)
    bench = Bench(device, 3 if config.quick else config.repeats, config.quick, copy_bandwidth(device))
    suite = cuda_suite if config.device == "cuda" else cpu_suite
    rows = [case(bench) for case in track(suite.cases(bench), "roi_ops", disable=not config.progress_bar)]
    curves = {} if config.quick else suite.curves(bench)
    folder = Path(config.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    results = [{**asdict(row), "ratio": row.ratio} for row in rows]
    report = {**environment(bench), "rows": results, "curves": curves}
    name = f"roi_ops_{config.device}"
    for suffix, text in ((".json", json.dumps(report, indent=2)), (".md", markdown(report, rows, name, suite.INPUTS))):
        with replacing(folder / f"{name}{suffix}") as temporary:
            temporary.write_text(text + "\n")
    if curves:
        plot_benchmark(curves, folder / f"{name}.png")
    return rows, folder
