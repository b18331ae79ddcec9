"""The script as a user runs it: start, kill, go on, report; launchers; mistakes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import forked
import pytest
from studies import ROOT, TINY

from detector.config.command_line import INTERRUPTED
from detector.config.schema import parse
from detector.training.train import train

pytestmark = pytest.mark.slow
SETTINGS = {**TINY, "trainer.checkpoint_every": 2, "trainer.threads": 1}


def command(folder, *arguments, steps=6):
    settings = {**SETTINGS, "data.root": f"{folder}/data", "trainer.max_steps": steps}
    values = ",".join(f"{key}:{json.dumps(value)}" for key, value in settings.items())
    return [sys.executable, "scripts/ablate.py", "study=smoke", "study.seeds=[4]", f"study_dir={folder / 'study'}",
            f"set={{{values}}}", *arguments]  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*parts, code=0, is_forked=False):
    """The output of a command; forked only where it starts no runs, which end with the process that started them."""
    if is_forked:
        done = forked.run([*parts], cwd=ROOT, env=environment())
    else:
        done = subprocess.run(parts, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_until(reached, process=None):
    """Wait for a truth, while ``process`` lives."""
    limit = time.monotonic() + 240
    while not reached():
        assert process is None or process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)


def processes_with(marker):
    """Ids of the living processes that have ``marker`` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("study/runs/*/record.json"))]


def test_killed_and_started_again_it_ends_as_if_it_had_not_been(tmp_path):
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    # Killed in the training of the first cell, after its first checkpoint.
    wait_until(lambda: list(tmp_path.glob("study/runs/*/run/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out = run(*command(tmp_path))
    assert "2 runs, 2 finished" in out
    assert "align - pool: " in out
    assert "The report is in" in out
    found = records(tmp_path)
    assert [record["levels"]["roi"] for record in found] == ["align", "pool"]
    for record in found:
        config = parse(record["config"])
        plain = train(replace(config, run_dir=str(tmp_path / config.roi.kind), resume=""))
        assert record["metrics"] == plain.result.metrics
        assert record["costs"]["forward_ms"] > 0
        assert record["costs"]["peak_memory_mb"] > 100
    report = (tmp_path / "study/report/report.md").read_text()
    assert "2 of 2 runs are finished (seed 4): the study is complete." in report
    assert "Operators exchanged after training" in report
    # Once more: nothing is left to do, and the report is the same.
    again = run(*command(tmp_path))
    assert ": started" not in again
    assert (tmp_path / "study/report/report.md").read_text() == report
    assert len(list(csv.reader((tmp_path / "study/report/runs.csv").open()))) == 3


def test_joblib_and_a_failure(tmp_path):
    """Two runs at a time; one cannot be done, and the other is finished all the same."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "half.yaml").write_text(
        "defaults: [_shapes, _self_]\ncommon: {model: c4}\n"
        "factors: {roi: {good: {roi: align}, bad: {model.weights: nowhere.pth}}}\n"
    )
    out = run(*command(tmp_path, "study=half", "--config-dir", str(tmp_path), "study.diagnostics=false",
                       "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), code=1)  # fmt: skip
    assert "FAILED, exit status 2: error: " in out
    assert "nowhere.pth" in out
    assert "2 runs, 1 finished, 1 failed (bad, seed 4)" in out
    (failure,) = tmp_path.glob("study/runs/*/failure.json")
    assert json.loads(failure.read_text())["attempts"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and Linux ends processes with their parent")
def test_a_study_that_is_stopped_ends_with_its_workers(tmp_path):
    """Killed while its runs load PyTorch, then asked to end while one trains; joblib's processes and theirs are gone,
    and the same command goes on."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    # So many steps that a slow test still asks one to end before its last.
    parts = command(tmp_path, "study.diagnostics=false", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", steps=24)
    marker = f"TEST_STUDY={tmp_path}"
    for number, awaited, code in ((signal.SIGKILL, "log.txt", -signal.SIGKILL),
                                  (signal.SIGTERM, "run/checkpoints/last.ckpt", INTERRUPTED)):  # fmt: skip
        process = subprocess.Popen(parts, cwd=ROOT, env={**environment(), "TEST_STUDY": str(tmp_path)},
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        try:
            wait_until(lambda name=awaited: list(tmp_path.glob(f"study/runs/*/{name}")), process)
            assert len(processes_with(marker)) > 2
            process.send_signal(number)
            assert process.wait(60) == code
            wait_until(lambda: not processes_with(marker))
        finally:
            for survivor in processes_with(marker):
                os.kill(survivor, signal.SIGKILL)
        told = process.stderr.read()
        assert "Traceback" not in told
        assert not list(tmp_path.glob("study/runs/*/failure.json"))
    assert "interrupted; the same command goes on where the study stopped" in told
    out = run(*parts)
    assert "2 runs, 2 finished" in out
    logs = [path.read_text() for path in tmp_path.glob("study/runs/*/log.txt")]
    starts = [int(step) for log in logs for step in re.findall(r"^steps +(\d+) to 24 of", log, re.MULTILINE)]
    assert any(0 < step < 24 for step in starts), logs


def test_runs_are_started_seed_by_seed(tmp_path):
    """A study that is stopped has pairs to compare: here after 0 hours, which starts none, but names them in order."""
    out = run(*command(tmp_path, "study.seeds=[7,4]", "study.hours=1e-9", "study.diagnostics=false"))
    started = [line.split("] ")[1].split(":")[0] for line in out.splitlines() if "not started" in line]
    assert started == ["pool, seed 7", "align, seed 7", "pool, seed 4", "align, seed 4"]


def test_plan_and_mistakes(tmp_path):
    out = run(*command(tmp_path, "action=plan"), is_forked=True)
    assert out.count("missing") == 3
    assert not (tmp_path / "study").exists()
    out = run(*command(tmp_path, "study.metric=[AP]"), code=2, is_forked=True)
    assert "unknown key 'study.metric'; did you mean 'study.metrics'?" in out
    assert "Traceback" not in out
    (tmp_path / "study").mkdir()
    own = tmp_path / "study" / "own.yaml"
    own.write_text("factors: {roi: [align, pool]}\ncommon: {optim.lrr: 1}\n")
    out = run(*command(tmp_path, "study=own", "--config-dir", str(tmp_path)), code=2, is_forked=True)
    assert f"common of {own}: unknown key 'optim.lrr'; did you mean 'optim.lr'?" in out
    out = run(*command(tmp_path, "cell=pool"), code=2, is_forked=True)
    assert "cell=pool: must be one of pool-seed4-" in out
    out = run(*command(tmp_path, "hydra/launcher=nowhere"), code=2, is_forked=True)
    assert "nowhere" in out
    assert "Traceback" not in out


def test_help():
    out = run(sys.executable, "scripts/ablate.py", "--help", is_forked=True)
    assert "study=roi_operators" in out
    assert Path(ROOT / "scripts" / "ablate.py").is_file()
