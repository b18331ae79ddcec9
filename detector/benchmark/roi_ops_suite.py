"""The RoI operators against torchvision's.

The table says for each workload how long ours and torchvision's take, their ratio, and the floor: the bytes that
have to move (output written, touched feature pixels read, each once) over the copy bandwidth measured in the same run.
A GPU has workloads of its own, and more columns.
"""

from __future__ import annotations

from functools import partial

from detector.benchmark import cpu_suite, cuda_suite, stub_driver
from detector.benchmark.cases import until_stopped
from detector.benchmark.table import Measured, compared
from detector.benchmark.timing import Bench
from detector.config.schema import BenchmarkConfig


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """The workloads of the device."""
    if bench.device.type == "cuda":
        return cuda_suite.measure(bench, config)
    cases = [partial(case, bench) for case in cpu_suite.cases(bench)]
    rows, note = until_stopped(cases, "roi_ops", config.progress_bar)
    if not (bench.quick or note) and stub_driver.why_not() is None:
        rows += stub_driver.rows()
    curves = {} if config.quick or note else cpu_suite.curves(bench)
    inputs = (
        f"Medians, in turn. {cpu_suite.INPUTS} The floor is the bytes that have to move over the copy bandwidth.{note}"
    )
    return Measured("RoI operators: ours against torchvision", inputs, [compared(rows)], curves)
