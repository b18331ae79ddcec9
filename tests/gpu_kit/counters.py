"""Step ncu: ``python -m gpu_kit.counters FOLDER`` lets Nsight Compute read the counters of the main kernels.

Leaves roi.ncu-rep, for its window, and ncu.txt, all of it as text; prints the lines that one looks for first. The
clocks of the GPU are left as they are.
"""

import re
import subprocess
import sys
from pathlib import Path

KERNELS = "linear_forward|linear_backward_features|add_parts|sort_boxes|count_tiles"
LAUNCHES = 12
WANTED = re.compile(
    r"^  [a-z_0-9]+ \(|Duration|Memory Throughput|L1/TEX Hit|L2 Hit|Achieved Occ|Executed Ipc Active|Registers Per"
    r"|One or More Eligible|DRAM Throughput|SM Busy"
)


def main(out: Path) -> int:
    report = out / "roi.ncu-rep"
    command = ["ncu", "--clock-control", "none", "--set", "full", "--import-source", "no", "-f", "-o", str(report),
               "-k", f"regex:{KERNELS}", "-c", str(LAUNCHES)]  # fmt: skip
    code = subprocess.run([*command, sys.executable, "-m", "gpu_kit.profiled_calls", "cuda"], check=False).returncode
    if not report.is_file():
        print("ncu wrote no report")
        return code or 1
    details = ["ncu", "--import", str(report), "--page", "details", "--print-details", "body"]
    text = subprocess.run(details, capture_output=True, text=True, check=False).stdout
    (out / "ncu.txt").write_text(text, encoding="utf-8")
    print("\n".join(line[:100] for line in text.splitlines() if WANTED.search(line)))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
