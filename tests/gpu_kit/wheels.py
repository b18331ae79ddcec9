"""The packages that a bare GPU machine lacks, as wheels for its Python."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(__file__).with_name("installed.txt")
TESTED_WITH = ("pytest", "pytest-xdist", "hypothesis")  # of the extra `dev`: what the steps of gpu_check use
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def installed() -> dict[str, str]:
    """What the machine has: version by name, "" where it does not matter."""
    lines = (line.partition("#")[0] for line in INSTALLED.read_text(encoding="utf-8").splitlines())
    pairs = (word.partition("==") for line in lines for word in line.split())
    return {canonicalize_name(name): version for name, _, version in pairs}


def lacking(requirements: Sequence[str], there: dict[str, str]) -> dict[str, str]:
    """Version by name of every package that ``requirements`` lead to, as it is in this environment, but for those
    ``there`` and what only they need.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not in this environment.
    """
    python = there["python"]
    target = {"python_version": python, "python_full_version": f"{python}.0", "platform_system": "Linux",
              "sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}  # fmt: skip
    found: dict[str, str] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in there or (requirement.marker and not requirement.marker.evaluate({**target, "extra": extra})):
            continue
        distribution = metadata.distribution(name)
        found[name] = distribution.version
        for wanted_extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted_extra))
            waiting += [(Requirement(text), wanted_extra) for text in distribution.requires or ()]
    return found


def wanted() -> dict[str, str]:
    """Version by name of the packages of the kit: what pyproject.toml asks for and the machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = [text for text in project["optional-dependencies"]["dev"] if Requirement(text).name in TESTED_WITH]
    return lacking([*project["dependencies"], *tools], installed())


def collect(folder: Path) -> list[Path]:
    """Put the wheels of the kit into ``folder``, and nothing else; what is there already is not fetched again.

    Raises:
        RuntimeError: a package has no wheel for the machine, and none that suits every machine can be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packages = wanted()
    for wheel in folder.glob("*.whl"):
        if _name_and_version(wheel) not in packages.items():
            wheel.unlink()
    for name, version in packages.items():
        if not _wheels(folder, name):
            _fetch(f"{name}=={version}", folder)
        if not _wheels(folder, name):
            raise RuntimeError(f"no wheel of {name} {version} for Python {installed()['python']}")
    return sorted(folder.glob("*.whl"))


def _fetch(package: str, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [f"--platform={glibc}_x86_64" for glibc in GLIBC]
    python = ["--implementation=cp", f"--python-version={installed()['python']}"]
    download = [*pip, "download", "--no-deps", "--only-binary=:all:", *python, *platforms, "-d", str(folder), package]
    if subprocess.run(download, capture_output=True, check=False).returncode == 0:
        return
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", str(folder), package], text=True, capture_output=True, check=False
    )
    if built.returncode:
        raise RuntimeError(f"{package}: there is no wheel, and none can be built:\n{built.stderr[-2000:]}")
    for wheel in _wheels(folder, package.partition("==")[0]):
        if not wheel.name.endswith("-none-any.whl"):
            wheel.unlink()  # made for this machine's Python


def _wheels(folder: Path, name: str) -> list[Path]:
    return [wheel for wheel in folder.glob("*.whl") if _name_and_version(wheel)[0] == name]


def _name_and_version(wheel: Path) -> tuple[str, str]:
    name, version = re.split("-", wheel.name)[:2]
    return canonicalize_name(name), version
