"""The schema and the files in configs/: they agree, every choice composes, and mistakes are explained."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from detector.config import schema
from detector.config.checks import flat, known_keys, unknown_key
from detector.config.composition import compose as compose_folders
from detector.config.defaults import PRIMARIES, default, parse_partial
from detector.config.schema import Config, EvaluateConfig, PredictConfig, parse, to_dict
from detector.config.synonyms import NO_KEY, OTHER_WORDS, plain
from detector.exceptions import ConfigError
from detector.models.faster_rcnn import check_model
from detector.models.poolers import build_pooler
from roi_ops.geometry import MAX_SAMPLES

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# The file of each group that holds all of its keys, and the class that it mirrors.
BASES = {
    "model/fpn": schema.ModelConfig,
    "roi/align": schema.RoiConfig,
    "data/shapes": schema.DataConfig,
    "augment/default": schema.AugmentConfig,
    "optim/adamw": schema.OptimConfig,
    "trainer/auto": schema.TrainerConfig,
    "logger/default": schema.LoggerConfig,
    "evaluate": EvaluateConfig,
    "compare": schema.CompareConfig,
    "predict": schema.PredictConfig,
    "export": schema.ExportConfig,
    "illustrate": schema.IllustrateConfig,
    "benchmark": schema.BenchmarkConfig,
}
GROUPS = ("model", "roi", "data", "augment", "optim", "trainer", "logger")
CHOICES = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def compose(*arguments, primary="train"):
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(primary, overrides=list(arguments))


def nested_keys(content, prefix=""):
    """Dotted keys, groups included."""
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from nested_keys(value, f"{prefix}{key}.")


def folders(config):
    """The folders with the time of the composition in their names."""
    return {key: getattr(config, key) for key in ("run_dir", "output_dir") if hasattr(config, key)}


@pytest.mark.parametrize("schema", PRIMARIES, ids=lambda s: s.__name__)
def test_no_key_lacks_a_value_in_a_file(schema):
    """The files alone: nothing of the schema is in what they give."""
    name, *arguments = PRIMARIES[schema]
    composed = compose(*arguments, primary=name)
    assert set(nested_keys(OmegaConf.to_container(composed))) >= set(known_keys(schema))
    config = parse(composed, schema)
    assert config == default(schema, **folders(config))


@pytest.mark.parametrize("name", BASES)
def test_base_files_have_every_key_of_their_group(name):
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert set(nested_keys(content)) - {"defaults"} == set(known_keys(BASES[name]))


def test_the_schema_holds_no_values():
    classes = [c for c in vars(schema).values() if isinstance(c, type) and is_dataclass(c)]
    assert {schema.RpnConfig, schema.StudyConfig, *BASES.values(), *PRIMARIES} <= set(classes)
    for group in classes:
        assert all(f.default is MISSING and f.default_factory is MISSING for f in fields(group))


def test_defaults_can_be_changed_without_changing_those_of_others():
    changed = default(Config, seed=3)
    changed.model.anchors.sizes[0][0] = 7.0
    assert (changed.seed, default(Config).seed) == (3, 0)
    assert default(Config).model == default(schema.ModelConfig)
    assert default(schema.AnchorConfig).sizes == [[32.0], [64.0], [128.0], [256.0], [512.0]]


def test_keys_that_an_older_checkpoint_lacks_are_filled():
    stored = to_dict(default(Config, seed=5))
    stored["model"]["rpn"]["nms_thresh"] = 0.6
    del stored["roi"], stored["model"]["rpn"]["box_loss"]
    config = parse_partial(stored)
    assert (config.seed, config.model.rpn.nms_thresh) == (5, 0.6)
    assert (config.model.rpn.box_loss, config.roi) == ("smooth_l1", default(schema.RoiConfig))
    with pytest.raises(ConfigError, match=r"model\.rpn\.box_loss: has no value"):
        parse(stored)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_file_begins_with_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice):
    config = parse(compose(choice))
    build_pooler(config.roi, ["0"], [16])
    check_model(config.model)


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
@pytest.mark.parametrize("data", ["shapes", "coco", "coco2017"])
def test_every_model_has_anchors_for_every_data_set(model, data):
    config = parse(compose(f"model={model}", f"data={data}"))
    assert config.model.name == (model if model in ("c4", "c5") else "fpn")
    check_model(config.model)


@pytest.mark.parametrize("choice", ["experiment=finetune_small", "experiment=bccd", "data=shapes", "data=coco"])
def test_a_light_model_stays_light_in_the_recipes(choice):
    light, usual = (parse(compose(choice, f"model={name}")).model for name in ("fpn_lite", "fpn"))
    check_model(light)
    assert light.fpn_channels <= min(192, usual.fpn_channels)
    assert light.head.width <= usual.head.width
    assert light.fpn_strides[0] == 8


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name):
    check_model(parse(compose(f"experiment={name}")).model)


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml")))
def test_every_data_set_brings_what_suits_it(data):
    """Without, COCO would be trained from random weights at any rate."""
    tuned, plain = (parse(compose(f"data={data}", *arguments)) for arguments in ((), ("~tuning@_global_",)))
    assert tuned.data == plain.data
    for group in ("model", "optim", "trainer"):
        assert getattr(tuned, group) != getattr(plain, group)


def test_a_data_set_of_the_users_own_brings_it_too(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [coco, _self_]\ntrain_images: photos\n")
    own = parse(compose_folders([tmp_path, CONFIGS], "train", ["data=mine", "model=c4"]))
    assert (own.data.train_images, own.model.norm, own.trainer.max_steps) == ("photos", "frozen", 3000)


@pytest.fixture
def own(tmp_path):
    """A folder with files of a user's own, and the composition with it."""
    texts = {
        "model/mine": "defaults: [fpn, _self_]\nweights: /tmp/w.pt\nnorm: group\n",
        "model/wider": "defaults: [mine, _self_]\nfpn_channels: 64\n",
        "optim/mine": "defaults: [sgd, _self_]\nlr: 0.005\nwarmup_steps: 7\n",
        "optim/two_keys": "lr: 0.005\nwarmup_steps: 7\n",
        "optim/sgd": "lr: 77\n",
        "trainer/mine": "defaults: [cpu, _self_]\nmax_steps: 12\n",
        "roi/mine": "kind: pool\ncanonical_scale: 99\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return lambda *arguments: parse_partial(compose_folders([tmp_path, CONFIGS], "train", arguments))


@pytest.mark.parametrize("data", ["shapes", "coco", "coco2017"])
def test_keys_of_a_users_own_file_win_over_the_tuning(own, data):
    tuned = own(f"data={data}", "optim=sgd")
    config = own(f"data={data}", "model=mine", "optim=mine", "trainer=mine", "roi=mine")
    changed = {key: value for key, value in flat(to_dict(config)).items() if value != flat(to_dict(tuned))[key]}
    changed.pop("run_dir", None)  # the time
    assert changed == {
        **{"model.weights": "/tmp/w.pt", "model.norm": "group", "optim.lr": 0.005, "optim.warmup_steps": 7},
        **{"trainer.accelerator": "cpu", "trainer.max_steps": 12, "roi.kind": "pool", "roi.canonical_scale": 99},
    }
    assert own(f"data={data}", "model=wider").model.norm == "group"
    assert own(f"data={data}", "model=wider").model.fpn_channels == 64
    assert own(f"data={data}", "optim=two_keys").optim.warmup_steps == 7
    assert tuned.optim.lr == 0.02  # a shipped choice wins over a file of its name


def test_keys_of_a_users_own_file_lose_against_what_comes_on_top(own):
    config = own("data=coco", "model=mine", "optim=mine", "debug=fast", "model.norm=sync", "experiment=bccd")
    recipe = own("experiment=bccd", "debug=fast")
    assert config.model.norm == "sync"
    assert config.optim.warmup_steps == recipe.optim.warmup_steps == 0
    assert config.trainer.max_steps == recipe.trainer.max_steps == 3


def test_a_users_own_file_is_forgotten_after_the_composition(own):
    before = sorted(ConfigStore.instance().repo)
    assert own("model=mine").model.norm == "group"
    assert sorted(ConfigStore.instance().repo) == before


def test_models_of_one_map_see_the_shapes_doubled():
    found = {name: parse(compose(f"model={name}")).model for name in ("fpn", "c4", "c5", "fpn_lite")}
    assert [found[name].min_size for name in found] == [[128], [256], [256], [256]]
    assert found["fpn"].anchors.sizes == [[12], [20], [32], [48], [72]]
    assert found["c4"].anchors.sizes == found["c5"].anchors.sizes == [[24, 40, 64, 96, 144]]


def test_a_table_without_a_row_for_a_value_is_explained(tmp_path):
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "mine.yaml").write_text(
        "# @package _global_\noptim:\n  lr: ${detector.case:${optim.name},{sgd:1}}\n"
    )
    with pytest.raises(ConfigError, match=r"optim\.lr: .*adamw"):
        parse(compose_folders([tmp_path, CONFIGS], "train", ["tuning@_global_=mine"]))


def parents(path):
    """The files that the defaults list of a file of a group names, in its own group."""
    listed = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    return [path.with_name(f"{name}.yaml") for name in listed if isinstance(name, str) and name != "_self_"]


def own_values(path):
    """Dotted key -> value, of one file without its parents."""
    content = yaml.safe_load(path.read_text()) or {}
    return flat({key: value for key, value in content.items() if key != "defaults"})


def inherited(path):
    values = {}
    for parent in parents(path):
        values |= inherited(parent) | own_values(parent)
    return values


@pytest.mark.parametrize("path", [p for p in sorted(CONFIGS.rglob("*.yaml")) if parents(p)],
                         ids=lambda p: f"{p.parent.name}/{p.stem}")  # fmt: skip
def test_no_file_repeats_a_value_of_its_parents(path):
    given = inherited(path)
    assert given
    assert [key for key, value in own_values(path).items() if key in given and given[key] == value] == []


def test_coco2017_differs_from_coco_in_the_data_only():
    for arguments in (["model=fpn"], ["model=c4", "optim=sgd"], ["model=c5"]):
        own, official = (to_dict(parse(compose(f"data={data}", *arguments))) for data in ("coco", "coco2017"))
        for config in (own, official):
            del config["data"], config["run_dir"]  # the time is in the folder's name
        assert own == official


def test_arguments_win_over_recipes():
    config = parse(compose("model.min_size=[96]", "trainer.max_steps=7", "experiment=bccd", "optim.lr=0.5"))
    assert (config.model.min_size, config.trainer.max_steps, config.optim.lr) == ([96], 7, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optim": {"lrr": 1}}, r"unknown key 'optim\.lrr'; did you mean 'optim\.lr'\?"),
        ({"lr": 1}, r"unknown key 'lr'; did you mean 'optim\.lr'\?"),
        ({"optim": 3}, r"optim: expected a group of keys, got 3"),
        ({"optim": {"lr": "fast"}}, r"optim\.lr: Value 'fast'"),
        ({"optim": {"lr": -1}}, r"optim\.lr=-1\.0: must be at least 0"),
        ({"optim": {"lr": -1}, "model": {"name": "vgg"}}, r"(?s)model\.name=vgg: .*\noptim\.lr=-1\.0: must be"),
        ({"optim": {"lr": float("nan")}}, r"optim\.lr=nan: must be finite"),
        ({"head": 1}, r"unknown key 'head'; did you mean 'model\.head'\?"),
        ({"model": {"name": "vgg"}}, r"model\.name=vgg: must be one of fpn, c4, c5"),
        ({"model": {"trainable_stages": 6}}, r"model\.trainable_stages=6: must be between 0 and 5"),
        ({"model": {"anchors": {"sizes": [[0.5]]}}}, r"model\.anchors\.sizes=\[\[0\.5\]\]: must be at least 1"),
        ({"trainer": {"max_steps": 1.5}}, r"trainer\.max_steps: Value '1\.5'"),
        ({"seed": None}, r"seed"),
    ],
)
def test_mistakes_are_explained(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_partial(content)


def test_whole_numbers_are_sizes_too():
    config = parse_partial({"model": {"anchors": {"sizes": [[8, 16.5], [32]]}}})
    assert config.model.anchors.sizes == [[8.0, 16.5], [32.0]]


def test_to_dict_and_back():
    config = parse(compose("model=c5", "experiment=bccd"))
    assert parse(to_dict(config)) == config
    assert parse(OmegaConf.create(to_dict(config))) == config


def test_known_keys_are_unique_and_complete():
    keys = known_keys(Config)
    assert len(keys) == len(set(keys))
    assert {f.name for f in fields(Config)} <= set(keys)
    assert "model.rpn.nms_thresh" in keys


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (Config, "optim.learning_rate optim.lr|lr0 optim.lr|batch data.batch_size|num_workers data.workers"
                 "|epochs trainer.epochs|trainer.max_epochs trainer.epochs|max_iter trainer.max_steps|patience"
                 " trainer.early_stopping|imgsz model.min_size|img-size model.min_size|pretrained model.weights"
                 "|GPUs trainer.devices|amp trainer.precision|model.rpn.nms_threshold model.rpn.nms_thresh"
                 "|output_dir run_dir|MODEL.backbone model.backbone|optimizer optim"),
        (EvaluateConfig, "weights checkpoint|conf score_thresh|num_workers workers|gt annotations|dt predictions"),
        (PredictConfig, "input source|model checkpoint|threshold score_thresh|out output_dir"),
    ],
)  # fmt: skip
def test_words_of_other_frameworks_are_understood(schema, words):
    for word, key in (pair.split() for pair in words.split("|")):
        assert unknown_key(word, schema) == f"unknown key '{word}'; did you mean '{key}'?"


def test_words_of_other_frameworks_lead_to_keys_there_are():
    everything = {key for schema in PRIMARIES for key in known_keys(schema)}
    assert {key for keys in OTHER_WORDS for key in keys} <= everything
    words = [word for table in (OTHER_WORDS, NO_KEY) for words in table.values() for word in words.split()]
    assert sorted(set(words)) == sorted(words)
    assert all(plain(word) == word for word in words)


def test_the_sampling_ratio_is_limited_as_in_the_operators():
    parse_partial({"roi": {"sampling_ratio": MAX_SAMPLES}})
    with pytest.raises(ConfigError, match=r"roi\.sampling_ratio=32769: must be between -1 and 32768"):
        parse_partial({"roi": {"sampling_ratio": MAX_SAMPLES + 1}})


def test_unknown_key_without_a_near_one_lists_its_group():
    listed = "logger.csv, logger.tensorboard, logger.sheet_images, logger.extra"
    assert unknown_key("logger.zzzzzzzz", Config) == f"unknown key 'logger.zzzzzzzz'; known here: {listed}"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("resnet50", "torchvision/resnet50 or timm/resnet50"), ("tv/resnet50", "torchvision/resnet50 or timm/resnet50"),
     ("MobileNet_V2", "mobilenet_v2"), ("MobileNet_V3_Large", "torchvision/mobilenet_v3_large or timm/mobil")],
)  # fmt: skip
def test_a_network_without_its_library(given, meant):
    with pytest.raises(ConfigError, match=rf"model\.backbone={given}: .*did you mean {meant}"):
        parse_partial({"model": {"backbone": given}})
