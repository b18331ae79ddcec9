"""Fixtures: the Python in whose environment the scripts run."""

import sys

import pytest


@pytest.fixture(scope="session")
def plugin_python():
    """The Python of an environment in which the package is installed."""
    return sys.executable
