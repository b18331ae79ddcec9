"""The RoI operators against torchvision's.

The table says for each workload how long ours and torchvision's take, their ratio, and the floor: the bytes that
have to move (output written, touched feature pixels read, each once) over the copy bandwidth measured in the same run.
"""

from __future__ import annotations

from rich.progress import track

from detector.benchmark import cpu_suite, cuda_suite
from detector.benchmark.report import Measured, compared
from detector.benchmark.timing import Bench
from detector.config.schema import BenchmarkConfig


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """The workloads of the device."""
    suite = cuda_suite if bench.device.type == "cuda" else cpu_suite
    rows = [case(bench) for case in track(suite.cases(bench), "roi_ops", disable=not config.progress_bar)]
    curves = {} if config.quick else suite.curves(bench)
    inputs = f"Medians, in turn. {suite.INPUTS} The floor is the bytes that have to move over the copy bandwidth."
    return Measured("RoI operators: ours against torchvision", inputs, [compared(rows)], curves)
