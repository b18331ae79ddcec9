"""The kernels under sanitizers: cpp/fuzz.cpp, compiled with the kernels' sources and run for a while."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROI_OPS = HERE.parents[1] / "roi_ops"
AVX2 = ["-DROI_AVX2", "-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-DROI_AVX512", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]


def build(folder: Path, sanitizers: str) -> Path:
    """Compile the harness and the kernels; returns the program."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++17", "-O1", "-g1", "-w", "-ffp-contract=off", f"-fsanitize={sanitizers}",
             "-fno-sanitize-recover=all", f"-I{ROI_OPS / 'cpu'}", f"-I{ROI_OPS / 'include'}"]  # fmt: skip
    probe = subprocess.run([compiler, *flags, "-x", "c++", "-", "-o", folder / "probe"], input="int main() {}",
                           text=True, capture_output=True)  # fmt: skip
    if probe.returncode:
        pytest.skip(f"{compiler} has no -fsanitize={sanitizers}")
    machine = subprocess.run([compiler, "-dumpmachine"], text=True, capture_output=True).stdout
    x86 = machine.startswith("x86_64")
    jobs = {"baseline": [ROI_OPS / "cpu" / "kernels.cpp"], "fuzz": [HERE / "cpp" / "fuzz.cpp"]}
    if x86:
        jobs |= {"avx2": [*AVX2, ROI_OPS / "cpu" / "kernels.cpp"], "avx512": [*AVX512, ROI_OPS / "cpu" / "kernels.cpp"]}
    for name in ("dispatch", "maxima", "plan", "tables", "threads"):
        jobs[name] = [*(["-DROI_HAS_X86_KERNELS"] if x86 else []), ROI_OPS / "cpu" / f"{name}.cpp"]

    def compile_one(item):
        name, arguments = item
        subprocess.run([compiler, *flags, *arguments, "-c", "-o", folder / f"{name}.o"], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, jobs.items()))
    objects = [folder / f"{name}.o" for name in jobs]
    program = folder / "fuzz"
    subprocess.run([compiler, f"-fsanitize={sanitizers}", *objects, "-pthread", "-ldl", "-o", program], check=True)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined,float-cast-overflow", "thread"])
def test_random_geometry_is_clean_under_sanitizers(tmp_path, sanitizers):
    program = build(tmp_path, sanitizers)
    run = subprocess.run([program, "--cases", "60", "--seed", "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "60 cases from seed 1: no finding" in run.stdout
