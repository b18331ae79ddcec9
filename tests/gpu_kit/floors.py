"""The oldest versions that pyproject.toml allows, of the packages whose versions differ in what the operators use.

``python tests/gpu_kit/floors.py`` prints what pip is asked for; with ``--check`` it fails unless they are installed.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
NAMES = ("torch", "torchvision", "cuda-core")


def floors(text: str) -> dict[str, str]:
    """Version by name, from the text of a pyproject.toml with lines as ``torch>=2.11`` among the dependencies.

    Raises:
        ValueError: a package of NAMES has no such line.
    """
    found = {}
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        name, _, version = requirement.partition(";")[0].strip().partition(">=")
        if name in NAMES and version:
            found[name] = version
    if missing := set(NAMES) - set(found):
        raise ValueError(f"pyproject.toml says no oldest version of {', '.join(sorted(missing))}")
    return found


def wanted(name: str, version: str) -> str:
    """What pip is asked for: that version, or with torch's two numbers any of its patches."""
    return f"{name}=={version}" if version.count(".") > 1 else f"{name}=={version}.*"


def differences(floor: dict[str, str], installed: dict[str, str]) -> list[str]:
    """The packages whose installed version is another than the floor, in the numbers that the floor has."""
    return [
        f"{name} {installed[name]} is installed, not {version}"
        for name, version in floor.items()
        if installed[name].split("+")[0].split(".")[: version.count(".") + 1] != version.split(".")
    ]


if __name__ == "__main__":
    floor = floors(PYPROJECT.read_text(encoding="utf-8"))
    if "--check" in sys.argv:
        installed = {name: metadata.version(name) for name in floor}
        print(f"Python {sys.version.split()[0]}, {', '.join(f'{name} {v}' for name, v in installed.items())}")
        if wrong := differences(floor, installed):
            sys.exit("; ".join(wrong))
    else:
        print(*(wanted(name, version) for name, version in floor.items()))
