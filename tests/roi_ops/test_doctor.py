import json
import subprocess
import sys

import pytest

from roi_ops import backends, cpu, doctor


def test_reports_every_backend_as_json(capsys, monkeypatch):
    monkeypatch.setattr(doctor.self_test, "__defaults__", (0.0,))
    code = doctor.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(report["backends"]) == set(backends.NAMES)
    assert report["backends"]["reference"]["works"]
    for entry in report["backends"].values():
        assert entry["works"] or entry["why_not"]


def test_says_why_a_backend_does_not_work(capsys, monkeypatch):
    monkeypatch.setattr(cpu, "why_not", lambda: "no compiler was found")
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "cpu        not available: no compiler was found" in out
    assert doctor.main(["--require", "cpu"]) == 1
    assert doctor.main(["--require", "reference"]) == 0


def test_a_self_test_that_fails_is_reported_without_a_traceback(capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(cpu, "why_not", lambda: None)
    monkeypatch.setattr(cpu, "available", lambda: True)
    monkeypatch.setattr(backends, "_working", set())
    monkeypatch.setattr(cpu, "instruction_set", lambda: "none")
    monkeypatch.setattr(cpu, "linear_forward", broken)
    assert doctor.main(["--require", "cpu"]) == 1
    assert "cpu        does not work: RuntimeError: the driver is gone" in capsys.readouterr().out


def test_wrong_results_are_found(capsys, monkeypatch):
    if not cpu.available():
        pytest.skip(f"cpu backend: {cpu.why_not()}")
    right = cpu.linear_forward
    monkeypatch.setattr(cpu, "linear_forward", lambda *args: right(*args) * 1.01)
    assert doctor.main([]) == 1
    assert "WRONG RESULTS" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error():
    command = f'"{sys.executable}" -m roi_ops.doctor | head -n 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("python ")
    assert done.stderr == ""
