"""scripts/gpu_check.py: steps within a budget, the environment of each, what comes back, the check of the kernels."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cuda_emulator.build import compiler
from gpu_kit import budget, cuda_cache, results, smoke, steps
from gpu_kit.steps import DEFAULT, Step, all_steps

from roi_ops import reference
from roi_ops.cuda import compiler as nvrtc
from roi_ops.cuda import driver, programs

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.py"
_spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
gpu_check = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_check)


def step(name, code, limit=60.0, **others):
    return Step(name, [sys.executable, "-c", code], limit, **others)


def run(chosen, seconds=100.0, after=lambda outcomes: None):
    return budget.run_steps(chosen, seconds, dict(os.environ), ROOT, after)


# ------------------------------------------------------------------------------------------------------ budget
def test_a_step_that_fails_or_is_not_there_does_not_stop_the_others():
    seen = []
    chosen = [
        step("fails", "raise SystemExit(3)"),
        Step("lacks", ["no-such-program"], 60),
        step("skipped", "", skipped="no GPU"),
        step("passes", "", note="on the CPU"),
    ]
    outcomes = run(chosen, after=lambda done: seen.append(len(done)))
    assert [o.outcome for o in outcomes] == [budget.FAILED, budget.FAILED, budget.SKIPPED, budget.PASSED]
    assert [o.is_bad for o in outcomes] == [True, True, False, False]
    assert "3" in outcomes[0].detail
    assert "no-such-program" in outcomes[1].detail
    assert [o.detail for o in outcomes[2:]] == ["no GPU", "on the CPU"]
    assert seen == [1, 2, 3, 4]


def test_a_step_that_hangs_is_asked_and_then_killed_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "LAST_WORDS", 1.0)
    code = f"""
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: pathlib.Path({str(tmp_path / "asked")!r}).touch())
deaf = "import signal, time; signal.signal(2, lambda *_: None); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-c", deaf])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
while True: time.sleep(0.1)
"""
    begun = time.monotonic()
    hanging, other = run([step("hangs", code, limit=4.0), step("passes", "")])
    assert hanging.outcome == budget.STOPPED
    assert hanging.is_bad
    assert other.outcome == budget.PASSED
    assert (tmp_path / "asked").exists()
    assert time.monotonic() - begun < 50
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_what_a_stopped_step_writes_in_its_last_seconds_is_kept(tmp_path):
    table = tmp_path / "table"
    code = f"""
import pathlib, time
try:
    time.sleep(99)
except KeyboardInterrupt:
    pathlib.Path({str(table)!r}).write_text("rows so far")
"""
    (outcome,) = run([step("hangs", code, limit=3.0)])
    assert outcome.outcome == budget.STOPPED
    assert table.read_text() == "rows so far"


def test_no_step_takes_more_than_what_is_left(monkeypatch):
    """Of 5 seconds after those for last words the first takes 4; the second is cut to what is left, the third is not
    begun."""
    monkeypatch.setattr(budget, "LAST_WORDS", 1.0)
    monkeypatch.setattr(budget, "LEAST", 0.5)
    hang = "import time; time.sleep(99)"
    begun = time.monotonic()
    outcomes = run([step("first", hang, limit=3.0), step("second", hang), step("third", "")], seconds=6.0)
    assert [o.outcome for o in outcomes] == [budget.STOPPED, budget.STOPPED, budget.NOT_BEGUN]
    assert not outcomes[2].is_bad
    assert time.monotonic() - begun < 15


# ------------------------------------------------------------------------------------------------------ steps
def on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(steps.shutil, "which", lambda name: f"/bin/{name}")
    return {step.name: step for step in all_steps("cuda", tmp_path, tmp_path)}


def test_every_step_has_a_limit_and_the_slow_ones_are_only_run_by_name(monkeypatch, tmp_path):
    known = on_a_gpu(monkeypatch, tmp_path)
    assert set(known) - set(DEFAULT) == {"slow", "detector"}
    assert all(0 < known[name].limit <= 150 for name in known)
    assert not any(step.skipped for step in known.values())
    # What tells most comes first, and fits into the budget whatever the later steps take.
    assert sum(known[name].limit for name in DEFAULT[:4]) < 430 - budget.LAST_WORDS


def test_the_allocator_caches_for_the_races_and_not_for_the_memory(monkeypatch, tmp_path):
    known = on_a_gpu(monkeypatch, tmp_path)
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = known[tool].command
        assert command[0] == "compute-sanitizer"
        assert command[command.index("--tool") + 1] == tool
        assert command[command.index("cuda_emulator.scenario") + 1] == "cuda"
        caching = known[tool].environment.get("PYTORCH_NO_CUDA_MEMORY_CACHING") != "1"
        assert caching == (tool in ("racecheck", "synccheck"))


def test_the_tests_run_here_as_on_a_gpu(monkeypatch, tmp_path):
    """The same folder and processes; the cases of the emulator in place of the GPU's."""
    there = on_a_gpu(monkeypatch, tmp_path)["tests"]
    here = {step.name: step for step in all_steps("emulator", tmp_path, tmp_path)}["tests"]
    assert "--collect-only" not in here.command
    assert here.command[here.command.index("-k") + 1].startswith("emulator")
    marks = there.command.index("gpu and not slow")
    assert here.command[: marks - 1] == there.command[: marks - 1]
    assert here.command[marks + 3 :] == there.command[marks + 1 :]


def test_threads_of_the_steps_do_not_wait_for_each_other(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert gpu_check.environment()["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert gpu_check.environment()["OMP_NUM_THREADS"] == "7"
    for where in ("cuda", "emulator"):
        for step in all_steps(where, tmp_path, tmp_path):
            assert ("pytest" in step.command) == (step.environment.get("OMP_NUM_THREADS") == "2")


def test_a_tool_that_is_not_there_skips_its_step(monkeypatch, tmp_path):
    monkeypatch.setattr(steps.shutil, "which", lambda name: None)
    known = {step.name: step for step in all_steps("cuda", tmp_path, tmp_path)}
    assert "compute-sanitizer" in known["memcheck"].skipped
    assert "ncu" in known["ncu"].skipped
    assert not known["smoke"].skipped


def test_a_step_of_another_name_is_refused():
    done = subprocess.run([sys.executable, str(SCRIPT), "smok"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "smoke" in done.stderr


# ------------------------------------------------------------------------------------------------------ results
def test_no_more_than_five_files_come_back_and_they_say_everything(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    for name in ("log", "ncu.txt", "roi.ncu-rep"):
        (out / name).touch()
    (work / "ops.json").write_text(json.dumps({"sections": [1]}))
    (work / "ops.md").write_text("## RoI operators\n")
    (work / "train.json").write_text("{")  # the step was killed while it wrote
    known = {
        "date": "2026-01-02",
        "card": {"name": "Card", "driver_version": "1.2"},
        "python": "3.12",
        "versions": {"torch": "2.11"},
        "cubins": (74, 74),
    }
    outcomes = [budget.Outcome("smoke", budget.FAILED, 3.0, "exit code 1")]
    results.write(out, work, known, outcomes)
    assert len(list(out.iterdir())) == 5
    text, numbers = (out / "gpu_check.md").read_text(), json.loads((out / "gpu_check.json").read_text())
    for word in ("Card", "1.2", "2.11", "2026-01-02", "| smoke | FAILED |", "## RoI operators"):
        assert word in text
    assert numbers["steps"][0]["name"] == "smoke"
    assert numbers["tables"] == {"ops": {"sections": [1]}}
    assert numbers["card"]["name"] == "Card"


def test_the_headline_warns_of_kernels_that_are_not_compiled(tmp_path, monkeypatch):
    known = {"date": "2026-01-02", "card": {}, "python": "3.12", "versions": {}}
    assert "WARNING" not in results.headline({**known, "cubins": (74, 74)})
    assert "WARNING" not in results.headline({**known, "cubins": (0, 0)})  # on the emulator
    few = results.headline({**known, "cubins": (3, 74)})
    assert "WARNING" in few
    assert "3 of 74" in few
    assert "WARNING" in results.headline({**known, "cubins": None})
    assert results.cubins({**os.environ, "PYTHONPATH": str(tmp_path)}) is None  # without the kit
    compiled = {"sort_boxes", "count_tiles_f32"}
    monkeypatch.setattr(driver, "architecture", lambda index: "sm_90")
    monkeypatch.setattr(nvrtc, "stored", lambda kernel, arch: b"" if kernel.name in compiled else None)
    assert cuda_cache.count() == (2, len(programs.every_kernel()))


def test_a_card_that_does_not_answer_costs_its_name_only(monkeypatch):
    def hang(command, **others):
        raise subprocess.TimeoutExpired(command, others["timeout"])

    monkeypatch.setattr(results.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(results.subprocess, "run", hang)
    assert results.card() == {}


def test_files_of_a_check_before_this_one_are_removed(tmp_path):
    for name in (*results.FILES, "log", "notes"):
        (tmp_path / name).touch()
    results.clear(tmp_path)
    results.clear(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "notes"]


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulator")
def test_everything_that_can_be_tried_without_a_gpu_passes(tmp_path):
    (tmp_path / "ncu.txt").touch()  # of an earlier check
    environment = {**os.environ, "WHERE": "emulator", "OUT": str(tmp_path), "BUDGET": "600"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gpu_check.json", "gpu_check.md"]
    numbers = json.loads((tmp_path / "gpu_check.json").read_text())
    outcomes = {step["name"]: step["outcome"] for step in numbers["steps"]}
    assert tuple(outcomes) == DEFAULT
    assert {name for name in DEFAULT if outcomes[name] == budget.PASSED} == {*DEFAULT} - {
        "racecheck",
        "synccheck",
        "initcheck",
    }
    assert {name: len(table["sections"][0]["records"]) for name, table in numbers["tables"].items()} == {
        "ops": 18,
        "train": 4,
    }


# ------------------------------------------------------------------------------------------------------ smoke
FUNCTIONS = [name for name in reference.__all__ if name.startswith(("linear_", "max_"))]
FEW = smoke.Sizes(4, 20, 24, 8, 5)


def test_smoke_accepts_the_reference_in_every_type():
    assert smoke.compare(reference, "cpu", FEW, 0) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_smoke_finds_a_kernel_that_is_wrong_in_one_place(name, capsys):
    functions = {function: getattr(reference, function) for function in FUNCTIONS}

    def wrong(*arguments):
        found = functions[name](*arguments)
        first = found[0] if isinstance(found, (tuple, list)) else found
        first[tuple(size // 2 for size in first.shape)] += 1
        return found

    complaints = smoke.compare(SimpleNamespace(**{**functions, name: wrong}), "cpu", FEW, 0)
    said = capsys.readouterr().out
    kinds = {complaint.split()[0] for complaint in complaints}
    assert kinds == set(smoke.LINEAR_KINDS if name.startswith("linear") else smoke.MAX_KINDS) - (
        {"pool"} if name == "max_backward_boxes" else set())  # fmt: skip
    for kind in smoke.LINEAR_KINDS + smoke.MAX_KINDS:  # each says at once how it did
        mine = [complaint for complaint in complaints if complaint.split()[0] == kind]
        assert f"{kind}: {f'{len(mine)} FAILED' if mine else 'passed'}\n" in said
        assert all(complaint in said for complaint in mine[: smoke.SHOWN])


@pytest.mark.slow
def test_the_limits_of_smoke_fit_the_sizes_of_a_gpu():
    """The reference in the storage type, as the kernels compute, is within the limits at those sizes too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert smoke.compare(reference, "cpu", smoke.GPU, 0) == []
    finally:
        torch.set_num_threads(threads)


def test_smoke_never_accepts_nan():
    nan = lambda *arguments: reference.linear_forward(*arguments) * float("nan")
    functions = {name: getattr(reference, name) for name in FUNCTIONS}
    complaints = smoke.compare(SimpleNamespace(**{**functions, "linear_forward": nan}), "cpu", FEW, 0)
    assert len(complaints) == len(smoke.LINEAR_KINDS) * len(smoke.LIMITS) * 3


def test_signals_are_what_python_takes_for_an_interruption():
    """The steps rely on it: SIGINT raises KeyboardInterrupt in a Python that was started by another."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, process_group=0)
    assert done.stdout.strip() == "True"
    assert signal.SIGINT == 2
