"""The configuration of an evaluation that takes a second."""

from detector.config.defaults import default
from detector.config.schema import EvaluateConfig


def settings(**changes):
    usual = {"accelerator": "cpu", "workers": 0, "batch_size": 2, "progress_bar": False, "report": False}
    return default(EvaluateConfig, **{**usual, **changes})
