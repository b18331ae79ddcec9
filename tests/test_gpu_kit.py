"""`make gpu-kit`: what is carried to a bare GPU machine."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from gpu_kit import cuda_cache, floors, interpreter, prepare, wheels

from roi_ops.cuda import compiler, programs

TESTS = Path(__file__).resolve().parent


# ------------------------------------------------------------------------------------------------------ wheels
def test_the_list_of_what_is_installed_is_read():
    there = wheels.installed()
    assert there["python"] == "3.12"
    assert there["torch"].startswith("2.11")
    assert there["numpy"] == ""
    assert not {name for name in there if "#" in name or "=" in name}


def test_the_kit_has_what_the_project_needs_and_the_machine_lacks():
    found = wheels.wanted()
    assert {"hydra-core", "omegaconf", "pycocotools", "filelock"} <= set(found)
    assert "antlr4-python3-runtime" in found  # hydra-core's
    assert not set(found) & set(wheels.installed())
    assert found["hydra-core"] == metadata.version("hydra-core")


def test_needs_of_a_package_that_is_there_are_there():
    python = {"python": "3.12"}
    assert set(wheels.lacking(["hydra-core"], {**python, "omegaconf": "", "packaging": ""})) == {
        "hydra-core", "antlr4-python3-runtime"}  # fmt: skip
    assert wheels.lacking(["hydra-core; sys_platform == 'win32'"], python) == {}
    assert wheels.lacking(["hydra-core; python_version < '3.12'"], python) == {}
    with pytest.raises(metadata.PackageNotFoundError):
        wheels.lacking(["no-such-package"], python)


def test_wheels_are_fetched_once_and_others_removed(tmp_path, monkeypatch):
    fetched = []

    def fetch(package, folder):
        fetched.append(package)
        name, version = package.split("==")
        (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()

    monkeypatch.setattr(wheels, "wanted", lambda: {"hydra-core": "1.3", "omegaconf": "2.3"})
    monkeypatch.setattr(wheels, "_fetch", fetch)
    (tmp_path / "hydra_core-1.2-py3-none-any.whl").touch()
    (tmp_path / "other-1-py3-none-any.whl").touch()
    for _ in range(2):
        names = [file.name for file in wheels.collect(tmp_path)]
        assert names == ["hydra_core-1.3-py3-none-any.whl", "omegaconf-2.3-py3-none-any.whl"]
    assert sorted(fetched) == ["hydra-core==1.3", "omegaconf==2.3"]
    monkeypatch.setattr(wheels, "wanted", lambda: {"absent": "1"})
    monkeypatch.setattr(wheels, "_fetch", lambda package, folder: None)
    with pytest.raises(RuntimeError, match="absent 1"):
        wheels.collect(tmp_path)


# ------------------------------------------------------------------------------------------------------ oldest versions
def test_the_oldest_versions_are_read_and_compared():
    lines = ["torch>=2.11", "torchvision>=0.26", "cuda-core>=1.0.1; platform_system == 'Linux'", "numpy"]
    text = f"[project]\ndependencies = {lines}"
    floor = floors.floors(text)
    assert floor == {"torch": "2.11", "torchvision": "0.26", "cuda-core": "1.0.1"}
    assert [floors.wanted(*pair) for pair in floor.items()] == [
        "torch==2.11.*",
        "torchvision==0.26.*",
        "cuda-core==1.0.1",
    ]
    oldest = {"torch": "2.11.1+cu130", "torchvision": "0.26.0+cpu", "cuda-core": "1.0.1"}
    assert floors.differences(floor, oldest) == []
    newer = {"torch": "2.14.1+cu130", "torchvision": "0.26.0", "cuda-core": "1.0.11"}
    assert [line.split()[0] for line in floors.differences(floor, newer)] == ["torch", "cuda-core"]
    for name in floors.NAMES:
        with pytest.raises(ValueError, match=name):
            floors.floors(text.replace(f"{name}>=", f"{name}~="))


def test_the_job_of_the_oldest_versions_asks_for_all_of_them():
    assert set(floors.floors(floors.PYPROJECT.read_text(encoding="utf-8"))) == set(floors.NAMES)


# ------------------------------------------------------------------------------------------------------ kernels
def test_an_interpreter_is_found_by_its_version(tmp_path, monkeypatch):
    assert interpreter.find("9.9") is None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    broken = tmp_path / "bin" / f"python{version}"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 127\n")  # as the links of pyenv to a version that is not chosen
    broken.chmod(0o755)
    there = tmp_path / "versions" / f"{version}.1" / "bin" / "python"
    there.parent.mkdir(parents=True)
    there.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(broken.parent))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    assert interpreter.find(version) is None
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert interpreter.find(version) == str(there)


@pytest.fixture
def nvrtc():
    pytest.importorskip("cuda.core")
    return compiler.compiler_version().removeprefix("nvrtc ")


def test_kernels_of_the_kit_are_found_where_nvrtc_has_the_same_version(tmp_path, monkeypatch, nvrtc):
    """Filled by another process, in another folder than it is read from; nothing is compiled again."""
    names, made, carried = ["sort_boxes", "count_tiles_f32"], tmp_path / "made", tmp_path / "carried"
    made.mkdir()
    for name in ("sort_boxes-sm_90-of_an_older_source.cubin", "sort_boxes-sm_90.log", "notes of the user"):
        (made / name).touch()
    code = (
        "import sys; from gpu_kit import cuda_cache as c; print(c.fill(c.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(made), nvrtc, *names],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"
    assert len(list(made.glob("*.cubin"))) == 2
    assert {file.name for file in made.iterdir() if file.suffix != ".cubin"} == {"notes of the user"}
    made.rename(carried)
    monkeypatch.setenv(compiler.VARIABLE, str(carried))
    monkeypatch.setattr(compiler, "compile_kernel", lambda *_, **__: pytest.fail("compiled again"))
    for kernel in (kernel for kernel in programs.every_kernel() if kernel.name in names):
        found = compiler.compiled(kernel, cuda_cache.ARCHITECTURE)
        assert found[:4] == b"\x7fELF"
        assert b".nv_debug_line_sass" in found
    monkeypatch.setattr(compiler, "compiler_version", lambda: "nvrtc 99.0")
    assert compiler.stored(programs.sort_boxes(), cuda_cache.ARCHITECTURE) is None


def test_kernels_for_another_nvrtc_are_refused(tmp_path):
    pytest.importorskip("cuda.core")
    with pytest.raises(RuntimeError, match=r"99\.0"):
        cuda_cache.fill(tmp_path, "99.0")


def test_a_kit_that_is_too_large_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare.wheels, "collect", lambda folder: [])
    monkeypatch.setattr(prepare.interpreter, "find", lambda version: None)
    monkeypatch.setattr(prepare, "fill_cuda_cache", lambda folder: 74)
    (tmp_path / "whl").mkdir()
    (tmp_path / "whl" / "large.whl").write_bytes(bytes(2000))
    assert prepare.main(tmp_path) == 0
    assert "no CPU kernels" in capsys.readouterr().out
    monkeypatch.setattr(prepare, "LIMIT", 1000)
    assert prepare.main(tmp_path) == 1
