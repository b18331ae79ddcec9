import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)


def test_it_ends_within_twenty_minutes(monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: f"/bin/{name}")
    steps = gpu_check.steps(["repeats=3"])
    assert sum(seconds for _, _, seconds in steps) <= 20 * 60
    names = ["doctor", "tests", "memcheck", "racecheck", "synccheck", "initcheck", "benchmark"]
    assert [name for name, _, _ in steps] == names
    assert steps[-1][1][-1] == "repeats=3"


def test_a_step_that_fails_or_hangs_does_not_stop_the_others(monkeypatch, capfd):
    """Three steps of our own: one that fails, one that hangs, one that sees the modules of the tests."""
    run = [sys.executable, "-c"]
    monkeypatch.setattr(gpu_check, "steps", lambda arguments: [
        ("first", [*run, "raise SystemExit(3)"], 60),
        ("second", [*run, "import time; time.sleep(60)"], 0.2),
        ("third", [*run, "import cuda_emulator, roi_ops"], 60),
    ])  # fmt: skip
    assert gpu_check.main() == 1
    out = capfd.readouterr().out
    assert "first      FAILED with exit code 3" in out
    assert "second     FAILED: not done after 0 s" in out
    assert "third      passed" in out
