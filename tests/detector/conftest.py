"""The scripts, called in the process of the test as a user calls them."""

import logging
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch):
    """A script that an earlier test ran in this process logs to what was standard error then."""
    monkeypatch.setattr(logging.getLogger("detector"), "handlers", [])


@pytest.fixture
def call_script(monkeypatch, tmp_path, capsys):
    """``call_script("compare", "key=value", ...)`` runs a script in ``tmp_path``; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        path = str(SCRIPTS / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call
