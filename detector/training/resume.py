"""Where a run begins: at step 0, or at a checkpoint that its configuration and its data fit."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.config.checks import flat
from detector.config.commands import IN_PYTHON, command
from detector.config.composition import quote
from detector.config.results_folder import run_folder
from detector.config.schema import Config, to_dict
from detector.data.datamodule import DetectionDataModule
from detector.exceptions import ConfigError, WeightsError
from detector.models.checkpoint import read_checkpoint
from detector.training.result import BEST, LAST
from detector.training.run_folder import CONFIG, LOCK

logger = logging.getLogger(__name__)

# Keys that have to be the same for a resumed run to continue what the checkpoint began.
CONTINUED = (
    *("seed", "model", "roi", "augment", "optim", "trainer.devices", "trainer.num_nodes"),
    *("data.batch_size", "data.aspect_grouping", "data.keep_empty", "data.on_invalid", "data.overfit_images"),
    *("data.repeat_threshold", "data.shapes", "data.drop_categories", "data.white"),
    "trainer.limit_eval_images",  # the best AP so far is of these images
)
FREE = ("model.head.score_thresh", "model.head.nms_thresh", "model.head.detections_per_image")


@dataclass
class Start:
    """Where a run begins."""

    checkpoint: Path | None = None  # None: at step 0
    step: int = 0  # optimiser steps done
    max_steps: int = 0  # length of the run that wrote the checkpoint, in optimiser steps
    classes: dict[str, Any] = field(default_factory=dict)  # its class_names and category_ids
    data: dict[str, Any] = field(default_factory=dict)  # its DetectionDataModule.identity


def find_start(config: Config) -> Start:
    """What ``config.resume`` means: step 0, or a checkpoint that fits the configuration.

    It reads no data, so that a wrong configuration is refused at once; :func:`check_data` looks at the data.

    Args:
        config: of the run that is about to start.

    Raises:
        WeightsError: the checkpoint is missing or damaged.
        ConfigError: it comes from a run that was configured differently, as far as that matters, or the folder belongs
            to another run.
    """
    start = _find_checkpoint(config)
    folder = Path(config.run_dir).expanduser()
    if config.resume == "auto" or continues_here(folder, start) or not folder.is_dir():
        return start
    if any(path.name != LOCK for path in folder.iterdir()):
        how = resume_command(folder) if (folder / CONFIG).is_file() else f"run_dir={folder} resume=auto"
        raise ConfigError(
            f"run_dir={folder}: there is a run in it already. Choose another run_dir, or go on with that run: {how}"
        )
    return start


def _find_checkpoint(config: Config) -> Start:
    if not config.resume:
        return Start()
    path = Path(config.run_dir).expanduser() / "checkpoints" / LAST
    if config.resume != "auto":
        path = Path(config.resume).expanduser()
        path = path / "checkpoints" / LAST if path.is_dir() else path
    elif not path.is_file():
        logger.info("resume  there is no %s: the run starts at step 0", path)
        return Start()
    try:
        checkpoint = read_checkpoint(path)
    except WeightsError as error:
        best = path.with_name(BEST)
        if path.name != LAST or not best.is_file():
            raise
        raise WeightsError(f"{error}. To go on from the best weights: resume={best} run_dir=NEW_FOLDER") from None
    differing = differences(to_dict(checkpoint.config), to_dict(config))
    if differing:
        lines = "\n".join(f"  {key}: {old} then, {new} now" for key, old, new in differing)
        run = run_folder(path)
        advice = "."
        if (run / CONFIG).is_file():
            again = resume_command(run, config.run_dir, config.resume)
            advice = f", or take all of them from {run / CONFIG}:\n  {again}"
        raise ConfigError(
            f"{path} cannot be continued with this configuration:\n{lines}\nGive these keys as they were{advice}"
        )
    return Start(
        path,
        int(checkpoint.content["global_step"]),
        checkpoint.config.trainer.max_steps,
        {"class_names": checkpoint.class_names, "category_ids": checkpoint.category_ids},
        checkpoint.content.get(DetectionDataModule.__qualname__, {}),  # its state_dict
    )


def continues_here(folder: Path, start: Start) -> bool:
    """Whether the run in ``folder`` goes on where it ended, and not at an earlier checkpoint of its own.

    From an earlier one it would write over its later checkpoint and metrics.
    """
    if start.checkpoint is None or folder.resolve() not in start.checkpoint.resolve().parents:
        return False
    last = folder / "checkpoints" / LAST
    return not last.exists() or last.samefile(start.checkpoint)


def resume_command(run: Path, run_dir: str = "", resume: str = "auto") -> str:
    """The command, or the call, that goes on with a run, with the keys of its ``config.yaml``.

    Args:
        run: its folder, with ``config.yaml``.
        run_dir: the folder to go on in; "": the same.
        resume: the key.
    """
    if IN_PYTHON.get():
        keys = {
            "config_dir": str(run),
            "config_name": Path(CONFIG).stem,
            "run_dir": run_dir or str(run),
            "resume": resume,
        }
        return f"detector.train({', '.join(f'{key}={value!r}' for key, value in keys.items())})"
    words = ["--config-dir", str(run), "--config-name", Path(CONFIG).stem]
    words += [f"run_dir={quote(run_dir or str(run))}", f"resume={quote(resume)}"]
    return f"{command('train')} {shlex.join(words)}"


def how_to_resume(config: Config) -> str:
    """The command that goes on with a run that has stopped; one without a ``config.yaml`` yet is started again."""
    folder = Path(config.run_dir).expanduser()
    return resume_command(folder) if (folder / CONFIG).is_file() else "the same again"


def check_data(config: Config, start: Start, data: DetectionDataModule) -> list[str]:
    """Compare the data of a run with those of the checkpoint that it starts from.

    Args:
        config: of the run, with ``trainer.max_steps`` set.
        start: where the run begins.
        data: both splits, set up.

    Returns:
        A sentence for each split whose data have changed in a way that the run can go on with.

    Raises:
        ConfigError: the classes have changed.
    """
    if start.checkpoint is None:
        return []
    kept = config.model.keep_classes  # those of the detector that the run began with follow those of the data
    for key, before in start.classes.items():
        now = list(getattr(data, key))
        if before[: len(now) if kept else None] != now:
            raise ConfigError(
                f"{start.checkpoint} cannot be continued with these data: its {key.replace('_', ' ')} are {before}, "
                f"those of the data {now}. Give the data as they were."
            )
    if start.max_steps != config.trainer.max_steps:
        logger.info(
            "resume  trainer.max_steps is %d and was %d: the learning rate goes on as in a run of the new length",
            config.trainer.max_steps, start.max_steps,
        )  # fmt: skip
    effects = {"train": "the run goes on with them", "val": "the best AP so far is that of the others"}
    describe = lambda split: f"{split['annotations']} ({split['images']:,} images, {split['boxes']:,} boxes)"
    return [
        f"other {split} data than those of the checkpoint: {describe(before)} then, {describe(now)} now; "
        f"{effects[split]}"
        for split, now in data.identity.items()
        if (before := start.data.get(split, now))["digest"] != now["digest"]
    ]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every key that has to be the same in a resumed run and is not."""
    flat_old, flat_new = flat(old), flat(new)
    return [
        (key, flat_old.get(key), flat_new.get(key))
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
        and key not in FREE
        and any(key == c or key.startswith(f"{c}.") for c in CONTINUED)
    ]
