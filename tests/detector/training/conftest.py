"""Fixtures: a training run of seconds, called or as a command."""

import sys
from pathlib import Path

import pytest
from small import SHORT, SMALL, arguments, configure

from detector.config.defaults import default
from detector.config.schema import Config


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """Where the tests of a session keep the drawn data set."""
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture
def tiny(tmp_path, shapes_root):
    """A function: keys, with ``__`` for the dots -> the configuration of a tiny run into ``tmp_path / "run"``."""

    def make(**keys):
        config = default(Config, run_dir=str(tmp_path / "run"))
        given = {key.replace("__", "."): value for key, value in keys.items()}
        return configure(config, SMALL | SHORT | {"data.root": str(shapes_root)} | given)

    return make


@pytest.fixture
def script(shapes_root):
    """A function: arguments -> the command line of scripts/train.py for a tiny run."""
    path = Path(__file__).resolve().parents[3] / "scripts" / "train.py"
    values = SMALL | SHORT | {"data.root": shapes_root, "trainer.threads": 1}

    def make(*more):
        return [sys.executable, str(path), *arguments(values), *more]

    return make
