"""Every key that a message names is one of the command that prints it, or of another that the message names."""

import ast
import contextlib
import functools
import re

import yaml
from test_structure import GRAPH, TEXTS

from detector.config.checks import is_known, known_keys
from detector.config.commands import configs_folder
from detector.config.composition import choices_of, default_choices, group_names
from detector.config.defaults import PRIMARIES, default
from detector.config.schema import AblateConfig, Config, parse, to_dict
from detector.exceptions import ConfigError

CONFIGS = configs_folder()
COMMANDS = {arguments[0]: schema for schema, arguments in PRIMARIES.items()}
TRAINING = ("train", "inspect_data", "ablate", "benchmark")  # commands that build a model or a data set from new keys
GROUPS = group_names([CONFIGS])
TOP = "|".join(sorted(key for key in known_keys(Config) if f"{key}." in " ".join(known_keys(Config))))
ALL = {key for schema in PRIMARIES for key in known_keys(schema)} | set(GROUPS)

# Modules that more commands import than print their messages, and those that do. The others have no entry: all commands
# that import them, by way of other modules too, must have the keys.
ONLY = {
    "detector.config.arguments": ("train", "inspect_data"),  # about resume, where it was given
    "detector.config.overrides": ("train", "inspect_data"),  # about keys that were given, and tuning
    "detector.config.unknown_argument": ("ablate",),  # set={...} is said where it is a key
    "detector.config.job": ("train", "inspect_data"),  # about resume and trainer, where they are keys
    "detector.config.results_folder": ("evaluate", "compare", "inspect_data"),  # check_overwrite
    "detector.config.targets": ("evaluate", "predict", "export", "illustrate", "benchmark"),  # trust, of a checkpoint
    "detector.data.loader": TRAINING,  # StepLoader; evaluation has another one
    "detector.data.shapes": TRAINING,  # a checkpoint's keys were checked when it was trained
    "detector.data.own_dataset": TRAINING,  # as shapes
    "detector.data.splits": TRAINING,  # find_split; validation_split is told other words (test_evaluate_checkpoint.py)
    "detector.evaluation.evaluate": ("evaluate",),
    "detector.evaluation.stored_detections": ("evaluate", "compare"),  # training has names of files from there
    "detector.evaluation.ground_truth": ("evaluate",),  # training checks the file before, compare leaves out
    "detector.inference.sources": ("predict",),
    "detector.models.backbone": TRAINING,  # as shapes
    "detector.models.catalogue": TRAINING,
    "detector.models.downloads": TRAINING,  # a checkpoint is loaded without initial weights
    "detector.models.faster_rcnn": TRAINING,
    "detector.models.given_pooler": TRAINING,
    "detector.models.initial.files": TRAINING,  # as downloads
    "detector.models.initial.kinds": TRAINING,
    "detector.models.networks": TRAINING,
    "detector.models.poolers": TRAINING,
    "detector.models.timm_networks": TRAINING,
    "detector.models.torchvision_networks": TRAINING,
    "detector.models.weights": TRAINING,
    "detector.models.device": ("evaluate", "predict"),  # training has a message of its own
}
NO_KEYS = {"data.json", "data.png", "data.yaml", "data.pkl"}  # names of files
# (module, key): no messages with advice. A repr, a table, what the library says of its own arguments, facts of a
# checkpoint, and sentences that say in words that they are about training.
NO_ADVICE = {
    *(("detector.inference.detector", key) for key in ("device", "model", "model.backbone", "roi")),
    *((module, key) for key in ALL for module in ("detector.config.synonyms", "detector.export.onnx_export")),
    ("roi_ops.functional", "sampling_ratio"),
    ("detector.config.defaults", "data"),
    ("detector.data.images", "data.white"),
    ("detector.evaluation.evaluate", "data.name"),
    ("detector.models.checkpoint", "model.weights"),
    ("detector.export.failures", "roi.kind"),
    *(("detector.evaluation.findings", key) for key in ALL),  # the last one says whose keys they are (test_findings.py)
}


def reached(module, seen):
    for name in GRAPH.get(module, ()):
        if name not in seen:
            seen.add(name)
            reached(name, seen)
    return seen


REACHED = {name: reached(f"scripts.{name}", set()) for name in COMMANDS}
CHOSEN = {name: {key.partition("@")[0] for key in default_choices(CONFIGS, name)} | {"tuning"} for name in COMMANDS}


def knows(command, key):
    """Whether a command has a key or chooses from a group; a study's runs are given those of training by ``set``."""
    schema = COMMANDS[command]
    if schema is AblateConfig and knows("train", key):
        return True
    return is_known(key, schema) or key in CHOSEN[command]


@functools.cache
def sentences(text):
    """The texts of a module but for docstrings, with ``{expression}`` where a value is put in."""
    tree, found = ast.parse(text), []
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else f"{{{ast.unparse(p.value)}}}" for p in node.values)
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            found.append(node.value)
    return found


DOTTED = re.compile(rf"(?<![\w./~{{-])((?:{TOP})\.[a-z_]+(?:\.[a-z_]+)*)")
GIVEN = re.compile(r"(?<![\w./~{-])([a-z_]+)=(?=[\w\[{'\"/<]|$)")
VALUE = re.compile(r"(?<![\w./~{-])([a-z_]+(?:\.[a-z_]+)*)=([a-zA-Z0-9]\w*(?:-\w+)*)(?![\w{/.]\w)")


def keys_of(sentence):
    return (set(DOTTED.findall(sentence)) | {key for key in GIVEN.findall(sentence) if key in ALL}) - NO_KEYS


def wrong_keys(module, text):
    """(key, command that prints it and does not have it) of the messages of a module."""
    commands = [name for name in COMMANDS if module in REACHED[name] and name in ONLY.get(module, COMMANDS)]
    for sentence in sentences(text):
        named = re.findall(r"(?:script|command)\('(\w+)'\)", sentence)
        for key in sorted(keys_of(sentence)):
            if (module, key) not in NO_ADVICE:
                yield from ((key, name) for name in commands if not any(knows(n, key) for n in (name, *named)))


def test_keys_in_messages_are_those_of_the_commands_that_print_them():
    wrong = {module: found for module, text in TEXTS.items() if (found := list(wrong_keys(module, text)))}
    assert wrong == {}
    assert sum(len(keys_of(s)) for text in TEXTS.values() for s in sentences(text)) > 100


def test_a_key_of_another_command_is_found():
    """As it was: evaluate read its annotations by the reader of training, whose advice names training's keys."""
    planted = 'def f(file):\n    """data.x=1"""\n    raise E(f"{file}: use data.on_invalid=drop")\n'
    assert {name for _, name in wrong_keys("detector.data.problems", planted)} >= {"evaluate", "predict"}
    assert list(wrong_keys("detector.training.length", planted)) == []
    assert [key for key, _ in wrong_keys("detector.training.length", planted.replace("on_invalid", "no"))]
    named = planted.replace("use", "use {command('train')} with")
    assert list(wrong_keys("detector.data.problems", named)) == []


def accepted(key, value):
    """Whether a command takes a whole argument."""
    if key in GROUPS:
        return value in choices_of([CONFIGS], key)
    for schema in (schema for schema in PRIMARIES if is_known(key, schema)):
        content = group = to_dict(default(schema))
        *groups, last = key.split(".")
        for name in groups:
            group = group[name]
        group[last] = yaml.safe_load(value)
        with contextlib.suppress(ConfigError):
            return bool(parse(content, schema))
    return False


def test_values_in_messages_are_allowed():
    """Of whole arguments, such as trainer.precision=bf16-mixed; what is in capitals stands for something."""
    given = {pair for text in TEXTS.values() for sentence in sentences(text) for pair in VALUE.findall(sentence)}
    given = {(key, value) for key, value in given if key in ALL and not re.fullmatch("[A-Z_]+", value)}
    assert len(given) > 30
    assert {pair for pair in given if not accepted(*pair)} == set()
    assert not accepted("data.on_invalid", "dropp")
    assert not accepted("trainer", "gpus")
