"""Several processes on the CPU: the same numbers as one, and one failure ends all with its message."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from comparing import assert_same, checkpoint_of, rows
from forked import SERVER, Forked
from forked import run as run_forked
from PIL import Image
from torch.distributed.distributed_c10d import _set_pg_timeout

import detector.training.train as train_module
from detector.config.defaults import default
from detector.config.schema import EvaluateConfig, TrainerConfig
from detector.data.samplers import EpochOrder, StepBatchSampler
from detector.evaluation.evaluate import evaluate_from_config
from detector.exceptions import ConfigError, DataError, TrainingError
from detector.training import launch as launch_module
from detector.training.callbacks.interrupt import requeue
from detector.training.distributed import process_group
from detector.training.launch import must_launch
from detector.training.train import train

SIZES = [(64, 64), (48, 80), (80, 48), (64, 96), (40, 64), (64, 64), (72, 56)]


@pytest.fixture(scope="module")
def odd_data(tmp_path_factory):
    """Seven images of seven shapes to evaluate on, and to train on eight of which only the first has a box."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for split, sizes in (("train", [(64, 64)] * 8), ("val", SIZES)):
        images, boxes = [], []
        for number, (height, width) in enumerate(sizes, 1):
            name = f"{split}{number}.png"
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            if split == "val" or number == 1:
                box = [4, 6, 25, 20]
                boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": 500})
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def two(tiny, odd_data, monkeypatch):
    """A function: keys -> the configuration of a run of two processes on the odd data. The processes are forked by a
    server; those of the scripts below are started anew, as a user's are."""
    start = launch_module.start_processes
    assert SERVER.get_start_method() == "forkserver"
    forked = lambda *arguments, start_method, **keys: start(*arguments, start_method="forkserver", **keys)
    monkeypatch.setattr(launch_module, "start_processes", forked)

    def make(**keys):
        settings = {"data__name": "coco", "data__root": str(odd_data), "data__batch_size": 1,
                    "data__eval_batch_size": 2, "trainer__devices": 2, "trainer__threads": 1,
                    "model__head__score_thresh": 0.0}  # fmt: skip
        return tiny(**settings | keys)

    return make


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def meanwhile(action, condition):
    """Do ``action`` in another thread once ``condition`` holds."""
    thread = threading.Thread(target=lambda: (wait_for(condition), action()), daemon=True)
    thread.start()


@pytest.mark.slow
def test_two_processes_evaluate_like_one(two, tmp_path):
    """Seven images in batches of two: one process gets four of them and the other three. Seven of eight training
    images are empty, so that in most steps no process has a box, and in others one of them has."""
    outcome = train(two(optim__ema=0.5, trainer__eval_every=2, trainer__max_steps=6))
    assert outcome.steps == 6
    single = default(
        EvaluateConfig,
        checkpoint=str(outcome.checkpoint),
        output_dir=str(tmp_path / "single"),
        batch_size=2,
        workers=0,
        accelerator="cpu",
        sheet_images=0,
        progress_bar=False,
    )
    found = evaluate_from_config(single)
    result, folder = found.result, found.folder
    assert result.metrics == outcome.result.metrics
    together = json.loads((outcome.folder / "predictions.json").read_text())
    assert len(together) > 100
    key = lambda d: (d["image_id"], d["score"], d["bbox"])
    alone = json.loads((folder / "predictions.json").read_text())
    assert sorted(together, key=key) == sorted(alone, key=key)


@pytest.mark.slow
def test_losses_on_the_validation_images_are_those_of_one_process(two, tmp_path):
    """To the bit, with weights that do not change. The images are two batches, so that the third of three processes has
    none, and gets an image that does not count."""
    logged = []
    for devices in (1, 3):
        keys = {"trainer__devices": devices, "run_dir": str(tmp_path / str(devices)), "trainer__max_steps": 1,
                "data__eval_batch_size": 4}  # fmt: skip
        outcome = train(two(**keys, optim__lr=0.0, model__norm="group"))
        (row,) = [row for row in rows(outcome.folder) if row["val/loss"]]
        logged.append({name: value for name, value in row.items() if name.startswith("val/")})
    assert logged[0] == logged[1]
    assert float(logged[0]["val/loss"]) > 0


def train_and_note(config):
    """Run in each process: a training, of which each measurement before it leaves the rank in a file."""
    measure = train_module.known_before

    def noted(*arguments):
        Path(config.run_dir).with_name(f"measured{os.environ['RANK']}").touch()
        return measure(*arguments)

    train_module.known_before = noted
    return train(config)


@pytest.mark.slow
def test_one_process_measures_the_detector_before(two, tmp_path):
    """Its AP is what the run that it comes from says, which was one process; nothing is learned."""
    keys = {"optim__lr": 0.0, "model__norm": "frozen", "trainer__max_steps": 1}
    first = train(two(**keys, trainer__devices=1, run_dir=str(tmp_path / "first")))
    keys |= {"model__weights": str(first.checkpoint), "data__old_val_annotations": "val.json"}
    outcome = launch_module.launch(train_and_note, two(**keys))
    assert [path.name for path in tmp_path.glob("measured*")] == ["measured0"]
    (row,) = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert row["before"] == row["after"] == pytest.approx(first.result.metrics["AP"], abs=1e-12)


def refuse(config):
    """Run in each process: rank 0 takes longer than processes wait for each other, and finds the data at fault."""

    def measure():
        time.sleep(3)
        raise DataError("no such class")

    group = process_group(config.trainer)
    with group.connected(gpu=False):
        _set_pg_timeout(timedelta(seconds=1), torch.distributed.group.WORLD)
        try:
            group.by_rank_0(measure)
        except DataError as error:
            Path(config.run_dir).with_name(f"refused{group.rank}").write_text(str(error))


@pytest.mark.slow
def test_all_processes_wait_for_the_error_of_one(two, tmp_path):
    launch_module.launch(refuse, two())
    said = {path.name: path.read_text() for path in tmp_path.glob("refused*")}
    assert said == {"refused0": "no such class", "refused1": "no such class"}


@pytest.mark.slow
def test_interrupted_and_resumed(two, tmp_path):
    """Ctrl-C reaches the process that waits; the resumed run ends like an uninterrupted one."""
    whole = train(two(run_dir=str(tmp_path / "whole"), trainer__max_steps=40))
    csv = tmp_path / "run/metrics.csv"
    meanwhile(lambda: os.kill(os.getpid(), signal.SIGINT), lambda: csv.is_file() and len(csv.read_text()) > 400)
    with pytest.raises(KeyboardInterrupt, match="resume=auto"):
        train(two(trainer__max_steps=40))
    assert 0 < checkpoint_of(tmp_path / "run")["global_step"] < 40
    train(two(trainer__max_steps=40, resume="auto"))
    a, b = checkpoint_of(whole.folder), checkpoint_of(tmp_path / "run")
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert_same(a[name], b[name], name)
    assert rows(whole.folder) == rows(tmp_path / "run")


@pytest.mark.slow
def test_message_of_the_process_that_fails(two, odd_data, tmp_path):
    """An image that only process 1 reads is damaged after the data were checked."""
    sampler = StepBatchSampler(EpochOrder([(64, 64)] * 8, 2, 0), 1, 2, batches=4)
    broken = odd_data / "images" / f"train{sampler.batch(2)[0][1] + 1}.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:60])
    begun = time.monotonic()
    try:
        with pytest.raises(DataError, match=rf"^process 1 of 2: cannot read the image .*{broken.name}"):
            train(two())
    finally:
        broken.write_bytes(content)
    assert time.monotonic() - begun < 300  # and not the half hour that processes wait for each other


@pytest.mark.slow
def test_killed_process_ends_the_others(two, tmp_path):
    csv = tmp_path / "run/metrics.csv"
    before = set(multiprocessing.active_children())

    def kill():
        own = [p for p in multiprocessing.active_children() if p not in before]
        os.kill(max(p.pid for p in own), signal.SIGKILL)

    meanwhile(kill, csv.is_file)
    with pytest.raises(TrainingError, match=r"process [01] of 2 was ended by SIGKILL"):
        train(two(trainer__max_steps=1000))
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.slow
def test_torchrun_makes_one_folder(script, tmp_path):
    """Each process composes a time of its own; the folder is that of process 0."""
    python, *rest = script("run_dir=runs/${now:%H%M%S%f}", "trainer.devices=2")
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *rest]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "metrics.json").is_file()
    assert done.stdout.count("results in") == 1


@pytest.mark.slow
def test_sweep_of_runs_with_several_processes(script, tmp_path):
    sweep = ["--multirun", "seed=0,1", "hydra.sweep.dir=runs/sweep", "trainer.devices=2", "trainer.max_steps=2"]
    done = run_forked(script(*sweep), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for job in (0, 1):
        folder = tmp_path / "runs/sweep" / str(job)
        assert (folder / "metrics.json").is_file()
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == job


@pytest.mark.slow
def test_slurm_job_is_queued_again(script, tmp_path):
    """Two processes as srun starts them; SIGUSR1, as before the time limit, writes a checkpoint and calls scontrol."""
    fake = tmp_path / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    fake.chmod(0o755)
    command = script("trainer.max_steps=1000", "trainer.devices=2", "run_dir=runs/4242")
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "PATH": f"{fake.parent}:{os.environ['PATH']}",
            **{f"SLURM_{key}": "2" for key in ("NTASKS", "STEP_NUM_TASKS", "NTASKS_PER_NODE")},
            **{f"SLURM_{key}": str(rank) for key in ("PROCID", "LOCALID")},
            **{"SLURM_NODEID": "0", "SLURM_JOB_ID": "4242", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "x"},
        }
        processes.append(Forked(command, env=environment, cwd=tmp_path))
    wait_for(lambda: (tmp_path / "runs/4242/metrics.csv").is_file() or any(p.poll() is not None for p in processes))
    for process in processes:
        os.kill(process.pid, signal.SIGUSR1)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [130, 130], errors
    assert (tmp_path / "calls").read_text() == "requeue 4242\n"
    assert checkpoint_of(tmp_path / "runs/4242")["global_step"] < 1000


# ------------------------------------------------------------------------------------------------- one process
ENVIRONMENT = {"torchrun": {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}}
ENVIRONMENT["srun"] = {
    f"SLURM_{key}": value
    for key, value in {
        "STEP_NUM_TASKS": "4",
        "NTASKS": "4",
        "NTASKS_PER_NODE": "2",
        "PROCID": "3",
        "LOCALID": "1",
        "NODEID": "1",
    }.items()
}


@pytest.mark.parametrize("starter", ENVIRONMENT)
def test_rank_in_a_job(starter, monkeypatch):
    for name, value in ENVIRONMENT[starter].items():
        monkeypatch.setenv(name, value)
    group = process_group(default(TrainerConfig, devices=2, num_nodes=2))
    assert (group.rank, group.world_size, group.local_rank) == (3, 4, 1)
    assert not must_launch(default(TrainerConfig, devices=4))
    with pytest.raises(ConfigError, match=rf"that is 1 process, but {starter} started 4"):
        process_group(default(TrainerConfig))


def test_rank_of_a_single_process_in_a_batch_script(monkeypatch):
    """The batch script of a job with four tasks is not one of them."""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert process_group(default(TrainerConfig)).world_size == 1
    assert must_launch(default(TrainerConfig, devices=2))


def test_several_machines_are_not_started_here():
    with pytest.raises(ConfigError, match=r"started from outside:\n(.*\n)*.*torchrun --nnodes 2"):
        process_group(default(TrainerConfig, num_nodes=2))


def test_requeue_of_an_array_job(monkeypatch, tmp_path):
    said = []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    requeue(said.append)
    assert said == ["scontrol requeue 7: No such file or directory"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "scontrol").chmod(0o755)
    requeue(said.append)
    assert said[1:] == ["job 5_2 is queued again"]
