"""The grid of a study: which cells there are, what identifies them, what is done on disk."""

import json
import re
from pathlib import Path

import pytest
from studies import CONFIGS, TINY

from detector.ablation.cells import data_fingerprint, identity_of
from detector.ablation.study import Study, levels_of
from detector.ablation.study_report import write_report
from detector.config.composition import compose
from detector.config.defaults import default
from detector.config.schema import AblateConfig, DataConfig, parse
from detector.exceptions import ConfigError, DataError

SHIPPED = sorted(p.stem for p in (CONFIGS[0] / "study").glob("*.yaml") if not p.stem.startswith("_"))


def test_grid(make_study):
    study = make_study(
        factors={"roi": ["pool", "align"], "map": {"stride 32": {"model": "c5"}, "stride 16": {"model": "c4"}}},
        seeds=[3, 5],
        common={**TINY, "data": "shapes"},
    )
    assert [(*cell.levels.values(), cell.seed) for cell in study.cells] == [
        (roi, where, seed) for roi in ("pool", "align") for where in ("stride 32", "stride 16") for seed in (3, 5)
    ]
    cell = study.cells[2]
    assert (cell.config.roi.kind, cell.config.model.name, cell.config.seed) == ("pool", "c4", 3)
    assert cell.config.trainer.max_steps == 2
    assert cell.config.model.anchors.sizes == [[8, 16, 24, 32, 48]]
    assert (study.compare, study.baseline) == ("roi", "pool")
    assert study.contexts == ["stride 32", "stride 16"]
    assert len({cell.hash for cell in study.cells}) == len({cell.name for cell in study.cells}) == 8
    assert cell.name.startswith("pool-stride_16-seed3-")


def test_levels_beat_common_settings_and_extra_beats_both(make_study):
    study = make_study(
        factors={"rate": {"low": {"optim.lr": 0.1}, "high": {"optim.lr": 0.2}}},
        common={**TINY, "model": "c4", "optim.lr": 0.3, "optim.gamma": 0.3},
        extra={"optim.gamma": 0.4},
    )
    assert [cell.config.optim.lr for cell in study.cells[::2]] == [0.1, 0.2]
    assert {cell.config.optim.gamma for cell in study.cells} == {0.4}


@pytest.mark.parametrize(
    ("key", "value"),
    [("run_dir", "elsewhere"), ("data.root", "elsewhere"), ("data.workers", 7), ("trainer.progress_bar", False),
     ("trainer.threads", 3), ("logger.sheet_images", 5), ("trainer.log_every", 9), ("resume", "auto")],
)  # fmt: skip
def test_hash_leaves_out_paths_and_the_like(make_study, key, value):
    plain, other = make_study(), make_study(extra={key: value} if key not in ("run_dir", "resume") else {})
    for cell in other.cells:
        if key in ("run_dir", "resume"):
            setattr(cell.config, key, value)
    assert [identity_of(c.config) for c in plain.cells] == [identity_of(c.config) for c in other.cells]


def test_hash_does_not_depend_on_the_folder(make_study, tmp_path):
    here, there = make_study(), make_study(folder=tmp_path / "elsewhere")
    assert [c.name for c in here.cells] == [c.name for c in there.cells]


@pytest.mark.parametrize("key", ["optim.lr", "trainer.eval_every", "model.head.nms_thresh", "data.shapes.seed"])
def test_hash_changes_with_what_matters(make_study, key):
    plain, other = make_study(), make_study(extra={key: 1})
    assert not {c.hash for c in plain.cells} & {c.hash for c in other.cells}


def test_hash_follows_the_content_of_the_annotations(tmp_path):
    data = default(DataConfig, name="coco", root=str(tmp_path))
    (tmp_path / "train.json").write_text("{}")
    (tmp_path / "val.json").write_text("{}")
    first = data_fingerprint(data)
    (tmp_path / "val.json").write_text('{"a": 1}')
    assert data_fingerprint(data) != first
    (tmp_path / "val.json").unlink()
    with pytest.raises(DataError, match=r"val\.json.*set=\{data\.root:DIR\}"):
        data_fingerprint(data)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies(name, tmp_path):
    """Every shipped study composes; those on a user's own data want them."""
    config = parse(compose(CONFIGS, "ablate", [f"study={name}"]), AblateConfig)
    assert config.study.name == name
    extra = {}
    if "experiment" in config.study.common:
        folder = re.escape(str(Path.cwd()))
        with pytest.raises(DataError, match=rf"study {name}: train\.json .* in {folder}: .*data\.root"):
            Study(config.study, tmp_path, CONFIGS)
        for split in ("train", "val"):
            (tmp_path / f"{split}.json").write_text("{}")
        extra = {"data.root": str(tmp_path)}
    study = Study(config.study, tmp_path, CONFIGS, extra)
    assert len(study.missing()) == len(study.cells) == len(study.combinations) * len(config.study.seeds)
    assert all(cell.config.trainer.eval_every == 0 for cell in study.cells)


def test_a_users_own_choice_of_two_keys(tmp_path):
    """The keys that it lacks are filled as for a training."""
    (tmp_path / "roi").mkdir()
    (tmp_path / "roi" / "mine.yaml").write_text("kind: pool\ncanonical_scale: 99\n")
    folders = [tmp_path, *CONFIGS]
    config = parse(compose(folders, "ablate", ["study=smoke"]), AblateConfig).study
    config.factors = {"roi": ["align", "mine"]}
    found = {cell.levels["roi"]: cell.config.roi for cell in Study(config, tmp_path, folders).cells}
    assert (found["mine"].kind, found["mine"].canonical_scale) == ("pool", 99)
    assert found["mine"].output_size == found["align"].output_size


def test_own_study_beside_the_project(tmp_path):
    """A user's file in DIR/study with --config-dir DIR: ten lines."""
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "rates.yaml").write_text(
        "name: rates\nfactors:\n  optim.lr: [0.001, 0.003]\nseeds: [0, 1, 2]\n"
        "common:\n  data: shapes\n  model: fpn\n  trainer.max_steps: 200\n"
    )
    folders = [tmp_path, *CONFIGS]
    config = parse(compose(folders, "ablate", ["study=rates"]), AblateConfig)
    study = Study(config.study, tmp_path, folders)
    assert [(c.levels["optim.lr"], c.config.optim.lr, c.seed) for c in study.cells][::3] == [
        ("0.001", 0.001, 0), ("0.003", 0.003, 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"factors": {}}, "name at least one factor"),
        ({"factors": {"roi": "pool"}}, r"study\.factors\.roi=pool: give a list"),
        ({"factors": {"roi": ["pool", "pool"]}}, "list of different values"),
        ({"factors": {"roi": ["pool", "alginn"]}}, r"roi=alginn: there is no such choice \(did you mean align\?\)"),
        ({"factors": {"optim.lrr": [1, 2]}}, r"study smoke, 1: unknown key 'optim\.lrr'; did you mean 'optim\.lr'"),
        ({"common": {"optim.lrr": 1}}, r"^study smoke, common: unknown key 'optim\.lrr'; did you mean 'optim\.lr'"),
        ({"common": {"optim": {"lrr": 1}}}, r"^study smoke, common: unknown key 'optim\.lrr'"),
        ({"common": {"model": "c6"}}, r"^study smoke, common: model=c6: there is no such choice"),
        ({"extra": {"optim.lrr": 1}}, r"^set=\{\.\.\.\}: unknown key 'optim\.lrr'; did you mean 'optim\.lr'"),
        ({"factors": {"optim.lr": ["a", "b"]}}, r"^study smoke, a: .*optim\.lr"),
        ({"factors": {"roi.aligned": [True, False]}, "common": {"roi": "pool"}}, r"roi\.aligned=true.*pool"),
        ({"common": {"model": "fpn", "model.fpn_strides": [8, 16]}}, r"has 2 feature maps \(strides 8, 16\)"),
        ({"extra": {"trainer.max_steps": 20}}, r"^study smoke, pool: optim\.warmup_steps=20: .*trainer\.max_steps=20"),
        ({"factors": {"seed": [1, 2]}}, "set by the study itself"),
        ({"factors": {"roi": ["pool", "align"], "x": {"a": {"roi": "prroi"}}}}, "both set roi"),
        ({"compare": "rio"}, r"study\.compare=rio: must be one of the factors roi"),
        ({"baseline": "align_max"}, r"study\.baseline=align_max: must be one of pool, align"),
        ({"seeds": [1, 1]}, r"study\.seeds=\[1, 1\]"),
        ({"metrics": ["mAP"]}, r"study\.metrics=\['mAP'\]: must be some of AP, AP50"),
        ({"extra": {"roi": "pool"}}, "roi is what the factor roi of this study varies"),
    ],
)
def test_mistakes_are_named(make_study, keys, message):
    with pytest.raises(ConfigError, match=message):
        make_study(**keys)


def test_levels_of_lists_are_named_without_blanks():
    assert levels_of("roi.output_size", [[7, 7], [14, 14]]) == {
        "[7,7]": {"roi.output_size": [7, 7]}, "[14,14]": {"roi.output_size": [14, 14]}
    }  # fmt: skip


def test_nested_settings_of_a_level():
    assert levels_of("x", {"a": {"model": {"rpn": {"nms_thresh": 0.5}}}}) == {"a": {"model.rpn.nms_thresh": 0.5}}


def test_state_on_disk(make_study):
    keys = {"common": {**TINY, "data": "shapes", "model": "c4"}, "keep_weights": False}
    study = make_study(**keys)
    assert len(study.missing()) == 4
    for cell in study.cells[:2]:
        cell.write(study.config)
    done, broken = study.cells[0], study.cells[1]
    (done.folder / "record.json").write_text(json.dumps({"hash": done.hash}))
    (broken.folder / "record.json").write_text('{"hash": "dam')  # cut off
    (broken.folder / "failure.json").write_text(json.dumps({"attempts": 1, "exit": "exit status 1", "log": []}))
    again = make_study(**keys)
    assert [c.name for c in again.finished()] == [done.name]
    assert [c.name for c in again.failed()] == [broken.name]
    assert len(again.missing()) == 2
    # Another configuration: the finished run is none of its cells, and is left alone.
    other = make_study(**{**keys, "common": {**keys["common"], "optim.lr": 0.5}})
    assert not other.finished()
    assert other.runs_of_other_configurations() == [done.name]
    # A record of another configuration in the folder does not count.
    (done.folder / "record.json").write_text(json.dumps({"hash": "0123456789"}))
    assert not make_study(**keys).finished()


def test_an_operator_of_the_users_is_a_level(make_study, fake, tmp_path):
    """By the name of a file, and as a setting; its arguments are in the hash, its class in record and report."""
    (tmp_path / "own/roi").mkdir(parents=True)
    (tmp_path / "own/roi/mine.yaml").write_text("# mine\ndefaults: [align]\nkind: {_target_: user_parts.Pooler}\n")
    common = {**TINY, "data": "shapes", "model": "c4"}
    keys = {"factors": {"roi": ["align", "mine"]}, "seeds": [0], "common": common, "keep_weights": False,
            "configs": [tmp_path / "own", *CONFIGS]}  # fmt: skip
    fake().run(make_study(**keys))
    study = make_study(**keys)
    assert [cell.config.roi.kind for cell in study.cells] == ["align", {"_target_": "user_parts.Pooler"}]
    record = study.cells[1].record
    assert (record["levels"], record["classes"]) == ({"roi": "mine"}, {"roi.kind": "user_parts.Pooler"})
    assert study.cells[0].record["classes"] == {}
    assert "roi.kind is user_parts.Pooler, " in (write_report(study) / "report.md").read_text()
    gains = {f"gain {gain}": {"roi.kind": {"_target_": "user_parts.Pooler", "gain": gain}} for gain in (1, 2)}
    other = make_study(factors={"op": gains}, seeds=[0], common=common)
    assert [cell.config.roi.kind["gain"] for cell in other.cells] == [1, 2]
    assert len({cell.hash for cell in [*study.cells, *other.cells]}) == 4
    for name, fact in (("user_parts.Poler", "user_parts.Pooler"), ("nowhere.X", "no module nowhere")):
        with pytest.raises(ConfigError, match=rf"study smoke, bad: roi\.kind: {name}.*{fact}"):
            make_study(factors={"op": {"bad": {"roi.kind": {"_target_": name}}}}, common=common)
