"""The command line as a user meets it: messages, exit codes, help, sweeps. The scripts here run nothing long."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from detector.config.arguments import CommandLine, collect_positional
from detector.config.commands import script
from detector.config.composition import compose, config_folders
from detector.config.configure import configure
from detector.config.overrides import Configs, parse_overrides
from detector.config.schema import CompareConfig, Config, PredictConfig, parse
from detector.exceptions import ConfigError

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = '''
"""A script of the test."""
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from detector.config.command_line import run
from detector.config.checks import number, one_of
from detector.exceptions import DataError


@dataclass
class Inner:
    size: int = number(0, 9)
    kind: str = one_of("round", "square")


@dataclass
class Outer:
    seed: int
    run_dir: str
    what: str
    shape: Inner


def main(config):
    print("ran", config.seed, config.shape.size, config.shape.kind, config.run_dir, Path.cwd())
    print("what", config.what)
    if config.what == "user":
        raise DataError("broken.json: a box without area")
    if config.what == "much":
        print(100_000 * "much ")
    if config.what == "bug":
        raise RuntimeError("a bug")
    if config.what == "interrupt":
        raise KeyboardInterrupt("to go on: do this")
    if config.what == "ctrl-c":
        signal.raise_signal(signal.SIGINT)
    if config.what == "swallowed":
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError('generic_type: type "ObjSense" is already registered!')


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    run(Outer, "main")(main)
'''


@pytest.fixture
def project(tmp_path):
    """A folder with a script, its configs, and a function that runs it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/go.py").write_text(SCRIPT)
    files = {
        "main.yaml": "defaults:\n  - _self_\n  - shape: round\nseed: 0\nrun_dir: runs/${now:%Y}\nwhat: ''\n",
        "shape/round.yaml": "# A round one\nsize: 1\nkind: round\n",
        "shape/square.yaml": "# A square one\ndefaults: [round, _self_]\nkind: square\n",
    }
    for name, content in files.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def call(*arguments, **variables):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
        environment.pop("HYDRA_FULL_ERROR", None)
        return subprocess.run(
            [sys.executable, "scripts/go.py", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    call.folder = tmp_path
    return call


def everything(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in str(p)}


def test_runs_with_the_choices_made(project):
    before = everything(project.folder)
    done = project("shape=square", "shape.size=3", "seed=7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:4] == ["ran", "7", "3", "square"]
    assert done.stdout.split()[5] == str(project.folder)  # the working directory is the user's
    assert everything(project.folder) == before  # and Hydra leaves nothing in it


@pytest.mark.parametrize("arguments", [["--help"], ["what=much"], ["what=little"]])
def test_a_reader_that_has_gone_is_no_error(project, arguments):
    """As with `| head`: whether the output comes at once or at the end."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "scripts/go.py", *arguments], cwd=project.folder, stdout=write, check=False,
                          stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shape.sise=3"], "error: unknown key 'shape.sise'; did you mean 'shape.size'?"),
        (["+shape.sise=3"], "error: unknown key 'shape.sise'; did you mean 'shape.size'?"),
        (["++colour=3"], "error: unknown key 'colour'; known here: seed, run_dir, what, shape"),
        (["sise=3"], "error: unknown key 'sise'; did you mean 'shape.size'?"),
        (
            ["shape.sise=3", "sead=1"],
            "error: unknown key 'shape.sise'; did you mean 'shape.size'?\n"
            "       unknown key 'sead'; did you mean 'seed'?",
        ),
        (["shap=round"], "error: unknown key 'shap'; did you mean 'shape'?"),
        (["+shape.size=3"], "error: +shape.size: this key exists; give shape.size=VALUE, without the plus"),
        (
            ["shape=rond"],
            "error: shape=rond: there is no such choice (did you mean round?); shape is one of round, square",
        ),
        (["shape=null"], "error: shape=null: to leave a group out, give ~shape"),
        (["shape.size=big"], "error: shape.size: Value 'big' of type 'str' could not be converted to Integer"),
        (["shape.size=10"], "error: shape.size=10: must be between 0 and 9"),
        (["shape.kind=oval"], "error: shape.kind=oval: must be one of round, square"),
        (["seed"], "error: cannot read the argument 'seed': Error parsing override 'seed'; did you mean seed=VALUE?"),
        (
            ["shape.kind=my", "own"],
            "error: cannot read the argument 'own': Error parsing override 'own'; did you mean own=VALUE, or "
            '"shape.kind=my own" in quotes?',
        ),
        (["seed=[1"], "error: cannot read the argument 'seed=[1':"),
        (["seed=???"], "error: seed: has to be given, as seed=VALUE"),
        (["seed=${nowhere}"], "error: seed: Interpolation key 'nowhere' not found"),
        (["seed=1,2"], "error: Ambiguous value for argument 'seed=1,2'"),
        (["what=user"], "error: broken.json: a box without area"),
        (
            ["--multirun", "shape=round,oval"],
            "error: shape=oval: there is no such choice; shape is one of round, square",
        ),
        (["--multirun", "shape.size=1,2,10"], "error: shape.size=10: must be between 0 and 9"),
        (["--config-dir", "/nowhere"], "error: /nowhere: there is no such folder of configs"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(project, arguments, message):
    done = project(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message), done.stderr
    assert "Traceback" not in done.stderr
    assert ("ran" in done.stdout) == (arguments == ["what=user"])


def test_output_that_is_not_utf8(project):
    done = project("what='\u2500'", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "what ?" in done.stdout


def test_a_config_that_is_no_yaml(project):
    (project.folder / "configs/shape/round.yaml").write_text("# A round one\nsize: 1\nkind: [round\n")
    done = project()
    assert done.returncode == 2
    assert re.match(r"error: .*/configs/shape/round\.yaml, line 4, column 1: not valid YAML: ", done.stderr)
    assert done.stderr.count("\n") == 1


def test_parts_of_choices_are_none(project):
    (project.folder / "configs/shape/_base.yaml").write_text("size: 2\n")
    (project.folder / "configs/shape/round.yaml").write_text("defaults: [_base, _self_]\nkind: round\n")
    assert project().stdout.split()[2] == "2"
    assert "shape is one of round, square" in project("shape=_base").stderr


def test_missing_configs(project):
    (project.folder / "configs/main.yaml").unlink()
    done = project()
    assert done.returncode == 2
    assert "main.yaml: there is no such file" in done.stderr


@pytest.mark.parametrize(
    ("what", "message"),
    [("interrupt", "to go on: do this"), ("ctrl-c", "interrupted"), ("swallowed", "interrupted")],
)
def test_interruption(project, what, message):
    done = project(f"what={what}")
    assert done.returncode == 130
    assert done.stderr == f"\n{message}\n"


def test_bugs_keep_their_traceback(project):
    done = project("what=bug")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr


def test_help_lists_groups_and_choices(project):
    done = project("--help")
    assert done.returncode == 0
    for part in (
        "A script of the test.",
        "shape=round (default)",
        "A round one",
        "shape=square ",
        "A square one",
        "KEY=VALUE",
    ):
        assert part in done.stdout


def test_whole_configuration_is_shown(project):
    done = project("--cfg", "job", "shape=square")
    assert done.returncode == 0
    assert "kind: square" in done.stdout


def test_sweep_has_a_folder_for_each_job(project):
    done = project("--multirun", "seed=1,2", "shape=round,square")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("ran")]
    assert [line[1:4] for line in lines] == [
        ["1", "1", "round"],
        ["1", "1", "square"],
        ["2", "1", "round"],
        ["2", "1", "square"],
    ]
    assert len({line[4] for line in lines}) == 4
    assert all(line[4].startswith("runs/") for line in lines)


def test_sweep_keeps_a_folder_that_was_given(project):
    done = project("run_dir='here-${seed}'", "--multirun", "seed=1,2")
    assert [line.split()[4] for line in done.stdout.splitlines() if line.startswith("ran")] == ["here-1", "here-2"]


def train(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "scripts/train.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_help_of_the_training_script():
    done = train("--help")
    assert done.returncode == 0
    for choice in ("model=fpn (default)", "model=c4", "model=c5", "roi=align_aligned", "trainer=ddp", "data=coco"):
        assert choice in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=c4"], "unknown key 'modle'; did you mean 'model'?"),
        (["model=c6"], "model is one of c4, c5, fpn"),
        (["resume=auto"], "say which run is to go on: run_dir=FOLDER resume=auto"),
        (["--config-name", "configg"], "configs/configg.yaml: there is no such file"),
        (["--multirun", "seed=0,1", "trainer=multinode"], "--multirun with processes that are started from outside"),
        (["--multirun", "seed=0,1", "resume=auto"], "say which sweep is to go on: hydra.sweep.dir=FOLDER"),
    ],
)
def test_mistakes_of_the_training_script(arguments, message):
    done = train(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0\0\0\0", "not valid YAML: unacceptable character #x0000"),
        (b"\xff\xfe\x80abc", "not a text in UTF-8"),
        (b"- 1\n", "not a group of keys"),
        (b"seed: [1\n", "line 2, column 1: not valid YAML"),
        (b"seed: 1\nrun_dir: a\n", "has no compile, resume, "),
    ],
)
def test_damaged_configuration_of_a_run(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    done = train("--config-dir", str(tmp_path), "--config-name", "config", f"run_dir={tmp_path}", "resume=auto")
    assert done.returncode == 2
    assert f"{tmp_path / 'config.yaml'}" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_the_users_own_reach_the_job(tmp_path):
    """Hydra composes the job itself, after the check."""
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("defaults: [sgd, _self_]\nlr: 0.005\n")
    done = train("--config-dir", str(tmp_path), "data=coco", "optim=mine", "--cfg", "job", "--resolve")
    optim = yaml.safe_load(done.stdout)["optim"]
    assert (optim["lr"], optim["warmup_steps"], optim["base_batch"]) == (0.005, 200, 16)
    # The tuning refers to optim.name, which is filled in after Hydra.
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 0.005\n")
    arguments = ("--config-dir", str(tmp_path), "data=coco", "optim=mine", "--cfg", "job")
    assert yaml.safe_load(train(*arguments).stdout)["optim"]["lr"] == 0.005
    done = train(*arguments, "--resolve")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "optim.name" in done.stderr


@pytest.mark.parametrize(
    ("argument", "facts"),
    [
        ("tuning=finetune", ("tuning=finetune: ", "tuning@_global_=finetune", "~tuning@_global_")),
        ("tuning@_global_=finetun", ("did you mean finetune", "shapes")),
        ("~optim", ("~optim: ", "adamw, sgd")),
    ],
)
def test_groups_that_hydra_would_refuse_in_its_own_words(argument, facts):
    done = train(argument, "--cfg", "job")
    assert done.returncode == 2
    assert all(fact in done.stderr for fact in facts), done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", ["optim.learning_rate=0.1"], "unknown key 'optim.learning_rate'; did you mean 'optim.lr'?"),
        ("train", ["num_classes=3"], "unknown key 'num_classes'; the number of classes comes from the annotation file"),
        ("evaluate", ["model=c4"], "unknown key 'model'; did you mean 'checkpoint'?"),
        ("evaluate", ["data.on_invalid=drop"], "unknown key 'data.on_invalid'; did you mean 'on_invalid'?"),
        ("evaluate", ["tuning=finetune"], "unknown key 'tuning': it is one of python {train}; known here: "),
        ("ablate", ["hparams=finetune"], "unknown key 'hparams': it is one of python {train}; known here: "),
        ("predict", ["data.on_invalid=drop"], "unknown key 'data.on_invalid': it is one of python {train}; known here"),
        ("ablate", ["model=c4"], "unknown key 'model'; settings of the study's runs are given as 'set={{model:c4}}'"),
        ("predict", ["--config-dir", "own", "--config-name", "cut"], "own/cut.yaml: has no checkpoint, "),
        ("train", ["--config-dir", "own", "model=mine"], "unknown key 'model.model'; the keys in a file of the group"),
        ("train", ["--config-dir", "own", "experiment=mine"],
         "own/experiment/mine.yaml: sets keys below 'experiment', as its first line is not '# @package _global_'"),
        ("train", ["--config-dir", "own", "experiment=[good,mine]"], "own/experiment/mine.yaml: sets keys below "),
        ("train", ["--config-dir", "own", "--multirun", "hparams=mine"],
         "own/hparams/mine.yaml: sets keys below 'hparams', as its first line is not '# @package _global_'"),
        ("ablate", ["--config-dir", "own", "study=smoke", "set={{experiment:mine}}", "action=plan"],
         "own/experiment/mine.yaml: sets keys below 'experiment'"),
    ],
)  # fmt: skip
def test_keys_that_a_command_does_not_have(call_script, tmp_path, name, arguments, message):
    own = tmp_path / "own"
    for file, content in {
        "cut.yaml": "source: a\n",
        "model/mine.yaml": "defaults: [fpn, _self_]\nmodel: {norm: group}\n",
        "experiment/mine.yaml": "# Mine\noptim: {lr: 0.1}\n",
        "hparams/mine.yaml": "hydra: {sweeper: {params: {seed: '1,2'}}}\n",
        "experiment/good.yaml": "# @package _global_\noptim: {lr: 0.1}\n",
        "experiment/other.yaml": "- 1\n",
    }.items():
        (own / file).parent.mkdir(parents=True, exist_ok=True)
        (own / file).write_text(content)
    code, out, err = call_script(name, *(argument.format() for argument in arguments))
    assert (code, out) == (2, "")
    assert message.format(train=script("train")) in err
    assert "resume=auto" not in err  # advice for training alone


def test_configuration_of_a_run_has_no_choices(tmp_path):
    whole = train("--cfg", "job", "--resolve")
    (tmp_path / "config.yaml").write_text(whole.stdout)
    done = train("--config-dir", str(tmp_path), "--config-name", "config", "model=c4")
    assert done.returncode == 2
    assert f"model=c4: {tmp_path / 'config.yaml'} is a configuration without choices; set its keys" in done.stderr
    done = train("--config-dir", str(tmp_path), "--config-name", "config", "model.name=c5", "--cfg", "job")
    assert "name: c5" in done.stdout, done.stderr


def test_settings_of_runs_given_to_a_study():
    done = subprocess.run([sys.executable, "scripts/ablate.py", "trainer.max_steps=7", "studdy.hours=1"], cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2
    assert "'set={trainer.max_steps:7}'" in done.stderr
    assert "unknown key 'studdy.hours'; did you mean 'study.hours'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_study_is_no_sweep():
    done = subprocess.run([sys.executable, "scripts/ablate.py", "--multirun", "study=smoke"], cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--multirun" in done.stderr


@pytest.mark.parametrize("root", ["\u6211\u7684 \u6570\u636e", "gr\u00fcn & blau", "photos (2)"])
def test_paths_that_hydras_grammar_does_not_know(root):
    done = train(f"data.root={root}", "--cfg", "job")
    assert f"root: {root}\n" in done.stdout, done.stderr


@pytest.mark.parametrize("source", ["a,b/x.jpg", "[2]", "[2]/x.jpg", "{1}", "[2]/*.jpg", "{1} x.jpg"])
def test_paths_with_commas_and_brackets(tmp_path, monkeypatch, source):
    """What is there under this very name is no sweep and no list; nor is what goes on behind a bracket."""
    for name in ("a,b/x.jpg", "[2]/x.jpg", "{1}/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict.py", f"source={source}", "batch_size=2"])
    line = CommandLine(ROOT / "configs", "predict", PredictConfig)
    assert [override.value() for override in line.overrides] == [source, 2]


def test_lists_that_are_not_closed_are_mistakes():
    done = train("roi.output_size=[7,7")
    assert done.returncode == 2
    assert "cannot read the argument 'roi.output_size=[7,7'" in done.stderr


def test_a_choice_that_looks_like_a_number():
    done = train("debug=nan", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "detect_anomaly: true" in done.stdout


def test_package_is_light():
    """Neither the package nor the command line imports PyTorch before there is something to do."""
    code = (
        "import sys, detector, detector.config.command_line; "
        "assert not {'torch', 'pytorch_lightning'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_arguments_without_a_key_become_one_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.json").touch()
    arguments = ["x.json", "seed=3", "runs/lr=0.1/1", "it's, [odd]", "hydra/job_logging=none", "a=b.json", "c=d.json"]
    assert collect_positional(arguments, "runs") == [
        "seed=3",
        "hydra/job_logging=none",
        "c=d.json",
        "runs=['x.json','runs/lr=0.1/1','it\\'s, [odd]','a=b.json']",
    ]
    read = OverridesParser.create().parse_override(collect_positional(arguments, "runs")[-1])
    assert read.value() == ["x.json", "runs/lr=0.1/1", "it's, [odd]", "a=b.json"]
    assert collect_positional(["seed=3"], "runs") == ["seed=3"]


@pytest.mark.parametrize("name", ["back\\slash", "end\\", "both\\'", "7", "null", "a, b"])
def test_paths_in_a_list_are_taken_as_they_are(name):
    cfg = compose([ROOT / "configs"], "compare", collect_positional([name, "b"], "runs"))
    assert parse(cfg, CompareConfig).runs == [name, "b"]


@pytest.mark.skipif(os.name != "posix", reason="another system has other words for it")
def test_a_folder_that_cannot_be_made_is_a_message(call_script, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call_script("illustrate", f"output_dir={tmp_path}/file/pictures", "figure=bin")
    assert code == 2
    assert err.strip() == f"error: {tmp_path}/file/pictures: Not a directory"


def test_pytorchs_remark_about_loader_processes_is_left_out():
    code = (
        "import torch, warnings\nfrom torch.utils.data import DataLoader\n"
        "from detector.config.output import command_output\n"
        "with command_output(): DataLoader(torch.zeros(9), num_workers=1000); warnings.warn('another')"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "another" in done.stderr
    assert "worker" not in done.stderr


@pytest.mark.parametrize(
    ("given", "full"),
    [
        (["backbone=torchvision/resnet50"], ["model.backbone=torchvision/resnet50"]),
        (["backbone=mobilenet_v2,timm/resnet18"], ["model.backbone=mobilenet_v2,timm/resnet18"]),
        (["backbone={_target_: a.B, n: 1}"], ["model.backbone={_target_: a.B, n: 1}"]),
        (["backbone._target_=a.B", "+backbone.n=1"], ["++model.backbone._target_=a.B", "++model.backbone.n=1"]),
        (["~backbone"], ["~model.backbone"]),
        (["backbones=x"], ["backbones=x"]),
    ],
)
def test_a_short_key_stands_for_the_full_one(monkeypatch, given, full):
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    assert CommandLine(ROOT / "configs", "train", Config).arguments == full


def test_a_group_of_that_name_is_no_short_key(monkeypatch, tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path), "backbone=mine"])
    assert CommandLine(ROOT / "configs", "train", Config).arguments == ["backbone=mine"]


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("roi", ["roi.kind={_target_"]),
        ("data", ["data.name={_target_"]),
        ("optim", ["optim.name={_target_", "optim.schedule={_target_"]),
        ("logger", ["logger.extra.NAME={_target_"]),
        ("callbacks", ["callbacks.NAME={_target_"]),
    ],
)
def test_a_class_for_a_whole_group_is_told_the_keys_that_take_one(group, keys):
    told = []
    with pytest.raises(ConfigError) as caught:
        Configs(config_folders(), "train", Config).check(parse_overrides([group + "={_target_: a.B, n: 1}"])[0])
    told.append(str(caught.value))
    with pytest.raises(ConfigError) as caught:
        configure(Config, {group: {"_target_": "a.B"}})
    told.append(str(caught.value))
    assert [key for key in keys for text in told if key not in text] == []
    assert all(text.startswith(f"{group} is the name of a choice") for text in told)
