"""Every command in the documentation, the docstrings of the scripts and the comments of the configs is one that works:
its script, keys, choices and values exist. What is not a script's is looked up where it is defined."""

import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from gpu_kit.steps import all_steps

import roi_ops
from detector.config import schema
from detector.config.arguments import CommandLine
from detector.config.checks import is_known, whole_key
from detector.config.composition import compose
from detector.config.defaults import default
from detector.exceptions import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
# Schema and key for arguments without `KEY=`, as the scripts say; ablate.py starts itself.
RUN = re.compile(r"^    run\((\w+), \"(\w+)\"(?:, positional=\"(\w+)\")?\)", re.MULTILINE)
SCRIPTS = {"ablate": (schema.AblateConfig, "")}
for _file in sorted((ROOT / "scripts").glob("*.py")):
    for _schema, _name, _positional in RUN.findall(_file.read_text(encoding="utf-8")):
        SCRIPTS[_name] = (getattr(schema, _schema), _positional)
PROGRAMS = ("python", "multiscale-rcnn", "make", "pip", "torchrun", "srun", "source", "fuzz")


def commands(text):
    """The shell commands of a page: lines of blocks without a language, and code in a line that starts like one."""
    blocks = "\n".join(SHELL.findall(text)).replace("\\\n", " ")
    found = [line for line in blocks.splitlines() if line.split(" ")[0] in PROGRAMS]
    return found + [code for code in INLINE.findall(text) if code.split(" ")[0] in PROGRAMS and " " in code]


def in_comments():
    """(where, command) of the scripts' docstrings and the configs' comments."""
    for file in [*sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "configs").rglob("*.yaml"))]:
        lines = re.sub(r"\\\n#? *", " ", file.read_text(encoding="utf-8")).splitlines()
        for line in (line.lstrip("# ") for line in lines):
            if re.match(r"(python|torchrun|srun) .*scripts/\w+\.py", line):
                yield file.name, line


COMMANDS = sorted({(page.name, line.strip()) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))}
                  | set(in_comments()))  # fmt: skip


def words(command):
    """The arguments of a command as a shell gives them, without comments and the dots that stand for more."""
    found = shlex.split(command, comments=True)
    cut = found.index("...the") if "...the" in found else len(found)
    found = [word for word in found[:cut] if word != "..."]
    return [re.sub(r"^\[(\w+=.*)\]$", r"\1", word).replace("IMAGE|FOLDER|VIDEO", "FOLDER") for word in found]


def check_script(name, arguments, monkeypatch):
    """Compose and check what ``scripts/NAME.py`` would be run with."""
    kind, positional = SCRIPTS[name]
    if "hydra/launcher=submitit_slurm" in arguments:  # not among the packages for development
        arguments = [a for a in arguments if not a.startswith(("hydra/launcher", "hydra.launcher"))]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    command = CommandLine(ROOT / "configs", name, kind, positional)
    command.check()


@pytest.fixture
def own_study(tmp_path):
    """A folder of configs with the study that docs/studies.md writes."""
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    (study,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/mine.yaml").write_text(study)
    assert yaml.safe_load(study)["name"] == "mine"
    return tmp_path


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_command(page, command, monkeypatch, own_study):
    found = words(command)
    if found[0] == "multiscale-rcnn":
        found[:2] = [f"scripts/{found[1]}.py"]
    script = next((i for i, word in enumerate(found) if re.fullmatch(r"scripts/\w+\.py", word)), None)
    if script is not None:
        assert (ROOT / found[script]).is_file()
        name, arguments = Path(found[script]).stem, found[script + 1 :]
        if "study=mine" in arguments:
            arguments = [a for a in arguments if a not in ("--config-dir", "DIR")]
            arguments = ["--config-dir", str(own_study), *arguments]
        elif "--config-dir" in arguments:
            (own_study / "config.yaml").write_text(yaml.safe_dump(schema.to_dict(default(schema.Config))))
            arguments[arguments.index("--config-dir") + 1] = str(own_study)
        if name == "gpu_check":
            assert set(arguments) <= {step.name for step in all_steps("cuda", ROOT, ROOT)}
        else:
            check_script(name, arguments, monkeypatch)
    elif found[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in found[1:] if "=" not in word]
        assert targets
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif found[:2] == ["python", "app.py"]:
        assert list((ROOT / "docs/examples").rglob("app.py"))
    elif found[0] == "python" and found[1].startswith("docs/"):
        assert (ROOT / found[1]).is_file()
    elif found[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(found[2])
    elif found[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"]
        packages = [re.split(r"[>=]", p)[0] for extra in optional.values() for p in extra]
        for word in (word for word in found[2:] if not word.startswith("-")):
            extra = re.fullmatch(r"\.\[(\w+)\]", word)
            assert extra.group(1) in optional if extra else word == "." or word in packages
    else:
        assert found[0] in ("source", "fuzz")


def test_commands_are_found():
    assert {name for _, line in COMMANDS for name in re.findall(r"scripts/(\w+)\.py", line)} == {
        *SCRIPTS, "gpu_check"}  # fmt: skip
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("command", ["train modle=c4", "train experiment=tune", "evaluate checkpoint=a resamples=-1"])
def test_a_wrong_command_is_noticed(command, monkeypatch):
    name, *arguments = command.split()
    with pytest.raises(ConfigError):
        check_script(name, arguments, monkeypatch)


# -------------------------------------------------------------------------------------------------- keys
# The operator that docs/adding_an_operator.md adds, a folder, and files of the user's.
HYPOTHETICAL = {"roi=tent", "data=DIR", "callbacks=[mine,theirs]"}
KEYS = sorted({code for page in PAGES for code in INLINE.findall(page.read_text(encoding="utf-8"))
               if re.fullmatch(r"[a-z_.]+=(?!\")\S*( [a-z_.]+=\S+)*", code)} - HYPOTHETICAL)  # fmt: skip


@pytest.mark.parametrize("code", KEYS)
def test_key_in_a_sentence(code, monkeypatch):
    """`KEY=VALUE` is a setting of a script or an argument of an operator; `KEY=` names one."""
    arguments = code.split(" ")
    names = [argument.split("=")[0] for argument in arguments]
    public = (getattr(roi_ops, name) for name in roi_ops.__all__)
    of_operators = {name for f in public if callable(f) for name in inspect.signature(f).parameters}
    groups = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()}
    chosen = {"train": groups, "inspect_data": groups, "ablate": {"study"}}
    scripts = [name for name, (kind, _) in SCRIPTS.items()
               if all(is_known(whole_key(n, kind), kind) or n in chosen.get(name, ()) for n in names)]  # fmt: skip
    if all(name.startswith("hydra.") for name in names):  # Hydra refuses keys that it does not have
        compose([ROOT / "configs"], "train", ["hparams=finetune", *arguments], hydras=True)
        return None
    if not scripts:
        assert names[0] in of_operators
        return None
    if code.endswith("="):
        return None
    errors = []
    for name in scripts:
        try:
            return check_script(name, arguments, monkeypatch)
        except ConfigError as error:
            errors.append(f"{name}: {error}")
    if names[0] in of_operators:
        return None
    raise AssertionError("\n".join(errors))
