"""Classes of the user's own in a run, in a process where only the wheel is installed."""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "open_ends" / "squares.py"


@pytest.mark.slow
def test_classes_of_a_script(run_script, tmp_path):
    done = run_script(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "steps 3 ['dark', 'bright']" in done.stdout.splitlines()
    content = json.loads((tmp_path / "run" / "annotations.json").read_text())
    assert [entry["bbox"] for entry in content["annotations"]] == [[8, 8, 32, 32]] * 2
    assert len(SCRIPT.read_text().splitlines()) <= 30
