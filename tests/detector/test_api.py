"""The commands as functions: results, what stays of a process, the same numbers again, a run that is stopped."""

import hashlib
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from small import SHORT, SMALL

import detector
import detector.training.train  # imports set some things once
from detector.exceptions import ConfigError, DetectorError

LOGGERS = ("", "detector", "alembic", "pytorch_lightning", "lightning.pytorch", "lightning_fabric")


def process_state():
    """Everything of a process that a command could leave changed.

    PyTorch's own handler of SIGCHLD, which tells that a loader process died, is the exception.
    """
    rng, deterministic = np.random.get_state(), torch.utils.deterministic
    loggers = [logging.getLogger(name) for name in LOGGERS]
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "logging": [(logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers],
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "arguments": (list(sys.argv), list(sys.path), sys.excepthook),
        "hydra": (GlobalHydra.instance().is_initialized(), sorted(ConfigStore.instance().repo)),
        "draws": (random.getstate(), rng[1].tolist(), rng[2:], torch.get_rng_state().tolist()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory,
                          torch.is_deterministic_algorithms_warn_only_enabled()),
        "kernels": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
                    torch.get_float32_matmul_precision(), torch.get_default_dtype()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "matplotlib": (mpl.rcParams.copy(), mpl.rcParams._get("backend")),
        "processes": (multiprocessing.active_children(), multiprocessing.get_start_method()),
        "running": sorted(thread.name for thread in threading.enumerate()),
        "output": (sys.stdout, sys.stderr, sys.stdout.errors),
        "pictures": Image.MAX_IMAGE_PIXELS,
    }  # fmt: skip


def changed(before, after):
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A run of seconds, with all that sets something of the process."""
    settings = {"trainer.deterministic": True, "trainer.threads": 1, "logger.tensorboard": True, "data.workers": 1}
    return {**SMALL, **SHORT, "logger.sheet_images": 1, **settings, "data.root": tmp_path_factory.mktemp("shapes")}


@pytest.fixture(scope="module")
def trained(keys, tmp_path_factory):
    """A run, and what it left changed."""
    before = process_state()
    run = detector.train(**keys, run_dir=tmp_path_factory.mktemp("runs") / "a", roi="pool")
    return run, changed(before, process_state())


def test_a_run_in_numbers(trained):
    run, _ = trained
    written = json.loads((run.folder / "metrics.json").read_text())
    assert run.metrics == {name: written[name] for name in run.metrics}
    assert [vars(found) for found in run.per_class] == written["per_class"]
    assert [row["step"] for row in run.history if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["val/AP"] for row in run.history if "val/AP" in row] == [pytest.approx(run.metrics["AP"], rel=1e-6)]
    found = run.load()(np.zeros((64, 64, 3), np.uint8))
    assert found[0].draw(np.zeros((64, 64, 3), np.uint8)).size == (64, 64)
    assert run.checkpoint == run.folder / "checkpoints/best.ckpt"


def test_training_leaves_nothing_behind(trained):
    assert trained[1] == {}


@pytest.mark.slow
def test_other_commands(trained, keys, tmp_path):
    """A result stands for its folder; each command leaves the process as it was."""
    run, _ = trained
    before = process_state()
    one = detector.evaluate(checkpoint=run, resamples=20, workers=1, output_dir=tmp_path / "one")
    two = detector.evaluate(checkpoint=run.checkpoint, resamples=20, output_dir=tmp_path / "two", score_thresh=0.9)
    compared = detector.compare(one, two, resamples=20, output_dir=tmp_path / "both")
    found = detector.predict(checkpoint=run, source=run.folder / "predictions.png", output_dir=tmp_path / "found")
    looked = detector.inspect_data(**keys, output_dir=tmp_path / "data")
    assert changed(before, process_state()) == {}
    assert one.metrics == run.metrics
    assert one.folder == tmp_path / "one"
    assert set(one.intervals) <= set(one.metrics)
    assert (compared.names, compared.table[0]["metric"]) == (["one", "two"], "AP")
    assert compared.table[0]["two difference"] == pytest.approx(two.metrics["AP"] - one.metrics["AP"])
    assert found.images == 1
    assert len(looked.examination.splits) == 2
    for outcome, picture in ((run, "curves.png"), (one, "predictions.png"), (compared, "differences.png"),
                             (looked, "data.png")):  # fmt: skip
        html = outcome._repr_html_()
        assert f'alt="{picture}"' in html
        assert "data:image/" in html
        assert "\x1b" not in html
        assert len(repr(outcome)) < 300


def test_mistakes_are_errors_before_anything_is_imported_or_written(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = process_state()
    for call, fact in (
        (lambda: detector.train(modle="c4"), "'model'"),
        (lambda: detector.train(lr="fast"), "optim.lr"),
        (lambda: detector.train(data="no/folder"), "no/folder"),
        (lambda: detector.train(**keys, resume="missing.ckpt", run_dir=tmp_path / "new"), "missing.ckpt"),
        (lambda: detector.evaluate(), "checkpoint="),
        (lambda: detector.compare("a", runs=["b"]), "runs"),
        (lambda: detector.predict(checkpoint="x", source="y"), "x"),
    ):
        with pytest.raises(DetectorError) as error:
            call()
        assert fact in str(error.value)
    assert changed(before, process_state()) == {}
    assert list(tmp_path.iterdir()) == []


def test_wrong_keys_need_no_pytorch():
    code = ("import sys, detector\ntry: detector.train(modle='c4')\n"
            "except detector.exceptions.ConfigError as error: print(error, 'torch' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_a_stopped_run_says_how_to_go_on_and_does(keys, tmp_path):
    """As the stop of a notebook does it: SIGINT in the middle of the training."""
    folder = tmp_path / "stopped"

    def press():
        while not (folder / "metrics.csv").is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = process_state()
    helper = threading.Thread(target=press)
    helper.start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        detector.train(**{**keys, "trainer.max_steps": 400}, run_dir=folder)
    helper.join()
    assert changed(before, process_state()) == {}
    call = str(stopped.value).partition("to go on: ")[2]
    assert call.startswith("detector.train(")
    step = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    run = eval(call[:-1] + f", max_steps={step + 1})", {"detector": detector})
    assert (run.steps, run.folder) == (step + 1, folder)


@pytest.mark.slow
def test_the_second_run_of_a_process_is_that_of_a_new_process(trained, keys, tmp_path):
    """Bit for bit, after another run and with other random numbers drawn before."""
    torch.rand(3), np.random.rand(), random.random()
    here = detector.train(**keys, run_dir=tmp_path / "here")
    values = {name: str(value) if isinstance(value, Path) else value for name, value in keys.items()}
    code = f"import detector; detector.train(**{values!r}, run_dir={str(tmp_path / 'there')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    contents = [torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
                for folder in (here.folder, tmp_path / "there")]  # fmt: skip
    digests = [
        hashlib.sha256(b"".join(v.numpy().tobytes() for v in content.values())).hexdigest() for content in contents
    ]
    assert digests[0] == digests[1]
    assert (here.folder / "predictions.json").read_bytes() == (tmp_path / "there/predictions.json").read_bytes()


def test_names_are_offered():
    assert {"train", "evaluate", "compare", "predict", "inspect_data", "load", "configure"} <= set(dir(detector))
    with pytest.raises(AttributeError, match="trian"):
        detector.trian
    with pytest.raises(ConfigError):
        detector.configure(detector.config.schema.Config, {"model": "c6"})
