"""Scripts that users of Lightning would write, each in a process of its own."""

import csv
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).with_name("scripts")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LOSSES = ("loss", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


def test_scripts_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in SCRIPTS.glob("*.py")}
    assert len(lengths) == 7
    assert {name: length for name, length in lengths.items() if length > 30} == {}
    code = SCRIPTS.joinpath("module_alone.py").read_text().split("__main__")[1]
    assert len(code.splitlines()) <= 20


@pytest.mark.slow
def test_module_alone(run, tmp_path):
    """Three batches in each of two epochs; what is logged is in Lightning's CSV, best.ckpt by the logged AP."""
    steps, best, batches, *keys = run("module_alone").split()
    assert (steps, batches, keys) == ("6", "3", ["['boxes',", "'labels',", "'scores']"])
    assert Path(tmp_path, best).is_file()
    with open(tmp_path / "logs/lightning_logs/version_0/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = set(rows[0])
    assert {f"val/{name}" for name in METRICS + LOSSES} <= columns
    assert {f"test/{name}" for name in METRICS + LOSSES} <= columns
    assert {f"train/{name}" for name in LOSSES} <= columns
    assert any(name.startswith("lr-") for name in columns)
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2", "3", "4", "5"]  # as Lightning counts


@pytest.mark.slow
def test_checkpoints_of_a_plain_trainer(run, folder):
    assert run("checkpoints", folder) == "['dark', 'bright'] [1, 2] [64]"


@pytest.mark.slow
def test_data_module_with_another_module(run, folder):
    """Six images in batches of two are three steps in each of two epochs."""
    assert run("data_module", folder) == "6"


@pytest.mark.slow
def test_tuner(run, folder):
    """Batches of 1 and 2 images fit; of fifteen rates one is suggested, and is the peak of the training."""
    assert run("tuner", folder) == "2 2 15 True True"


@pytest.mark.slow
def test_callbacks_in_a_plain_trainer(run, tmp_path):
    """Stopped after step 3 of 12, the training goes on to its end."""
    assert run("callbacks") == "stopped after step 3; to go on: ckpt_path='kept/last.ckpt' 12"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_an_operator_of_ones_own(run_script):
    """Refused by name, then loaded with the argument that the run was given."""
    done = run_script(SCRIPTS / "own_operator.py")
    assert done.returncode == 0, done.stderr
    refused, loaded = done.stdout.splitlines()[-2:]
    for fact in ("roi.kind", "own_operator.FinestMap", "trust='own_operator'"):
        assert fact in refused
    assert loaded == "0.5 1"
