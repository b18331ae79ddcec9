"""Runs of a study: done once, kept apart, their failures written down, gone on with after a kill."""

import json
import sys
import threading

import pytest
import torch
from studies import TINY, FakeTraining

from detector.ablation import cell_process as module
from detector.ablation.cell_process import is_finished, meaning, run_in_process, run_process
from detector.ablation.cell_run import run_cell
from detector.config.defaults import default
from detector.config.schema import StudyConfig

KEYS = {"keep_weights": False, "common": {**TINY, "data": "shapes", "model": "c4"}}


def test_finished_cells_are_not_repeated_and_new_ones_are_added(make_study):
    fake = FakeTraining()
    fake.run(make_study(**KEYS))
    assert fake.calls == [("pool", 0), ("pool", 1), ("align", 0), ("align", 1)]
    fake.run(make_study(**KEYS))
    assert len(fake.calls) == 4
    fake.run(make_study(**KEYS, seeds=[0, 1, 2], factors={"roi": ["pool", "align", "prroi"]}))
    assert fake.calls[4:] == [("pool", 2), ("align", 2), ("prroi", 0), ("prroi", 1), ("prroi", 2)]


def test_record(make_study):
    study = make_study(**KEYS)
    FakeTraining().run(study)
    cell = make_study(**KEYS).cells[0]
    record = cell.record
    assert record["hash"] == cell.hash
    assert record["levels"] == {"roi": "pool"}
    assert record["config"]["roi"]["kind"] == "pool"
    assert record["costs"]["inference_ms"] == 10.0
    assert set(record["per_class"]) == {"circle", "rectangle", "triangle", "star", "ring", "cross"}
    assert record["images"] == 4
    assert {"versions", "git", "device", "date", "data", "seconds", "images_per_second"} <= record.keys()
    assert not (cell.folder / "run" / "checkpoints").exists()


def test_a_run_that_ends_before_its_record_is_not_finished(make_study):
    study = make_study(**KEYS)
    fake = FakeTraining(fail=lambda config: config.seed == 1)
    with pytest.raises(RuntimeError):
        fake.run(study)
    again = make_study(**KEYS)
    assert [c.label for c in again.finished()] == ["pool, seed 0"]
    FakeTraining().run(again)
    assert len(make_study(**KEYS).finished()) == 4


@pytest.fixture
def cell(make_study):
    study = make_study(**KEYS)
    study.cells[0].write(study.config)
    return study.cells[0]


def test_failures_are_counted_and_explained_and_forgotten(cell, monkeypatch):
    monkeypatch.setattr(module, "run_process", lambda folder, show: (-9, ["step 3", "step 4"]))
    assert not run_in_process(cell.folder)
    assert not run_in_process(cell.folder)
    assert cell.failure == {**cell.failure, "attempts": 2, "log": ["step 3", "step 4"]}
    assert cell.failure["exit"] == "ended by SIGKILL (out of memory?)"

    def succeed(folder, show):
        run_cell(folder, FakeTraining().train, FakeTraining.measure)
        return 0, []

    monkeypatch.setattr(module, "run_process", succeed)
    assert run_in_process(cell.folder)
    assert cell.failure == {}
    monkeypatch.setattr(module, "run_process", lambda folder, show: pytest.fail("started again"))
    assert run_in_process(cell.folder)


def test_the_threads_of_the_training_are_those_of_the_costs_and_of_the_record(make_study):
    (cell,) = make_study(**KEYS, extra={"trainer.threads": 3}, seeds=[0], factors={"roi": ["align"]}).cells
    cell.write(default(StudyConfig, keep_weights=False))
    before, measured = torch.get_num_threads(), []
    assert before != 3

    def measure(best):
        measured.append(torch.get_num_threads())
        return FakeTraining.measure(best)

    run_cell(cell.folder, FakeTraining().train, measure)
    assert measured == [3]
    assert cell.record["threads"] == 3
    assert torch.get_num_threads() == before


def test_of_two_that_want_a_cell_one_runs_it(cell, monkeypatch):
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def slow(folder, show):
        calls.append(folder)
        begun.set()
        assert go_on.wait(20)
        run_cell(folder, FakeTraining().train, FakeTraining.measure)
        return 0, []

    monkeypatch.setattr(module, "run_process", slow)
    first, second = (threading.Thread(target=run_in_process, args=(cell.folder,)) for _ in range(2))
    first.start()
    assert begun.wait(20)
    second.start()
    go_on.set()
    first.join(30)
    second.join(30)
    assert calls == [cell.folder]
    assert is_finished(cell.folder)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended without a record"), (2, "exit status 2"), (-11, "ended by SIGSEGV"), (-99, "ended by signal 99")],
)
def test_exit_in_words(code, words):
    assert meaning(code) == words


def test_mistakes_of_a_process_are_kept(cell, monkeypatch, tmp_path):
    """The real process, on a cell that cannot be trained: one message, status 2, the whole output in the log."""
    content = json.loads((cell.folder / "cell.json").read_text())
    content["config"]["data"]["name"] = "coco"
    content["config"]["data"]["root"] = str(tmp_path / "nowhere")
    (cell.folder / "cell.json").write_text(json.dumps(content))
    shown = []
    code, last = run_process(cell.folder, shown.append)
    assert code == 2
    assert last[-1].startswith("error: ")
    assert "nowhere" in last[-1]
    assert shown[-1] == last[-1]
    assert last[-1] in (cell.folder / "log.txt").read_text()


def test_a_run_does_not_take_itself_for_a_task_of_slurm(cell, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    original = module.subprocess.Popen
    script = "import os; print('SLURM_NTASKS' in os.environ)"
    monkeypatch.setattr(module.subprocess, "Popen", lambda _, **keys: original([sys.executable, "-c", script], **keys))
    assert run_process(cell.folder, lambda line: None) == (0, ["False"])


def test_ctrl_c_stops_the_process(cell, monkeypatch):
    """Whatever interrupts the waiting, the run gets Ctrl-C too and is gone afterwards."""
    started = []
    original = module.subprocess.Popen

    def sleeping(command, **keys):
        script = "import time; print('ready', flush=True); time.sleep(600)"
        started.append(original([sys.executable, "-c", script], **keys))
        return started[0]

    monkeypatch.setattr(module.subprocess, "Popen", sleeping)

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_process(cell.folder, interrupt)
    assert started[0].poll() not in (None, 0)
