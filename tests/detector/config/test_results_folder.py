"""Where results go when no folder is given."""

from pathlib import Path

import pytest

from detector.config.results_folder import discard, results_folder, run_folder


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (("here", "predict", "photos", "RUN"), Path("here")),
        (("", "compare", "a-b"), Path("runs/compare/a-b")),
        (("", "benchmark"), Path("runs/benchmark")),
        (("", "predict", "photos", "RUN/checkpoints/last.ckpt"), Path("RUN/predict/photos")),
        (("", "benchmark", "", "kept/bccd.ckpt"), Path("kept/benchmark")),
        (("", "benchmark", "", "bccd.ckpt"), Path("benchmark")),
    ],
)
def test_rule(arguments, folder):
    assert results_folder(*arguments) == folder


def test_a_run_is_known_by_its_folder_and_by_its_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for given in (tmp_path, tmp_path / "checkpoints/best.ckpt", tmp_path / "checkpoints/last.ckpt"):
        assert run_folder(given) == tmp_path


def test_only_the_named_files_go(tmp_path):
    for name in ("report.html", "mine.html", "plots/a.png", "more/b.png", "more/mine.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    discard(tmp_path, ["report.html", "plots/a.png", "more/b.png", "never/there.png"])
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["mine.html", "more", "more/mine.png"]
