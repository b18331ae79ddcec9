"""Measure the RoI operators against torchvision's.

    python scripts/benchmark.py suite=roi_ops
    python scripts/benchmark.py suite=roi_ops device=cuda
    python scripts/benchmark.py suite=roi_ops quick=true output_dir=/tmp/benchmark
"""

from rich.console import Console

from detector.cli import run
from detector.config import BenchmarkConfig
from detector.inference import benchmark


def main(config: BenchmarkConfig) -> None:
    rows, folder = benchmark.run(config)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(benchmark.table(rows))
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run(BenchmarkConfig, "benchmark")(main)
