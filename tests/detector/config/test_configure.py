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
from detector.config.overrides import Configs
from detector.config.schema import (
    AblateConfig,
    CompareConfig,
    Config,
    EvaluateConfig,
    ModelConfig,
    PredictConfig,
    to_dict,
)
from detector.exceptions import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# What a shell, YAML, Hydra's grammar or OmegaConf's interpolations would read as something else.
TEXTS = ("", "7", "1e-3", "true", "null", "nan", "a b", "it's", 'say "so"', "a=b,c", "[x]", "{a: 1}", "${seed}", "~x",
         "\\${x}", "end\\", "\u6211\u7684 \u6570", "# no comment", "a\nb", "\t", "-1", "@", "%(x)s")  # fmt: skip


def from_arguments(*arguments):
    """The configuration of a command line: Hydra's own parser and merge."""
    configs = Configs([CONFIGS], "train", Config)
    whole = [part for argument in arguments for part in configs.whole_arguments(argument)]
    return parse_partial(compose([CONFIGS], "train", [*whole, "run_dir=x"]))


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
        ({"max_steps": 30, "lr": 0.1, "seed": 3}, ["max_steps=30", "lr=0.1", "seed=3"]),  # without their groups
        ({"max_steps": 30, "lr": 0.1, "seed": 3}, ["trainer.max_steps=30", "optim.lr=0.1", "seed=3"]),
        ({"trainer.deterministic": True, "logger.csv": False}, ["trainer.deterministic=true", "logger.csv=false"]),
    ],
)
def test_the_configuration_of_the_command_line(keys, arguments):
    assert configure(Config, {**keys, "run_dir": "x"}) == from_arguments(*arguments)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_taken_as_they_are(text):
    config = configure(Config, {"data.root": text, "optim": {"name": {"_target_": "a.B", "words": text}}})
    assert (config.data.root, config.optim.name["words"]) == (text, text)


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
        ({"optim.lr": 1, "lr": 2}, ("optim.lr", "twice")),
        ({"name": "fpn"}, ("'name'",)),  # of several groups
        ({"train_images": 9}, ("'train_images'",)),  # data.train_images and data.shapes.train_images
        ({"image_size": 64}, ("'image_size'",)),  # of the drawn images only: somebody else means model.min_size
        ({"anchors": {"sizes": [[8]]}}, ("'anchors'", "model.anchors")),
        ({"data": "no/such"}, ("no/such", "folder")),
        ({"data": "sahpes"}, ("data=sahpes", "shapes")),
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


@pytest.mark.parametrize("name", ["[it's, my photos", "coco"])
def test_a_folder_of_data(tmp_path, monkeypatch, name):
    """It is coco with that root; the name of a choice is that choice; the files of COCO 2017 are known."""
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for given in (name, f"./{name}"):
        root = "." if given == "coco" else str(given)
        config = configure(Config, {"data": given, "run_dir": "x"})
        assert (config.data.name, config.data.root, config.optim.warmup_steps) == ("coco", root, 200)
        assert config == from_arguments(f"data={given}")
    Path(name, "annotations").mkdir()
    Path(name, "annotations/instances_train2017.json").touch()
    config = configure(Config, {"data": Path.cwd() / name, "batch_size": 7})
    assert (config.data.val_images, config.data.batch_size) == ("val2017", 7)
    with pytest.raises(ConfigError, match="given twice"):
        configure(Config, {"data.root": "x", "data": f"./{name}"})


def test_a_sweep_of_short_keys_and_a_search_over_choices():
    configs = Configs([CONFIGS], "train", Config)
    assert configs.whole_arguments("lr=0.1,0.2") == ["optim.lr=0.1,0.2"]
    assert configs.whole_arguments("data=coco,shapes") == ["data=coco,shapes"]
    assert configs.whole_arguments("+lr=1") == ["+optim.lr=1"]


def test_the_configuration_of_a_run(tmp_path):
    """A whole file, as --config-dir and --config-name take it."""
    first = configure(Config, {"model": "c4", "lr": 0.25, "run_dir": "x"})
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(to_dict(first))))
    assert configure(Config, {}, tmp_path, "config") == first
    assert configure(Config, {"lr": 0.5}, tmp_path, "config").optim.lr == 0.5
    with pytest.raises(ConfigError, match="model=c5"):
        configure(Config, {"model": "c5"}, tmp_path, "config")


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


def test_one_map_has_the_anchors_of_one_whatever_the_strides_of_a_pyramid_are():
    """Of the built-in shapes: a key that the model does not use plays no part."""
    one = configure(Config, {"model": "c4", "model.fpn_strides": [8, 16]}).model
    assert one.anchors.sizes == configure(Config, {"model": "c4"}).model.anchors.sizes
    assert len(one.anchors.sizes) == 1


def test_a_command_is_called_by_its_name_or_its_class():
    assert configure("train", {"lr": 0.5, "run_dir": "x"}) == configure(Config, {"lr": 0.5, "run_dir": "x"})
    assert type(configure("evaluate", {"checkpoint": "x"})) is EvaluateConfig
    for given in ("trian", ModelConfig, None, [], {}):
        with pytest.raises(ConfigError, match=r"ablate, .*evaluate, .*train, or its class in detector\.config\.schema"):
            configure(given, {})
