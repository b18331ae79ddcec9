"""Everything that only a machine with a GPU can show, within a number of seconds: docs/gpu.md.

    python scripts/gpu_check.py
    python scripts/gpu_check.py smoke ops

Steps: smoke, tests, ops, train, memcheck, racecheck, ncu, synccheck, initcheck; and, only when they are named, slow and
detector. Each runs whatever the others found. Variables of the environment:

BUDGET  seconds for all steps, 430 by default
WHERE   cuda, or emulator: tries on a machine without a GPU all that can be tried there
OUT     folder of the results, runs/gpu_check by default: gpu_check.md, gpu_check.json, ncu.txt, roi.ncu-rep
"""

import importlib.metadata
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / ".gpu"  # what `make gpu-kit` made, if it was carried along
sys.path[:0] = [str(ROOT / "tests")]

from gpu_kit import results  # noqa: E402
from gpu_kit.budget import run_steps  # noqa: E402
from gpu_kit.steps import DEFAULT, all_steps  # noqa: E402


def main(names: list[str]) -> int:
    where, budget = os.environ.get("WHERE", "cuda"), float(os.environ.get("BUDGET", "430"))
    out = Path(os.environ.get("OUT") or ROOT / "runs/gpu_check").resolve()
    out.mkdir(parents=True, exist_ok=True)
    use_cpu_kernels()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        known = {step.name: step for step in all_steps(where, work, out)}
        if where not in ("cuda", "emulator") or not set(names) <= set(known):
            print(f"{__doc__}\nWHERE is cuda or emulator; steps are {', '.join(known)}", file=sys.stderr)
            return 2
        results.clear(out)
        facts = results.facts(where, environment())
        print(results.headline(facts), flush=True)
        chosen = [known[name] for name in names or DEFAULT]
        outcomes = run_steps(chosen, budget, environment(), ROOT, lambda done: results.write(out, work, facts, done))
    print(f"\n{results.summary(outcomes)}\n\nResults are in {out}: {', '.join(sorted(f.name for f in out.iterdir()))}")
    return int(any(outcome.is_bad for outcome in outcomes))


def environment() -> dict[str, str]:
    """Of every step."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
    variables = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
    # A machine with many cores gives every process of a step a thread for each: they would wait for each other.
    variables.setdefault("OMP_NUM_THREADS", "4")
    if (KIT / "cache").is_dir():
        variables.setdefault("ROI_OPS_CACHE", str(KIT / "cache"))
    return variables


def use_cpu_kernels() -> None:
    """The kit's CPU kernels go where this tree looks for them, unless the project is installed and has its own."""
    try:
        importlib.metadata.distribution("multiscale-rcnn")
    except importlib.metadata.PackageNotFoundError:
        for library in (KIT / "cpu").glob(f"_kernels*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            shutil.copy(library, ROOT / "roi_ops/cpu" / library.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
