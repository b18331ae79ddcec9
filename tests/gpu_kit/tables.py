"""Steps ops and train: ``python -m gpu_kit.tables ops|train cuda|cpu FOLDER`` writes STEP.json and STEP.md.

Stopped by SIGINT it writes what has been measured. On the CPU the workloads of a GPU are tried in small sizes.
"""

import json
import sys
import warnings
from pathlib import Path

from detector import benchmark
from detector.benchmark import cuda_suite, step_suite
from detector.benchmark.environment import environment
from detector.benchmark.table import markdown
from detector.config.defaults import default
from detector.config.schema import BenchmarkConfig

REPEATS = 20


def main(step: str, device: str, folder: Path) -> None:
    config = default(BenchmarkConfig, device=device, quick=device == "cpu", repeats=REPEATS, progress_bar=False)
    bench = benchmark.prepare(config)
    if step == "ops":
        measured, suite = cuda_suite.table(bench, progress_bar=False), "roi_ops"
    else:
        measured, suite = step_suite.measure(bench, config), "step"
    text = markdown(environment(bench), measured, "gpu_check", f"python scripts/gpu_check.py {step}")
    text = f"#{text}"  # below the heading of the whole check
    (folder / f"{step}.json").write_text(json.dumps({"suite": suite, **benchmark.report(bench, measured)}))
    (folder / f"{step}.md").write_text(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
