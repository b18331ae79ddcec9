"""``python -m detector COMMAND``: in a clone, and where a wheel has put the scripts and configs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from detector.config.commands import command, names, script, scripts_folder

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["scikit-build"]


def start(arguments, source, folder):
    """Run Python in ``folder`` with the packages of ``source``: -S, or an editable install would come before them."""
    path = os.pathsep.join([str(source), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a wheel unpacks to, by what pyproject.toml says of it."""
    site = tmp_path_factory.mktemp("site")
    for where, source in PROJECT["wheel"]["packages"].items():
        shutil.copytree(ROOT / source, site / where, ignore=shutil.ignore_patterns("__pycache__"))
    for file in PROJECT["wheel"]["exclude"]:
        if "*" not in file:
            (site / file).unlink()
    return site


def test_the_scripts_of_this_clone(tmp_path, monkeypatch):
    assert scripts_folder() == ROOT / "scripts"
    monkeypatch.chdir(ROOT)
    assert script("train") == "scripts/train.py"
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/train.py").write_text("")  # of another project
    monkeypatch.chdir(tmp_path)
    assert script("train") == "-m detector train"
    assert names(ROOT / "scripts") == sorted(path.stem for path in (ROOT / "scripts").iterdir() if path.suffix == ".py")


def test_the_scripts_of_an_installed_package(tmp_path):
    """Another project's `scripts` beside the package is not ours."""
    (tmp_path / "detector/scripts").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    assert scripts_folder(tmp_path / "detector") == tmp_path / "detector/scripts"
    assert script("train", tmp_path / "detector") == "-m detector train"


def test_commands_are_printed_as_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command("train") == "python scripts/train.py"
    monkeypatch.chdir(tmp_path)
    assert command("train") == "python -m detector train"
    code = "import sys; sys.argv = ['/x/bin/multiscale-rcnn', {}]; from detector.__main__ import console; console()"
    told = start(["-c", code.format("'train', '--help'")], ROOT, tmp_path).stdout
    assert "multiscale-rcnn train model=c4" in told
    assert "python" not in told
    assert start(["-c", code.format("'-h'")], ROOT, tmp_path).stdout.startswith("multiscale-rcnn COMMAND ...")


@pytest.mark.slow
def test_the_command_is_the_script(tmp_path):
    one = start(["-m", "detector", "compare", "--help"], ROOT, ROOT)
    other = start(["scripts/compare.py", "--help"], ROOT, ROOT)
    assert (one.returncode, one.stdout) == (other.returncode, other.stdout)
    assert "python scripts/compare.py RUN_A RUN_B" in one.stdout


@pytest.mark.slow
def test_a_training_from_an_installed_package(installed, tmp_path):
    help_ = start(["-m", "detector", "train", "--help"], installed, tmp_path).stdout
    assert "python -m detector train model=c4 roi=pool seed=3" in help_
    assert f"the files in {installed}/detector/configs/ explain" in help_
    assert "scripts/" not in help_
    tiny = ["data.root=shapes", "data.shapes.train_images=4", "data.shapes.val_images=2", "data.shapes.image_size=64",
            "model.min_size=[64]", "data.workers=0", "trainer.max_steps=2", "optim.warmup_steps=1",
            "run_dir=run"]  # fmt: skip
    ended = start(["-m", "detector", "train", *tiny], installed, tmp_path)
    assert ended.returncode == 0, ended.stderr
    again = start(["-m", "detector", "train", *tiny, "resume=auto", "seed=5"], installed, tmp_path)
    assert again.returncode == 2
    assert "python -m detector train --config-dir run --config-name config" in again.stderr
    scored = start(["-m", "detector", "evaluate", "checkpoint=run"], installed, tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert (tmp_path / "run/evaluate/best/metrics.json").is_file()
    study = start(["-m", "detector", "ablate", "study=smoke", "action=plan"], installed, tmp_path)
    assert study.returncode == 0, study.stderr


@pytest.mark.parametrize(("arguments", "says"), [
    (["trian"], "error: there is no command 'trian': did you mean train? python -m detector COMMAND"),
    ([], "python -m detector COMMAND ..., where COMMAND is one of ablate, benchmark, compare, evaluate, export, "),
])  # fmt: skip
def test_a_command_that_is_none(arguments, says, tmp_path):
    ended = start(["-m", "detector", *arguments], ROOT, tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(says)
    assert "Traceback" not in ended.stderr
