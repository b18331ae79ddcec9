"""Where a Python of a version is: `python tests/gpu_kit/interpreter.py 3.12` prints its path, or fails with nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def find(version: str) -> str | None:
    """The interpreter of ``version`` (as "3.12") on PATH, or among those of pyenv; None if there is none."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := os.environ.get("PYENV_ROOT") or _output(["pyenv", "root"]):
        candidates += sorted(map(str, Path(pyenv).glob(f"versions/{version}.*/bin/python")))
    for candidate in filter(None, candidates):
        if path := _output([candidate, "-c", "import sys; print(sys.executable)"]):  # pyenv's links may lead nowhere
            return path
    return None


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    found = find(sys.argv[1])
    if found is None:
        sys.exit(1)
    print(found)
