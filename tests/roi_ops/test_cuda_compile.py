"""NVRTC on the CUDA source, which needs no GPU; the cache of compiled kernels; when the backend is not available."""

import importlib
import multiprocessing
import os
import re
import subprocess
import sys

import pytest
import torch

from roi_ops import backends, cuda, doctor
from roi_ops.cuda import compile_all, compiler, driver, programs
from roi_ops.cuda.compiler import CompileError

pytest.importorskip("cuda.core")

KERNEL = programs.sort_boxes()
BROKEN = KERNEL._replace(name="broken", call="no_such_function")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(compiler.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def compilations(monkeypatch):
    """Counts compilations, and gives made-up code instead."""
    done = []

    def compile_kernel(kernel, arch):
        done.append((kernel.name, arch))
        return f"{kernel.name} for {arch}".encode(), ""

    monkeypatch.setattr(compiler, "compile_kernel", compile_kernel)
    return done


def test_nvrtc_compiles_a_kernel_and_keeps_it(folder):
    code = compiler.compiled(KERNEL, "sm_80")
    assert code[:4] == b"\x7fELF"
    assert [p.suffix for p in folder.iterdir()] == [".cubin"]
    assert compiler.compiled(KERNEL, "sm_80") == code


def test_a_kernel_is_compiled_once_for_each_architecture(folder, compilations):
    for _ in range(2):
        assert compiler.compiled(KERNEL, "sm_80") == b"sort_boxes for sm_80"
        assert compiler.compiled(KERNEL, "sm_90") == b"sort_boxes for sm_90"
    assert compilations == [("sort_boxes", "sm_80"), ("sort_boxes", "sm_90")]


def test_other_source_is_another_file_of_the_cache(folder, compilations, monkeypatch):
    compiler.compiled(KERNEL, "sm_80")
    monkeypatch.setattr(compiler, "_device_code_hash", lambda: "other")
    compiler.compiled(KERNEL, "sm_80")
    assert len(compilations) == 2
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b"", lambda b: b[:-1] + b"?"])
def test_a_damaged_file_of_the_cache_is_replaced(folder, compilations, damage):
    compiler.compiled(KERNEL, "sm_80")
    path = compiler.cache_path(KERNEL, "sm_80")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert compiler.compiled(KERNEL, "sm_80") == b"sort_boxes for sm_80"
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, compilations, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / "file" / "folder"))
    assert compiler.compiled(KERNEL, "sm_80") == compiler.compiled(KERNEL, "sm_80")
    assert len(compilations) == 2


def _compile_and_compare(expected):
    assert compiler.compiled(KERNEL, "sm_80") == expected


def test_several_processes_may_fill_one_cache(folder):
    code, _ = compiler.compile_kernel(KERNEL, "sm_80")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_compile_and_compare, args=(code,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [p.name for p in folder.iterdir()] == [compiler.cache_path(KERNEL, "sm_80").name]


def test_a_kernel_that_does_not_compile_names_its_log(folder):
    with pytest.raises(CompileError, match=r"broken does not compile for sm_80; the log is .*broken-sm_80\.log"):
        compiler.compiled(BROKEN, "sm_80")
    assert "no_such_function" in (folder / "broken-sm_80.log").read_text()


def test_a_user_without_a_home_caches_among_the_temporary_files(tmp_path, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in (compiler.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiler.Path, "home", nobody)
    monkeypatch.setattr(compiler.tempfile, "gettempdir", lambda: str(tmp_path))
    assert compiler.cache_folder() == tmp_path / f"roi_ops-{os.getuid()}"


def test_no_room_for_temporary_files_is_a_compile_error(folder, monkeypatch):
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(folder / "missing"))
    with pytest.raises(CompileError, match="temporary folder") as caught:
        compiler.compile_kernel(KERNEL, "sm_80")
    assert not caught.value.is_lasting


def test_the_reason_why_it_does_not_work_is_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backends.why_not("cuda") == "no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    assert "7.0, older than 7.5" in backends.why_not("cuda")
    monkeypatch.setattr(cuda, "_found", lambda module: False)
    for version, extra in (("12.8", "cu12"), ("13.0", "cu13")):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert f'pip install "cuda-core[{extra}]"' in backends.why_not("cuda")


def test_the_doctor_shows_compiler_and_cache(folder, compilations):
    compiler.compiled(KERNEL, "sm_80")
    status = cuda.status()
    assert status["compiler"].startswith("nvrtc ")
    assert status["cache"] == str(folder)
    assert (status["cached_kernels"], status["cached_bytes"]) == (1, 32 + len("sort_boxes for sm_80"))
    text = doctor.describe({"versions": {}, "threads": 1, "gpus": [], "serving": {}, "backends": {
        "cuda": {"works": False, "why_not": "no CUDA device", **status}}})  # fmt: skip
    assert f"1 compiled kernels (0.0 MB) in {folder}" in text


def test_importing_roi_ops_imports_no_compiler():
    code = "import sys, roi_ops; print('cuda.core' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


@pytest.mark.parametrize("error", [ImportError("no such symbol"), RuntimeError("libcudart is not there")], ids=type)
def test_a_search_for_headers_that_fails_is_a_compile_error(folder, monkeypatch, error):
    def fail(name):
        raise error

    pathfinder = pytest.importorskip("cuda.pathfinder")
    monkeypatch.setattr(pathfinder, "find_nvidia_header_directory", fail)
    with pytest.raises(CompileError, match=str(error)):
        compiler.compiled(programs.linear_forward(torch.float16, 2), "sm_80")


@pytest.mark.parametrize("module", ["cuda.core", "cuda.pathfinder", "cuda.bindings.driver"])
def test_a_package_that_cannot_be_imported_is_a_compile_error(folder, monkeypatch, module):
    """``None`` among the modules makes an import of it fail, as versions that do not fit do."""
    monkeypatch.setitem(sys.modules, module, None)
    parent, name = module.rsplit(".", 1)
    monkeypatch.delattr(importlib.import_module(parent), name, raising=False)
    driver._bindings.cache_clear()
    calls = {
        "driver": lambda: driver.Driver().launch(KERNEL, None, None, torch.device("cuda:0")),
        "core": lambda: compiler.compiled(KERNEL, "sm_80"),
        "pathfinder": lambda: compiler.compiled(programs.linear_forward(torch.float16, 2), "sm_80"),
    }
    with pytest.raises(CompileError, match=name):
        calls[name]()


@pytest.mark.parametrize(
    ("module", "name"), [("cuda.core", "ProgramOptions"), ("cuda.bindings.nvrtc", "nvrtcGetSupportedArchs")]
)
def test_options_or_architectures_of_another_version_are_a_compile_error(folder, monkeypatch, module, name):
    def fail(*args, **kwargs):
        raise TypeError(f"{name} has changed")

    monkeypatch.setattr(importlib.import_module(module), name, fail)
    compiler._target.cache_clear()
    with pytest.raises(CompileError, match=f"{name} has changed"):
        compiler.compiled(KERNEL, "sm_80")


def test_what_kernels_do_not_serve_goes_to_the_reference(monkeypatch):
    monkeypatch.setattr(cuda, "_operators", lambda: pytest.fail("a kernel was asked"))
    boxes = torch.tensor([[0.0, 1, 1, 5, 5]])
    maps = [torch.ones(1, 1, 2, 2) for _ in range(9)]
    geometry = ([2.0**-i for i in range(9)], "align", 2, 2, 2, 0, 8, 224.0, 4.0)
    assert cuda.linear_forward(maps, boxes, False, *geometry).shape == (1, 1, 2, 2)
    assert cuda.linear_forward(maps[:1], boxes, False, [1.0], "align", 129, 1, 2, 0, 0, 224.0, 4.0).shape[2] == 129


def test_the_compile_matrix_fails_on_a_spill(monkeypatch, capsys, folder):
    """Eight blocks of 256 threads a multiprocessor leave a thread 32 registers."""
    narrow = programs.backward_features(torch.float32, False)._replace(blocks=8)
    monkeypatch.setattr(compile_all, "every_kernel", lambda dtypes: [KERNEL, narrow, BROKEN])
    assert compile_all.main(["--arch", "80,90"]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"sort_boxes +\d+ +\d+\n", out)
    assert re.search(r"linear_backward_features_f32 +\d+\+\d+\+\d+ ", out)
    assert re.search(r"linear_backward_features_f32 sm_90: \d+ bytes of spills", err)
    assert "broken sm_80: does not compile" in err
    assert "sort_boxes" not in err


def test_the_compile_matrix_knows_its_dtypes(capsys):
    with pytest.raises(SystemExit):
        compile_all.main(["--dtype", "f8"])
    assert "known are f32, f64, f16, bf16" in capsys.readouterr().err
