"""What a signal does, call by call; whole runs that are interrupted are in test_resume and test_distributed."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.exceptions import ConfigError
from detector.training.callbacks import interrupt
from detector.training.callbacks.checkpoints import Checkpoints
from detector.training.callbacks.interrupt import Interrupt, Interruption


@pytest.fixture
def make(monkeypatch):
    """A function -> an Interrupt that a signal has reached and a list of what it does."""

    def go(number=signal.SIGUSR1, job=True):
        done = []
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setattr(interrupt, "requeue", lambda say: done.append("requeue"))
        checkpoints = SimpleNamespace(save_last=lambda trainer: done.append("checkpoint"), folder=Path("mine"))
        callback = Interrupt(say=lambda text: None)
        callback.checkpoints = checkpoints
        callback._handle(number, None)
        return callback, done

    return go


def trainer_of(done, rank=0, world=2):
    strategy = SimpleNamespace(barrier=lambda: done.append("barrier"), reduce_boolean_decision=lambda wish, all: wish)
    return SimpleNamespace(
        is_global_zero=rank == 0,
        world_size=world,
        global_step=1,
        accumulate_grad_batches=1,
        strategy=strategy,
        is_last_batch=False,
    )


def test_no_process_leaves_before_the_job_is_queued_again(make):
    for rank, expected in ((0, ["checkpoint", "requeue", "barrier"]), (1, ["checkpoint", "barrier"])):
        callback, done = make()
        with pytest.raises(Interruption, match=r"after step 1; to go on: ckpt_path='mine/last\.ckpt'"):
            callback.on_train_batch_end(trainer_of(done, rank), None, None, None, 0)
        assert done == expected


def test_a_handler_that_lightning_puts_back_passes_the_signal_on():
    """Its Trainer finds the callback's handler, and restores it when the interrupted `fit` has ended."""
    seen = []
    own = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        callback = Interrupt(say=lambda text: None)
        callback.on_fit_start(None, None)
        found = signal.getsignal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        callback.on_exception(None, None, Interruption())
        assert (callback.requested, seen) == (True, [])
        signal.signal(signal.SIGUSR1, found)
        for _ in range(2):
            signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * 2
    finally:
        signal.signal(signal.SIGUSR1, own)


def test_an_evaluation_of_several_processes_is_left_too(make):
    callback, done = make()
    with pytest.raises(Interruption):
        callback.on_validation_batch_end(trainer_of(done, rank=0))
    assert done == ["requeue"]
    callback, done = make()
    callback.on_validation_batch_end(trainer_of(done, rank=1))  # goes on until SLURM ends it
    assert done == []
    for rank in (0, 1):
        callback, done = make(signal.SIGINT)
        with pytest.raises(Interruption):
            callback.on_validation_batch_end(trainer_of(done, rank))
        assert done == []


def test_accumulated_gradients_are_finished_first(make):
    callback, done = make(signal.SIGINT)
    trainer = trainer_of(done)
    trainer.accumulate_grad_batches = 2
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert done == []
    with pytest.raises(Interruption):
        callback.on_train_batch_end(trainer, None, None, None, 1)


def test_a_signal_in_the_middle_of_a_line_of_output():
    """Python's buffered streams refuse to be entered a second time; the run has to stop in order all the same."""

    def say(text):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    callback = Interrupt(say=say)
    callback._handle(signal.SIGTERM, None)
    assert callback.requested


def test_loader_processes_leave_signals_to_the_main_one(monkeypatch):
    callback = Interrupt(say=pytest.fail)
    monkeypatch.setattr(os, "getpid", lambda: callback._process + 1)
    callback._handle(signal.SIGINT, None)
    assert not callback.requested


def test_something_has_to_write_the_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="Checkpoints"):
        Interrupt().setup(SimpleNamespace(callbacks=[]), None, "fit")
    found, callback = Checkpoints(tmp_path), Interrupt()
    callback.setup(SimpleNamespace(callbacks=[callback, found]), None, "fit")
    assert callback.checkpoints is found
