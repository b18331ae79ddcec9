"""The command ``scripts/ablate.py``: plan a study, run what is missing through a Hydra launcher, report."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from detector.ablation.cell_process import LOG, end_with, run_in_process
from detector.ablation.cells import CELL, FAILURE, RECORD, Cell, describe
from detector.ablation.study import Study
from detector.config.arguments import CommandLine
from detector.config.checks import flat
from detector.config.command_line import fail
from detector.config.composition import default_choices
from detector.config.schema import AblateConfig
from detector.exceptions import ConfigError
from detector.files import read_json, read_json_or_empty, write_json
from detector.words import counted

STATE = "study.json"
FAILED = 1  # exit code of a study with failed runs


def ablate(config: AblateConfig, command: CommandLine) -> None:
    """Plan, run or report a study. The program ends with 1 if the report is there but some runs failed.

    Raises:
        ConfigError: the study cannot be planned.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, and what `kill` and schedulers send
        signal.signal(number, stop)
    study = build(config, command)
    console = Console(soft_wrap=True, highlight=False)
    if config.action == "plan":
        console.print(plan_table(study), summary(study), sep="\n")
        return
    if config.action == "run":
        run(study, config, command, console)
        if config.cell:
            return
        study = build(config, command)
        if config.study.diagnostics and not study.missing():
            from detector.ablation.diagnostics import update_diagnostics  # PyTorch takes seconds to import

            update_diagnostics(study, console.print)
    from detector.ablation.study_report import write_report

    folder = write_report(study, console.print)
    console.print(f"{summary(study)}\nThe report is in {folder}: report.html, report.md")
    if study.failed():
        fail("some runs failed; the same command tries them once more", FAILED)


def stop(number: int, frame: FrameType | None) -> None:
    """End the study. Its own run writes a checkpoint first; runs of joblib's processes are killed, and go on from the
    last checkpoint that they had.

    Left alone, joblib kills its processes only after their runs, whose end they would write down as a failure.

    Raises:
        KeyboardInterrupt: always.
    """
    if sys.platform == "linux":  # where the runs end with them
        for worker in multiprocessing.active_children():
            if "loky" in type(worker).__module__ and worker.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)  # they have no kill() of their own
    raise KeyboardInterrupt("interrupted; the same command goes on where the study stopped")


def build(config: AblateConfig, command: CommandLine) -> Study:
    """The study of a configuration, as it is on disk now."""
    folder = Path(config.study_dir).expanduser().absolute()
    study = Study(config.study, folder, command.folders, flat(config.set or {}), study_file(command))
    if config.cell and config.cell not in (known := [cell.name for cell in study.cells]):
        raise ConfigError(f"cell={config.cell}: must be one of {', '.join(known)}")
    return study


def study_file(command: CommandLine) -> Path | None:
    """The file that ``study=NAME`` of the command line means."""
    given = [o.value() for o in command.overrides if o.key_or_group == "study"]
    name = given[-1] if given else default_choices(command.folders[-1], "ablate")["study"]
    files = [folder / "study" / f"{name}.yaml" for folder in reversed(command.folders)]  # Hydra's order
    return next((path for path in files if path.is_file()), None)


def run(study: Study, config: AblateConfig, command: CommandLine, console: Console) -> None:
    """Do the cells that have no record, each once, through the launcher that the command line names: seed by seed, so
    that a study that is stopped has pairs to compare."""
    wanted = [c for c in study.cells if not c.record and config.cell in ("", c.name)]
    wanted.sort(key=lambda cell: config.study.seeds.index(cell.seed))
    console.print(f"study {config.study.name}: {summary(study)}; folder {config.study_dir}")
    if not wanted:
        return
    for cell in wanted:
        cell.write(config.study)
    deadline = time.time() + config.study.hours * 3600 if config.study.hours else None
    write_json(study.folder / STATE, {"deadline": deadline, "cells": [c.name for c in study.cells]})
    names = ",".join(f"'{cell.name}'" for cell in wanted)
    given = [a for a in command.arguments if a.split("=")[0] not in ("cell", "study_dir")]
    sweep = [f"hydra.sweep.dir='{study.folder}'", "hydra.sweep.subdir='runs/${cell}'",
             "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]  # fmt: skip
    chosen = {argument.split("=")[0] for argument in given}
    settings = [s for s in sweep if s.split("=")[0] not in chosen]
    command.start(job, ["--multirun", *given, *settings, f"study_dir='{study.folder}'", f"cell={names}"])


def job(cfg: DictConfig) -> bool:
    """One job of the launcher: the cell ``cfg.cell`` of the study in ``cfg.study_dir``."""
    study = multiprocessing.parent_process()
    if study is not None and study.pid is not None:  # a process of joblib's, which would go on when the study is killed
        end_with(study.pid)
    folder = Path(cfg.study_dir)
    state = read_json_or_empty(folder / STATE)
    deadline, names = state.get("deadline"), state.get("cells", [])
    number = f"[{names.index(cfg.cell) + 1}/{len(names)}]" if cfg.cell in names else ""
    own = folder / "runs" / cfg.cell
    cell = read_json(own / CELL, "a cell of a study")
    title = f"{number} {describe(cell['levels'])}, seed {cell['seed']}"
    if deadline and time.time() > deadline:
        print(f"{title}: not started, study.hours are over", flush=True)
        return False
    console = Console(soft_wrap=True, highlight=False)
    alone = "BasicLauncher" in HydraConfig.get().launcher._target_ and console.is_terminal
    begun = time.monotonic()
    if alone:
        with console.status(title) as status:
            done = run_in_process(own, lambda line: follow(line, title, status.update))
    else:
        console.print(f"{title}: started")
        done = run_in_process(own)
    console.print(f"{title}: {outcome(own, done)}, {time.monotonic() - begun:.0f} s")
    return done


def follow(line: str, title: str, update: Callable[[str], None]) -> None:
    """Show the newest line of progress of a run."""
    if line.startswith("step "):
        update(f"{title}  {line}".replace("[", r"\["))


def outcome(folder: Path, done: bool) -> str:
    """The result of a cell in a few words."""
    found = read_json_or_empty(folder / (RECORD if done else FAILURE))
    if not done:
        return f"FAILED, {found.get('exit')}: {(found.get('log') or [''])[-1]} (all of it in {folder / LOG})"
    told = [f"{name} {value * 100:.1f}" for name, value in found["metrics"].items()
            if name in ("AP", "AP50", "AP75") and value is not None]  # fmt: skip
    return "  ".join(told) or "no ground truth"


def plan_table(study: Study) -> Table:
    """Every cell with its state."""
    shown = Table("run", *study.factors, "seed", "state", box=None)
    for cell in study.cells:
        shown.add_row(cell.name, *cell.levels.values(), str(cell.seed), state_of(cell))
    return shown


def state_of(cell: Cell) -> str:
    """``finished``, ``failed``, ``begun`` or ``missing``."""
    if cell.record:
        return "finished"
    if cell.failure:
        return f"failed: {cell.failure['exit']}"
    return "begun" if (cell.folder / "run").is_dir() else "missing"


def summary(study: Study) -> str:
    """How many cells there are and how many are done, the failed and missing ones by name if they are few."""
    finished, failed, missing = study.finished(), study.failed(), study.missing()
    text = f"{counted(len(study.cells), 'run')}, {len(finished)} finished"
    for word, cells in (("failed", failed), ("missing", missing)):
        if cells:
            named = "; ".join(c.label for c in cells) if finished and len(cells) <= 12 else ""
            text += f", {len(cells)} {word}" + (f" ({named})" if named else "")
    left = len(failed) + len(missing)
    if finished and left:
        mean = sum(cell.record["seconds"] for cell in finished) / len(finished)
        text += f", about {counted(round(mean * left / 60), 'minute')} of work left"
    return text
