"""One job: what Hydra composed, as an instance of the schema."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.commands import script
from detector.config.defaults import parse_partial
from detector.exceptions import ConfigError


def parse_job(cfg: DictConfig, schema: type, sweep: bool) -> Any:
    """The configuration of one job as an instance of ``schema``.

    Raises:
        ConfigError: a key or value is wrong, or cannot be used in a sweep.
    """
    for key in sorted(missing_keys(cfg)):
        raise ConfigError(f"{key}: has to be given, as {key}=VALUE")
    raw_folder = str(OmegaConf.to_container(cfg, resolve=False).get("run_dir", ""))  # type: ignore[union-attr]
    if cfg.get("resume") == "auto" and "${now" in raw_folder and not sweep:
        raise ConfigError("resume=auto: say which run is to go on: run_dir=FOLDER resume=auto")
    config = parse_partial(cfg, schema)
    trainer = getattr(config, "trainer", None)
    if sweep and trainer is not None and (trainer.num_nodes > 1 or "TORCHELASTIC_RUN_ID" in os.environ):
        raise ConfigError(
            "--multirun with processes that are started from outside: each of them would go through the sweep by "
            "itself. Start the runs one after the other from the shell (for seed in 0 1 2; do torchrun ... "
            f"{script('train')} seed=$seed; done). With the devices of one machine, trainer=ddp, a sweep works."
        )
    return config


def missing_keys(cfg: DictConfig) -> set[str]:
    """Keys whose value is ``???``."""
    try:
        return OmegaConf.missing_keys(cfg)
    except OmegaConfBaseException:  # an interpolation that cannot be resolved: parsing tells which
        return set()


def check_resolved(cfg: DictConfig) -> None:
    """Raise :class:`ConfigError` if Hydra cannot print ``cfg`` with ``--resolve``: a key refers to one that only
    ``parse_partial`` fills in."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key}: {str(error).splitlines()[0]}; --resolve wants every key: begin your own file with a "
            "defaults list, as in [adamw, _self_], or leave --resolve out"
        ) from None
