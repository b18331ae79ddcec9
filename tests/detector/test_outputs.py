"""Where results go when no folder is given."""

from pathlib import Path

import pytest

from detector.outputs import results_folder, run_folder


@pytest.mark.parametrize(("given", "folder"), [
    (dict(output_dir="here", script="predict", name="photos", checkpoint="RUN"), Path("here")),
    (dict(output_dir="", script="compare", name="a-b"), Path("runs/compare/a-b")),
    (dict(output_dir="", script="benchmark"), Path("runs/benchmark")),
    (dict(output_dir="", script="predict", name="photos", checkpoint="RUN/checkpoints/last.ckpt"),
     Path("RUN/predict/photos")),
    (dict(output_dir="", script="benchmark", checkpoint="kept/bccd.ckpt"), Path("kept/benchmark")),
    (dict(output_dir="", script="benchmark", checkpoint="bccd.ckpt"), Path("benchmark")),
])
def test_rule(given, folder):
    assert results_folder(**given) == folder


def test_a_run_is_known_by_its_folder_and_by_its_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for given in (tmp_path, tmp_path / "checkpoints/best.ckpt", tmp_path / "checkpoints/last.ckpt"):
        assert run_folder(given) == tmp_path
