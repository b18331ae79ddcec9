"""Measure the RoI operators, the detector, torchvision's detectors with our operators, or the data.

python scripts/benchmark.py suite=roi_ops
python scripts/benchmark.py suite=roi_ops device=cuda
python scripts/benchmark.py suite=cuda_bytes
python scripts/benchmark.py suite=step device=cuda
python scripts/benchmark.py suite=model checkpoint=RUN image_size=[800,1088]
python scripts/benchmark.py suite=detectors
python scripts/benchmark.py suite=retrofit
python scripts/benchmark.py suite=train
python scripts/benchmark.py suite=data annotations=FILE.json images=FOLDER
"""

from rich.console import Console

from detector.config.command_line import run
from detector.config.schema import BenchmarkConfig
from detector.terminal import WIDTH


def main(config: BenchmarkConfig) -> None:
    from detector import benchmark  # PyTorch takes seconds to import: not for --help

    measured, files = benchmark.run(config)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    for table in benchmark.tables(measured):
        console.print(table)
    where = f"Results are in {files[0].parent}: {', '.join(file.name for file in files)}"
    console.print(f"{measured.inputs}\n{where}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run(BenchmarkConfig, "benchmark")(main)
