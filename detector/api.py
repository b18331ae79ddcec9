"""The commands as functions: ``detector.train(data="DIR", model="fpn", max_steps=200)``.

Keyword arguments are the keys of the command line, see :func:`detector.config.configure.configure`; a dotted key is
given as ``**{"optim.lr": 0.001}``, as ``optim={"lr": 0.001}`` or, where no other key ends so, as ``lr=0.001``. Every
function also takes ``config_dir`` and ``config_name``, as the options of the command line. Mistakes are those of the
command line too, as :class:`detector.exceptions.DetectorError`, and nothing of a process stays as a command sets it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from detector.config.checks import pairs, whole_key
from detector.config.commands import IN_PYTHON
from detector.config.configure import configure
from detector.config.interruption import keyboard_interrupt_first
from detector.config.output import command_output
from detector.config.schema import (
    CompareConfig,
    Config,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    PredictConfig,
)
from detector.exceptions import ConfigError

if TYPE_CHECKING:
    from detector.evaluation.compare import ComparedRuns
    from detector.evaluation.evaluation import Evaluation
    from detector.export.export_model import Export
    from detector.inference.predict import Predictions
    from detector.inspection.inspect_data import Inspection
    from detector.training.result import TrainResult

C = TypeVar("C")
R = TypeVar("R")


def train(**keys: Any) -> TrainResult:
    """Train a detector, evaluate it, and write everything to one folder: ``scripts/train.py``.

    Ctrl-C, and the stop of a notebook, end the run after its step with a checkpoint.

    Args:
        keys: of ``scripts/train.py``.

    Raises:
        DetectorError: the configuration, the data, the weights or the course of the training are at fault.
        KeyboardInterrupt: the run was stopped; the message says how to go on.
    """
    config = _configured(Config, keys)
    from detector.training.train import train  # seconds: not for a wrong key

    return _called(train, config)


def evaluate(**keys: Any) -> Evaluation:
    """Score a checkpoint or a COCO results file, and write a report: ``scripts/evaluate.py``.

    ``detector.evaluate(checkpoint=run)`` takes a path, or what :func:`train` has returned.

    Raises:
        DetectorError: the keys do not say what to evaluate, or a file cannot be used.
    """
    config = _configured(EvaluateConfig, keys)
    from detector.evaluation.evaluate import evaluate_from_config

    return _called(evaluate_from_config, config)


def compare(*runs: str | os.PathLike[str], **keys: Any) -> ComparedRuns:
    """Compare runs on the same images with the first of them: ``scripts/compare.py``.

    Args:
        runs: two or more, the baseline first: paths, or what :func:`train` or :func:`evaluate` have returned.
        keys: of ``scripts/compare.py``.

    Raises:
        DetectorError: the runs cannot be compared, or a file cannot be used.
    """
    if runs and "runs" in keys:
        raise ConfigError("runs: given twice")
    config = _configured(CompareConfig, {"runs": runs, **keys} if runs else keys)
    from detector.evaluation.compare import compare_from_config

    return _called(compare_from_config, config)


def predict(**keys: Any) -> Predictions:
    """Find objects in images or a video, and write pictures and files: ``scripts/predict.py``.

    ``detector.load(checkpoint)(images)`` gives the boxes and writes nothing.

    Raises:
        DetectorError: checkpoint or source are missing or cannot be used, or no image could be read.
    """
    config = _configured(PredictConfig, keys)
    from detector.inference.predict import predict

    return _called(predict, config)


def inspect_data(**keys: Any) -> Inspection:
    """Look at a data set before training on it: ``scripts/inspect_data.py``.

    Args:
        keys: of ``scripts/inspect_data.py``: those of a training, and what to do with the data.

    Raises:
        DetectorError: the data are missing, or results cannot be written.
    """
    config = _configured(InspectConfig, keys)
    from detector.inspection.inspect_data import inspect_from_config

    given = [whole_key(key, InspectConfig) for key, _ in pairs(keys, InspectConfig)]
    return _called(partial(inspect_from_config, given=given), config)


def export(**keys: Any) -> Export:
    """Write a detector in another format, and check that it finds the same: ``scripts/export.py``.

    Raises:
        DetectorError: the checkpoint cannot be read, the format cannot express it, or the exported detector finds
            something else.
    """
    config = _configured(ExportConfig, keys)
    from detector.export.export_model import export

    return _called(export, config)


def _configured(schema: type[C], keys: Mapping[str, Any]) -> C:
    options = {name: keys[name] for name in ("config_dir", "config_name") if name in keys}
    return configure(schema, {key: value for key, value in keys.items() if key not in options}, **options)


def _called(function: Callable[[C], R], config: C) -> R:
    from detector.process_state import process_restored  # PyTorch takes seconds to import

    token = IN_PYTHON.set(True)
    try:
        with process_restored(), command_output(), keyboard_interrupt_first():
            return function(config)
    finally:
        IN_PYTHON.reset(token)
