"""Texts in Hydra's grammar, as a printed command needs them."""

import shlex
from pathlib import Path

import pytest

from detector.config.composition import compose
from detector.config.defaults import parse_partial
from detector.training.resume import resume_command

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# What paths have in them; some of it means something to Hydra: lists, interpolations, quotes, keys.
NAMES = (
    *("2026-11-23_21-00-00", "7", "a b", "optim.lr=0.1,seed=2", "x(1)", "it's", "a{b}", "[1]", "${x}", "gr\u00fcn"),
    *("a:b", "back\\slash", "end\\", "both\\'"),
)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_goes_on_names_the_folder_whatever_it_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(CONFIGS.parent)
    run = tmp_path / name
    run.mkdir()
    (run / "config.yaml").write_text("run_dir: old\nresume: ''\n")
    start, script, *words = shlex.split(resume_command(run))
    assert (start, script) == ("python", "scripts/train.py")
    assert words[:4] == ["--config-dir", str(run), "--config-name", "config"]
    composed = compose([run, CONFIGS], "config", words[4:])
    assert (composed.run_dir, composed.resume) == (str(run), "auto")
    assert parse_partial({"run_dir": composed.run_dir}).run_dir == str(run)


def test_configs_in_a_folder_with_such_a_name(tmp_path):
    """The folder that the search path names."""
    more, own = tmp_path / "more", tmp_path / "my, configs (1)"
    more.mkdir()
    (more / "main.yaml").write_text("defaults: [{size: small}, _self_]\n")
    (own / "size").mkdir(parents=True)
    (own / "size" / "small.yaml").write_text("width: 3\n")
    assert compose([own, more], "main", []).size.width == 3
