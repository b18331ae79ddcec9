"""Everything that only a machine with a GPU can show: tests, memory checks, speed. Ends within twenty minutes.

    python scripts/gpu_check.py
    python scripts/gpu_check.py output_dir=/tmp/benchmark

Arguments go to scripts/benchmark.py. The steps, each of which runs whatever the others found:

1. ``python -m roi_ops.doctor --require cuda``
2. the tests marked ``gpu``
3. a short run of every kernel under compute-sanitizer's memcheck, racecheck, synccheck and initcheck, if it is there
4. ``scripts/benchmark.py device=cuda``
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Name, command, and after how many seconds it is given up.
Step = tuple[str, list[str], float]


def steps(arguments: list[str]) -> list[Step]:
    python = sys.executable
    scenario = [python, "-m", "cuda_emulator.scenario", "cuda"]
    found: list[Step] = [
        ("doctor", [python, "-m", "roi_ops.doctor", "--require", "cuda"], 120),
        ("tests", [python, "-m", "pytest", "-m", "gpu", "--durations=10"], 420),
    ]
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            found.append((tool, [sanitizer, "--tool", tool, "--error-exitcode", "66", *scenario], 90))
    benchmark = [python, "scripts/benchmark.py", "suite=roi_ops", "device=cuda", "progress_bar=false", *arguments]
    return [*found, ("benchmark", benchmark, 300)]


def main() -> int:
    results = []
    for name, command, seconds in steps(sys.argv[1:]):
        print(f"\n== {name}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        try:
            code = subprocess.run(command, cwd=ROOT, env=environment(), timeout=seconds, check=False).returncode
            outcome = "passed" if code == 0 else f"FAILED with exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = f"FAILED: not done after {seconds:.0f} s"
        results.append((name, outcome, time.monotonic() - begun))
    print()
    for name, outcome, taken in results:
        print(f"{name:<10} {outcome} ({taken:.0f} s)")
    if not shutil.which("compute-sanitizer"):
        print("compute-sanitizer is not installed: no memory checks")
    return int(any(outcome != "passed" for _, outcome, _ in results))


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "MPLBACKEND": "Agg"}


if __name__ == "__main__":
    sys.exit(main())
