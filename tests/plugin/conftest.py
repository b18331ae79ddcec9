"""Fixtures: the package as somebody else has it, installed from a wheel."""

import pytest
from plugin.environments import ROOT, WITHOUT_KERNELS, build_wheel, call, make_environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this project, built once."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"), *WITHOUT_KERNELS)


@pytest.fixture(scope="session")
def plugin_python(wheel, tmp_path_factory):
    """The Python of an environment in which only the wheel is installed, not the clone."""
    return make_environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture
def run_script(plugin_python, tmp_path):
    """A function: a file and arguments -> the ended process of ``plugin_python FILE ...`` in ``tmp_path``."""

    def run(file, *arguments, **variables):
        return call(plugin_python, file, *arguments, cwd=tmp_path, **variables)

    return run
