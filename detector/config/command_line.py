"""The command line of the scripts: Hydra composes, the schema checks, and a user's mistake is one message.

A script says ``run(Config, "train")(main)``. Hydra answers mistakes with a traceback, or without naming the choices;
here the arguments are checked first (``arguments.py``), against the groups in ``configs/`` and the keys of the schema.
"""

from __future__ import annotations

import inspect
import math
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from detector.config.arguments import CommandLine
from detector.config.help import help_text
from detector.config.interruption import keyboard_interrupt_first
from detector.config.job import parse_job
from detector.config.output import command_output
from detector.config.overrides import parse_overrides
from detector.config.sweep import is_last_trial, show_best
from detector.exceptions import ConfigError, DetectorError
from detector.files import UNWRITABLE

USER_ERROR, INTERRUPTED = 2, 130  # exit codes
OUTPUT_CLOSED = 1  # exit code, that of Rich's consoles
FOLDERS = ("run_dir", "output_dir")  # keys that are folders of a job's own where their default has the time in it

Function = Callable[..., Any]


def run(schema: type, config_name: str, positional: str = "", starts_jobs: bool = False) -> Callable[[Function], None]:
    """A launcher: ``run(Config, "train")(main)`` composes ``configs/train.yaml`` with the arguments of the command
    line and calls ``main(config)``, once for each job of a ``--multirun``.

    ``configs/`` is looked for beside the folder of the file that defines ``main``. Errors that a user can mend end
    the program with their message and exit code 2, Ctrl-C with 130.

    Args:
        schema: the configuration dataclass that ``main`` takes.
        config_name: the primary config, without ``.yaml``.
        positional: a key that takes a list of paths: arguments without ``KEY=`` go there. "": there is none.
        starts_jobs: ``main(config, command)`` is called without Hydra, and starts jobs by ``command.start``.
    """

    @command_output()
    def launch(function: Function) -> None:
        configs = Path(inspect.getfile(function)).resolve().parent.parent / "configs"
        ended: dict[str, Any] = {}
        try:
            command = CommandLine(configs, config_name, schema, positional)
            if command.flags.help:
                print(help_text(function, command.configs, config_name), flush=True)
                return
            if starts_jobs and command.sweeps():
                raise ConfigError("--multirun: this command starts its runs itself; leave it out")
            command.check()
            if starts_jobs and not (command.flags.cfg or command.flags.info):
                function(parse_job(command.compose(), schema, command.sweeps()), command)
            else:
                arguments = [*command.arguments, *command.hydra_settings()]
                command.start(lambda cfg: run_job(function, cfg, schema, ended), arguments)
                if command.sweeps():
                    show_best(Path(command.sweep_folder), ended, print)
            sys.stdout.flush()
        except OSError as error:
            end_with_os_error(error)
        except DetectorError as error:
            fail(f"error: {error}", USER_ERROR)
        except KeyboardInterrupt as error:
            fail(f"\n{str(error) or 'interrupted'}", INTERRUPTED)

    return launch


def run_job(function: Function, cfg: DictConfig, schema: type, ended: dict[str, Any]) -> Any:
    """One job: check its configuration and run it.

    Args:
        function: of the script.
        cfg: of the job.
        schema: the configuration dataclass.
        ended: gets what ``function`` returns, by the folder of the job.

    Returns:
        What ``function`` returns: in a search, the number to minimise or maximise.

    Raises:
        CompactHydraException: an error of the user's in a search that puts up with failed trials.
    """
    hydra_config = HydraConfig.get()
    sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        # The time in the name of the default folder is the same for all jobs of a sweep.
        raw: Any = OmegaConf.to_container(cfg, resolve=False)
        for key in FOLDERS:
            given = any(f"{key}=" in override for override in hydra_config.overrides.task)
            if sweep and not given and "${now" in str(raw.get(key)):
                cfg[key] = os.path.relpath(hydra_config.runtime.output_dir)
        with keyboard_interrupt_first():
            result = function(parse_job(cfg, schema, sweep))
        if hydra_config.sweeper.get("n_trials") and isinstance(result, float) and math.isnan(result):
            raise DetectorError("this trial has no value, so that there is nothing to search for; has the validation "
                                "set no objects?")  # fmt: skip
        ended.update({cfg[key]: result for key in FOLDERS if key in cfg})
        return result
    except OSError as error:
        end_with_os_error(error)
    except DetectorError as error:
        if sweep and hydra_config.sweeper.get("max_failure_rate"):
            if is_last_trial(hydra_config) and not ended:
                fail(f"error: no trial has ended well; the last one: {error}", USER_ERROR)
            sys.stdout.flush()
            print(f"this trial failed: {error}", file=sys.stderr)
            raise CompactHydraException(f"error: {error}") from None
        # Not re-raised: Hydra would print a traceback.
        fail(f"error: {error}", USER_ERROR)


def given_keys() -> list[str]:
    """The groups and keys that were given to the job that runs."""
    return [override.key_or_group for override in parse_overrides(list(HydraConfig.get().overrides.task))]


def end_with_os_error(error: OSError) -> NoReturn:
    """End the program with a message: a folder that cannot be written, a file that went away, a full disk. There is no
    message if nobody reads the output any more, as behind ``| head``.

    Raises:
        OSError: ``error``, if it is anything else.
    """
    if isinstance(error, BrokenPipeError) and discard_unread_output():
        raise SystemExit(OUTPUT_CLOSED) from None
    if error.filename is not None:
        fail(f"error: {error.filename}: {error.strerror}", USER_ERROR)
    if error.errno in UNWRITABLE:
        fail(f"error: the results cannot be written: {error.strerror}", USER_ERROR)
    raise error


def discard_unread_output() -> bool:
    """Whether the reader of standard output is gone; what is left to print is then discarded."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    gone = any(event & select.POLLERR for _, event in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def fail(message: str, code: int) -> NoReturn:
    """End the program with a message on standard error."""
    sys.stdout.flush()
    print(message, file=sys.stderr)
    raise SystemExit(code)
