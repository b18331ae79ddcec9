"""Environments with this package as users install it: a wheel, an editable install, a clone. PyTorch and the rest are
those of the tests."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The kernels take a minute to compile: those of the tests' own environment are copied. `.ci/run` builds them anew.
WITHOUT_KERNELS = ("--config-settings=wheel.cmake=false",)


def build_wheel(source, folder, *options):
    """Build the wheel of a project or an sdist into a folder; return its path."""
    _pip("wheel", "--no-build-isolation", *options, "--wheel-dir", folder, source)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def make_environment(folder, *installed):
    """A virtual environment with what ``pip install`` gets for ``installed``; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = Path(folder, "bin", "python")
    site = site_of(python)
    # Packages of the tests' environment; its own .pth files are not read, so that its link to the clone does not count.
    shared = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "shared.pth").write_text("\n".join(shared))
    if installed:
        _pip("--python", python, "install", "--no-build-isolation", "--ignore-installed", *installed)
    kernels = importlib.util.find_spec("roi_ops.cpu._kernels")
    if kernels is not None and (site / "roi_ops" / "cpu").is_dir():
        shutil.copy(kernels.origin, site / "roi_ops" / "cpu")
    return python


def site_of(python):
    """The folder of an environment's packages."""
    (site,) = Path(python).parent.parent.glob("lib/python*/site-packages")
    return site


def call(python, *arguments, cwd, **variables):
    """Run the Python of an environment, or a command beside it, with nothing of the clone in its path."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}
    environment = {**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "MPLBACKEND": "Agg", **variables}
    command = [str(word) for word in (python, *arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


def _pip(*arguments):
    options = ("--quiet", "--disable-pip-version-check", "--no-deps")
    words = [str(word) for word in (sys.executable, "-m", "pip", *arguments)]
    place = words.index("install" if "install" in words else "wheel") + 1
    done = subprocess.run([*words[:place], *options, *words[place:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
