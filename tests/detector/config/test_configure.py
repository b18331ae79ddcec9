"""The keys of the command line as Python values: the same configuration, the same errors, nothing left behind."""

import os
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from detector.config.commands import command
from detector.config.composition import compose
from detector.config.configure import configure
from detector.config.defaults import parse_partial
from detector.config.schema import AblateConfig, CompareConfig, Config, EvaluateConfig, PredictConfig
from detector.exceptions import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# What a shell, YAML, Hydra's grammar or OmegaConf's interpolations would read as something else.
TEXTS = ("", "7", "1e-3", "true", "null", "nan", "a b", "it's", 'say "so"', "a=b,c", "[x]", "{a: 1}", "${seed}", "~x",
         "\\${x}", "end\\", "\u6211\u7684 \u6570", "# no comment", "a\nb", "\t", "-1", "@", "%(x)s")  # fmt: skip


def from_arguments(*arguments):
    """The configuration of a command line: Hydra's own parser and merge."""
    return parse_partial(compose([CONFIGS], "train", [*arguments, "run_dir=x"]))


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({}, []),
        ({"model": "c4", "roi": "pool"}, ["model=c4", "roi=pool"]),
        ({"backbone": "timm/resnet18"}, ["model.backbone=timm/resnet18"]),
        ({"backbone": {"_target_": "a.B", "n": 1}}, ["model.backbone={_target_: a.B, n: 1}"]),
        ({"data": "coco", "data.root": "photos"}, ["data=coco", "data.root=photos"]),  # its tuning comes along
        ({"data": "coco", "data.batch_size": 6}, ["data=coco", "data.batch_size=6"]),  # the rate follows by a reference
        ({"optim": {"lr": 1e-3, "ema": 0}}, ["optim.lr=0.001", "optim.ema=0"]),
        ({"optim": "sgd", "optim.milestones": (0.5, 0.75)}, ["optim=sgd", "optim.milestones=[0.5,0.75]"]),
        ({"model": {"anchors": {"sizes": [[8], [16, 32]]}}}, ["model.anchors.sizes=[[8],[16,32]]"]),
        ({"model.anchors": {"sizes": [[8]]}}, ["model.anchors.sizes=[[8]]"]),
        ({"data": "coco", "experiment": "schedule_1x"}, ["data=coco", "experiment=schedule_1x"]),
        ({"debug": "nan", "experiment": None}, ["debug='nan'"]),
        ({"tuning@_global_": None}, ["~tuning@_global_"]),
        ({"seed": np.int64(3), "optim.lr": np.float32(0.5)}, ["seed=3", "optim.lr=0.5"]),
        ({"trainer.deterministic": True, "logger.csv": False}, ["trainer.deterministic=true", "logger.csv=false"]),
    ],
)
def test_the_configuration_of_the_command_line(keys, arguments):
    assert configure(Config, {**keys, "run_dir": "x"}) == from_arguments(*arguments)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_taken_as_they_are(text):
    config = configure(Config, {"data.root": text, "logger": {"wandb_project": text}})
    assert (config.data.root, config.logger.wandb_project) == (text, text)


def test_lists_paths_and_dicts_of_other_commands():
    runs = configure(CompareConfig, {"runs": [Path("a") / "b", "${x}"]}).runs
    assert runs == [os.path.join("a", "b"), "${x}"]
    assert configure(PredictConfig, {"checkpoint": Path("run"), "source": "*.jpg"}).checkpoint == "run"
    factors = {"optim.lr": [1e-3, 1e-2], "map": {"stride 32": {"model": "c5"}}}
    study = configure(AblateConfig, {"study": {"factors": factors, "name": "mine"}, "set": {"data.root": "x"}})
    assert (study.study.factors, study.study.name, study.set) == (factors, "mine", {"data.root": "x"})
    assert configure(AblateConfig, {"study": "roi_operators", "set": None}).study.name == "roi_operators"


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        ({"modle": "c4", "optim": {"lrr": 1}}, ("'modle'", "'model'", "'optim.lrr'", "'optim.lr'")),
        ({"model": "c6", "roi": "pol"}, ("model=c6", "c4, c5, fpn", "roi=pol", "mean pool")),
        ({"model": None}, ("~model", "c4, c5, fpn")),
        ({"model": 4}, ("model=4", "choice")),
        ({"optim.lr": float("inf")}, ("optim.lr=inf", "finite")),
        ({"optim.lr": float("nan")}, ("optim.lr=nan", "finite")),
        ({"optim.lr": "fast"}, ("optim.lr", "fast")),
        ({"optim.lr": -1}, ("optim.lr=-1", "at least 0")),
        ({"optim.lr": "1,2"}, ("optim.lr", "1,2")),  # no sweep
        ({"model.min_size": 600}, ("model.min_size=600", "[600]")),
        ({"optim.lr": 1, "optim": {"lr": 2}}, ("optim.lr", "twice")),
        ({"data.root": b"x"}, ("data.root", "bytes")),
        ({"model.min_size": [{1}]}, ("model.min_size", "set")),
        ({"hydra.sweep.x": 1}, ("hydra.sweep.x", "seed, run_dir")),
        ({"data.root": "???"}, ("data.root",)),
        ({"resume": "auto"}, ("run_dir",)),
        ({"hparams": "finetune"}, ("hparams=finetune", "--multirun")),
        ({"data": "coco", "experiment": "schedule_1x", "trainer.max_steps": 9}, ("trainer.max_steps", "epochs=0")),
    ],
)
def test_mistakes_are_those_of_the_command_line(keys, facts):
    with pytest.raises(ConfigError) as error:
        configure(Config, keys)
    assert all(fact in str(error.value) for fact in facts), error.value


@pytest.mark.parametrize(
    ("schema", "keys", "facts"),
    [
        (EvaluateConfig, {"model": "c4"}, ("'model'", "'checkpoint'")),
        (EvaluateConfig, {"hparams": "finetune"}, ("'hparams'", command("train"))),
        (AblateConfig, {"model": "c4"}, ("set={model:c4}",)),
    ],
)
def test_groups_of_other_commands(schema, keys, facts):
    with pytest.raises(ConfigError) as error:
        configure(schema, keys)
    assert all(fact in str(error.value) for fact in facts), error.value


def test_a_folder_of_the_users_own(tmp_path):
    """What its files set wins over the data's tuning, as with --config-dir."""
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim/mine.yaml").write_text("defaults: [sgd, _self_]\nlr: 0.005\n")
    config = configure(Config, {"data": "coco", "optim": "mine"}, tmp_path)
    assert (config.optim.lr, config.optim.name, config.optim.warmup_steps) == (0.005, "sgd", 200)
    with pytest.raises(ConfigError, match="nowhere"):
        configure(Config, {}, tmp_path / "nowhere")


def test_nothing_is_read_from_the_process_and_nothing_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["app", "model=c6", "--help"])
    monkeypatch.chdir(tmp_path)
    before = set(ConfigStore.instance().repo)
    first = configure(Config, {"model": "c4"})
    assert configure(Config, {"model": "c5"}).model.name == "c5"  # the first one leaves no trace
    assert configure(Config, {"model": "c4", "run_dir": first.run_dir}) == first
    assert (sys.argv[1:], set(ConfigStore.instance().repo)) == (["model=c6", "--help"], before)
    assert not GlobalHydra.instance().is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_inside_an_application_of_hydra(tmp_path):
    """The application's own Hydra goes on as before."""
    (tmp_path / "app.yaml").write_text("x: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert configure(Config, {"model": "c4"}).model.name == "c4"
        assert OmegaConf.to_container(hydra.compose("app", ["x=2"])) == {"x": 2}
