"""Texts in Hydra's grammar, as a printed command needs them."""

import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detector.config.composition import compose, hydra_value
from detector.config.defaults import parse_partial
from detector.config.overrides import parse_overrides
from detector.exceptions import ConfigError
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


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
NAMES_OF_KEYS = st.from_regex(r"(?a)[A-Za-z_$][\w /.+%*@?|()\[\]{}:=,-]*[a-z]", fullmatch=True).filter(
    lambda key: key.lower() not in ("null", "true", "false", "inf", "nan") and "${" not in key
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.sampled_from(NAMES),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(NAMES_OF_KEYS, parts, max_size=3),
    max_leaves=6,
)


@given(VALUES)
@example("True")
@example("NULL")
@example("1e-3")
@example("1_000")
@example(" a ")
@example({"_target_": "my.Net", "pretrained": None, "note": "it is True", "traffic light (red)": [1e-7, 0.1 + 0.2]})
def test_hydra_reads_the_value_that_was_written(value):
    (override,) = parse_overrides([f"model.weights={hydra_value(value)}"])
    read = OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)["value"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("key", ["gr\u00fcn", "it's", ""])
def test_a_key_that_hydra_cannot_read_is_refused(key):
    with pytest.raises(ConfigError, match=repr(key)):
        hydra_value({key: 1})
