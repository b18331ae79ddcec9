"""The folder of a run: taken by one run only, and taken up again by a resumed one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from detector import checkpoint
from detector.config import Config, to_dict
from detector.errors import ConfigError, WeightsError
from detector.files import replacing
from detector.training.checkpoints import BEST, LAST

logger = logging.getLogger(__name__)

# Keys that have to be the same for a resumed run to continue what the checkpoint began.
CONTINUED = (
    "seed",
    "model",
    "roi",
    "data.batch_size",
    "data.aspect_grouping",
    "data.keep_empty",
    "data.on_invalid",
    "data.overfit_images",
    "data.repeat_threshold",
    "data.shapes",
    "augment",
    "optim",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.limit_eval_images",  # the best AP so far is of these images
)
FREE = ("model.weights", "model.head.score_thresh", "model.head.nms_thresh", "model.head.detections_per_image")


@dataclass
class Start:
    """Where a run begins."""

    checkpoint: Path | None = None  # None: at step 0
    step: int = 0  # optimiser steps done


def find_start(config: Config, class_names: Sequence[str], category_ids: Sequence[int]) -> Start:
    """What ``config.resume`` means: step 0, or a checkpoint that fits the configuration and the data.

    Args:
        config: of the run that is about to start.
        class_names, category_ids: of its data.

    Raises:
        WeightsError: the checkpoint is missing or damaged.
        ConfigError: it comes from a run that was configured differently, as far as that matters.
    """
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
        content = checkpoint.read(path)
    except WeightsError as error:
        best = path.with_name(BEST)
        if path.name != LAST or not best.is_file():
            raise
        raise WeightsError(f"{error}. To go on from the best weights: resume={best} run_dir=NEW_FOLDER") from None
    before = checkpoint.stored_config(path, content)
    differing = differences(to_dict(before), to_dict(config))
    if differing:
        listed = "\n".join(f"  {key}: {old} then, {new} now" for key, old, new in differing)
        raise ConfigError(
            f"{path} cannot be continued with this configuration:\n{listed}\nGive these keys as they were."
        )
    stored = content["hyper_parameters"]
    for key, now in (("class_names", class_names), ("category_ids", category_ids)):
        if list(stored[key]) != list(now):
            raise ConfigError(
                f"{path} cannot be continued with these data: its {key.replace('_', ' ')} are {stored[key]}, those of "
                f"the data {list(now)}. Give the data as they were."
            )
    if before.trainer.max_steps != config.trainer.max_steps:
        logger.info(
            "resume  trainer.max_steps is %d and was %d: the learning rate goes on as in a run of the new length",
            config.trainer.max_steps, before.trainer.max_steps,
        )  # fmt: skip
    return Start(path, int(content["global_step"]))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every key that has to be the same in a resumed run and is not."""
    flat_old, flat_new = flatten(old), flatten(new)
    return [
        (key, flat_old.get(key), flat_new.get(key))
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
        and key not in FREE
        and any(key == c or key.startswith(f"{c}.") for c in CONTINUED)
    ]


def flatten(group: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one dict of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in group.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def take(config: Config, start: Start) -> Path:
    """Make the run's folder and write ``config.yaml`` into it.

    Raises:
        ConfigError: the folder belongs to another run, or cannot be written.
    """
    folder = Path(config.run_dir).expanduser()
    text = OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if config.resume == "auto" or goes_on(folder, start):
            with replacing(folder / "config.yaml") as temporary:
                temporary.write_text(text, encoding="utf-8")
        elif any(folder.iterdir()):
            raise FileExistsError
        else:
            # Exclusive: of two runs that start at the same moment only one gets the folder.
            file = open(folder / "config.yaml", "x", encoding="utf-8")  # noqa: SIM115
            try:
                with file:
                    file.write(text)
            except OSError:  # a full disk: the folder is nobody's again
                Path(file.name).unlink(missing_ok=True)
                raise
        (folder / "checkpoints").mkdir(exist_ok=True)
        for draft in (*folder.glob(".[0-9]*-*"), *folder.glob("checkpoints/.[0-9]*-*")):
            draft.unlink()  # a process that was killed has left it
        if start.checkpoint and not (folder / "checkpoints" / LAST).exists():
            bring(start.checkpoint, folder / "checkpoints")
    except FileExistsError:
        raise ConfigError(
            f"run_dir={folder}: there is a run in it already. Choose another run_dir, or go on with that run: "
            f"run_dir={folder} resume=auto"
        ) from None
    except OSError as error:
        raise ConfigError(f"run_dir={folder}: cannot be written: {error.strerror}") from None
    return folder


def goes_on(folder: Path, start: Start) -> bool:
    """Whether the run of ``folder`` is taken up where it ended, and not at an earlier checkpoint of its own.

    From an earlier one it would write over its later checkpoint and metrics.
    """
    if start.checkpoint is None or folder.resolve() not in start.checkpoint.resolve().parents:
        return False
    last = folder / "checkpoints" / LAST
    return not last.exists() or last.samefile(start.checkpoint)


def bring(start: Path, checkpoints: Path) -> None:
    """Copy the checkpoint that a run in a new folder starts from, and the best one so far, into its folder.

    They are the run's own until it has written others: its first evaluation may not be better than the best before.
    """
    best = start.parent / BEST
    for source, name in ((start, LAST), (best if best.is_file() else start, BEST)):
        with replacing(checkpoints / name) as temporary:
            shutil.copyfile(source, temporary)
