"""Classes that a configuration names: what they are called with, and one message for every mistake."""

import inspect
import sys
from collections import Counter
from fractions import Fraction

import pytest
import torch
import user_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detector.config.checks import flat
from detector.config.configure import configure
from detector.config.defaults import parse_partial
from detector.config.schema import Config, RoiConfig, to_dict
from detector.config.targets import (
    build,
    build_all,
    check_imports,
    check_trust,
    fitting,
    is_target,
    targets_of,
    trust_in,
    word_of,
)
from detector.exceptions import CheckpointError, ConfigError

NOTED = "user_parts.Noted"


def facts_of(node, *args, **kwargs):
    """The message for a node that cannot be built, and its cause."""
    with pytest.raises(ConfigError) as caught:
        build(node, "roi.kind", *args, **kwargs)
    return str(caught.value), caught.value.__cause__


def test_arguments_of_the_user_win():
    made = build({"_target_": NOTED, "a": 1, "size": 7}, "k", 5, size=3, b=[2])
    assert (made.args, made.size, made.kwargs) == ((5,), 7, {"a": 1, "b": [2]})


def test_what_is_passed_is_not_copied():
    parameter = torch.nn.Parameter(torch.zeros(2))
    made = build({"_target_": NOTED}, "k", [{"params": [parameter]}])
    assert made.args[0][0]["params"][0] is parameter


def test_nested_nodes_and_the_keys_of_hydra():
    inner = {"_target_": "fractions.Fraction", "_args_": [3, 4]}
    partial = {"_target_": "user_parts.Plain", "_partial_": True, "second": inner}
    node = {"_target_": NOTED, "_args_": [inner], "all": [1, {"of": inner}], "make": partial}
    made = build(node, "k", "first")
    assert made.args == ("first", Fraction(3, 4))
    assert made.kwargs["all"] == [1, {"of": Fraction(3, 4)}]
    assert type(made.kwargs["all"]) is list
    assert made.kwargs["make"](1, third=5).given == (1, Fraction(3, 4), 5)
    kept = build({"_target_": NOTED, "_recursive_": False, "part": inner}, "k")
    assert kept.kwargs == {"part": inner}


def test_texts_are_not_interpolated_again(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert build({"_target_": NOTED, "text": "${oc.env:SECRET}"}, "k").kwargs == {"text": "${oc.env:SECRET}"}


def test_lists_and_dicts_of_nodes():
    one, two = {"_target_": NOTED, "n": 1}, {"_target_": NOTED, "n": 2}
    assert [m.kwargs["n"] for m in build_all([one, two], "k")] == [1, 2]
    assert [m.kwargs["n"] for m in build_all({"a": two, "b": None, "c": one}, "k")] == [2, 1]
    with pytest.raises(ConfigError, match=r"callbacks\.b: user_parts\.Failing"):
        build_all({"a": one, "b": {"_target_": "user_parts.Failing"}}, "callbacks")
    with pytest.raises(ConfigError, match=r"transforms\[1\]: user_parts\.Failing"):
        build_all([one, {"_target_": "user_parts.Failing"}], "transforms")


@pytest.mark.parametrize(
    ("target", "facts"),
    [
        ("user_part.Plain", ["no module user_part"]),
        ("user_parts.Plan", ["user_parts has no Plan", "user_parts.Plain?"]),
        ("user_parts.Plain.other", ["user_parts.Plain has no other"]),
        ("user_parts.torch", ["no class", "module"]),
        ("torch.optim.Radam", ["torch.optim has no Radam", "torch.optim.RAdam?"]),
        ("builtins.eval", ["Hydra refuses"]),
    ],
)
def test_what_cannot_be_imported(target, facts):
    message, _ = facts_of({"_target_": target})
    assert message.startswith(f"roi.kind: {target}")
    assert [fact for fact in facts if fact not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize("content", ["import no_such_library", "1 / 0", "def f(:"])
def test_a_module_that_fails(tmp_path, monkeypatch, content):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_parts.py").write_text(content)
    message, cause = facts_of({"_target_": "broken_parts.X"})
    assert "roi.kind: broken_parts.X: the import of broken_parts failed" in message
    assert type(cause).__name__ in message
    assert "no module broken_parts" not in message


def test_a_module_in_this_folder_is_no_riddle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_here.py").write_text("")
    assert "PYTHONPATH" in facts_of({"_target_": "lying_here.X"})[0]


@pytest.mark.parametrize(
    ("node", "kwargs", "facts"),
    [
        ({"frist": 1}, {}, ["no argument frist", "first?", "needs the argument first"]),
        ({"first": 1, "other": 2}, {}, ["no argument other"]),
        ({"first": 1}, {"gain": 2}, ["no argument gain", "called with"]),
        ({}, {}, ["needs the argument first"]),
    ],
)
def test_wrong_arguments(node, kwargs, facts):
    message, _ = facts_of({"_target_": "user_parts.Plain", **node}, **kwargs)
    assert message.startswith("roi.kind: user_parts.Plain")
    assert [f for f in [*facts, "Plain(first, second=2, *, third=3)"] if f not in message] == []


def test_an_exception_of_the_class_itself():
    message, cause = facts_of({"_target_": "user_parts.Failing"})
    assert message.startswith("roi.kind: user_parts.Failing")
    assert "KeyError" in message
    assert "nothing there" in message
    assert type(cause) is KeyError
    nested, _ = facts_of({"_target_": NOTED, "parts": [{"_target_": "user_parts.Failing"}]})
    assert nested.startswith("roi.kind.parts[0]: user_parts.Failing")


def test_a_wrong_return():
    message, _ = facts_of({"_target_": "collections.Counter"}, returns=(torch.nn.Module, Fraction))
    for fact in ("roi.kind: collections.Counter", "torch.nn.modules.module.Module", "fractions.Fraction"):
        assert fact in message
    assert build({"_target_": "collections.Counter"}, "k", returns=dict) == Counter()


NAMES = st.text("abc", min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    parameters=st.dictionaries(NAMES, st.booleans(), max_size=4),
    any_keyword=st.booleans(),
    node=st.dictionaries(NAMES, st.integers(), max_size=4),
    ours=st.dictionaries(NAMES, st.integers(), max_size=3),
)
def test_arguments_are_refused_exactly_when_python_would(parameters, any_keyword, node, ours):
    """Any signature, any arguments: built, or one message with every name that is wrong."""
    order = sorted(parameters, key=parameters.get)
    kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=0 if parameters[name] else
                               inspect.Parameter.empty) for name in order]  # fmt: skip
    if any_keyword:
        kinds.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))

    def function(**given):
        return given

    function.__signature__ = inspect.Signature(kinds)
    user_parts.function = function
    merged = {**ours, **node}
    unknown = set() if any_keyword else merged.keys() - parameters.keys()
    missing = {name for name, has_default in parameters.items() if not has_default} - merged.keys()
    if not unknown and not missing:
        assert build({"_target_": "user_parts.function", **node}, "k", **ours) == merged
        return
    with pytest.raises(ConfigError) as caught:
        build({"_target_": "user_parts.function", **node}, "k", **ours)
    message = str(caught.value)
    assert message.startswith("k: user_parts.function ")
    assert all(f"no argument {name}" in message for name in unknown)
    assert all(f"needs the argument {name}" in message for name in missing)


def test_offers():
    offers = {"lr": 1.0, "momentum": 0.5}
    assert fitting({"_target_": "torch.optim.RAdam"}, "k", **offers) == {"lr": 1.0}
    assert fitting({"_target_": "torch.optim.SGD"}, "k", **offers) == offers
    assert fitting({"_target_": "builtins.dict"}, "k", **offers) == {}


def test_targets_of():
    node = {"_target_": "a.B", "inner": [{"x": {"_target_": "c.D"}}]}
    config = parse_partial({"roi": {"kind": node}})
    found = {"roi.kind": "a.B", "roi.kind.inner[0].x": "c.D"}
    assert targets_of(config) == targets_of(to_dict(config)) == found
    assert targets_of(config.roi, "roi") == found
    assert targets_of(config.optim) == {}
    assert (trust_in(config), word_of(node), word_of("pool")) == ("a.B,c.D", "a.B", "pool")
    assert not is_target({"target": "a.B"})
    with pytest.raises(ConfigError, match=r"roi\.kind\.inner\[0\]\.x: c\.D: .*module c"):
        check_imports(parse_partial({"roi": {"kind": {**node, "_target_": "user_parts.Plain"}}}))


# ------------------------------------------------------------------------------------------------ schema
RADAM = {"_target_": "torch.optim.RAdam", "betas": [0.8, 0.9]}


def test_a_node_in_place_of_a_word():
    for keys in ({"optim.name": RADAM}, {"optim": {"name": RADAM}},
                 {"optim.name._target_": "torch.optim.RAdam", "optim.name.betas": (0.8, 0.9)}):  # fmt: skip
        config = configure(Config, keys)
        assert config.optim.name == RADAM
        assert parse_partial(to_dict(config)) == config  # as checkpoints keep it
    text = {"_target_": "my.Thing", "text": "${x}"}
    assert configure(Config, {"optim.name": text}).optim.name == text
    assert configure(Config, {"optim": "sgd"}).optim.lr == 0.02  # the built-in data's rates by optimiser
    assert configure(Config, {"optim.name": RADAM}).optim.lr == 0.003
    assert flat({"optim": {"name": RADAM}}) == {"optim.name": RADAM}


def test_nodes_with_interpolations():
    cfg = OmegaConf.create({"optim": {"name": {**RADAM, "eps": "${optim.gamma}"}, "gamma": 0.25}})
    assert parse_partial(cfg).optim.name["eps"] == 0.25


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        ("adam", ["optim.name=adam", "adamw, sgd", "_target_"]),
        ({"lr": 1}, ["optim.name=", "no _target_"]),
        ({"_target_": "RAdam"}, ["optim.name._target_=RAdam"]),
        ({"_target_": "a b.C"}, ["optim.name._target_=a b.C"]),
        ({"_target_": None}, ["optim.name._target_=None"]),
        ({"_target_": "a.B", "inner": [{"_target_": 3}]}, ["optim.name.inner[0]._target_=3"]),
        (3, ["optim.name=3", "adamw, sgd"]),
        (None, ["optim.name=None"]),
        (["adamw"], ["optim.name=['adamw']"]),
    ],
)
def test_what_is_no_node(value, facts):
    with pytest.raises(ConfigError) as caught:
        parse_partial({"optim": {"name": value}})
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_a_key_near_an_open_end():
    with pytest.raises(ConfigError, match=r"'optim\.nam\._target_'.*'optim\.name'"):
        configure(Config, {"optim.nam._target_": "a.B"})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim.name={_target_: torch.optim.RAdam, betas: [0.8, 0.9]}"], RADAM),
        (["optim.name._target_=torch.optim.RAdam", "optim.name.betas=[0.8,0.9]"], RADAM),
        (["+optim.name._target_=torch.optim.RAdam", "+optim.name.betas=[0.8,0.9]"], RADAM),
        (["--config-dir", "own", "optim=radam"], RADAM),
        (["--config-dir", "own", "optim=radam", "optim.name.eps=${optim.gamma}"], {**RADAM, "eps": 0.1}),
        (["--config-dir", "own", "optim=radam", "optim.name=sgd"], "sgd"),
    ],
)
def test_command_line(tmp_path, monkeypatch, arguments, expected):
    from detector.config.arguments import CommandLine
    from detector.config.composition import configs_folder

    (tmp_path / "own/optim").mkdir(parents=True)
    (tmp_path / "own/optim/radam.yaml").write_text(
        "# mine\ndefaults: [adamw]\nname: {_target_: torch.optim.RAdam, betas: [0.8, 0.9]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    command = CommandLine(configs_folder(), "train", Config)
    command.check()
    assert parse_partial(command.compose()).optim.name == expected


def test_a_sweep_over_words_and_nodes(monkeypatch):
    from detector.config.arguments import CommandLine
    from detector.config.composition import configs_folder

    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "optim.name=adamw,{_target_: torch.optim.RAdam}",
                                      "roi.kind._target_=a.B", "roi.kind.gain=1,2"])  # fmt: skip
    CommandLine(configs_folder(), "train", Config).check()


# ------------------------------------------------------------------------------------------------- trust
@pytest.mark.parametrize(
    ("trust", "allowed"),
    [("", False), ("user_part", False), ("other", False), ("user_parts", True), ("user_parts.Pooler", True),
     ("other, user_parts", True), ("user_parts.Plain", False), ("User_parts", False)],
)  # fmt: skip
def test_trust(trust, allowed):
    targets = {"roi.kind": "user_parts.Pooler"}
    if allowed:
        check_trust(targets, trust)
        return
    with pytest.raises(CheckpointError) as caught:
        check_trust(targets, trust)
    for fact in ("roi.kind", "user_parts.Pooler", "trust='user_parts'"):
        assert fact in str(caught.value)


@pytest.mark.parametrize(
    "target",
    ["user_parts.torch.hub.load", "user_parts.nn.Identity", "user_parts.MADE.append", "user_parts.Pooler.__class__",
     "user_parts.Pooler.__init__.__call__", "user_parts.Pooler.register_module", "user_parts.none.such"],
)  # fmt: skip
def test_trust_in_a_module_is_no_trust_in_what_it_imports(target):
    with pytest.raises(CheckpointError, match=r"roi\.kind"):
        check_trust({"roi.kind": target}, "user_parts")


def test_nothing_is_imported_without_trust(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dangerous.py").write_text("raise SystemExit('ran')")
    config = default_roi({"_target_": "user_parts.Plain", "first": [{"_target_": "dangerous.X"}]})
    with pytest.raises(CheckpointError, match=r"roi\.kind\.first\[0\].*dangerous\.X.*trust='dangerous'"):
        check_trust(targets_of(config, "roi"), "user_parts")
    assert "dangerous" not in sys.modules


def default_roi(kind):
    from detector.config.defaults import default

    return default(RoiConfig, kind=kind)


@pytest.mark.parametrize("key", ["optim", "transforms[1].inner"])
def test_an_unknown_argument_of_any_node_is_told_with_the_imports(key):
    wrong, right = ({"_target_": "user_parts.Plain", name: 1} for name in ("secnod", "second"))
    place = {"optim": wrong} if key == "optim" else {"transforms": [right, {"_target_": NOTED, "inner": wrong}]}
    check_imports({"right": right, "noted": {"_target_": NOTED, "any": 1}})  # `first` is what it is called with
    with pytest.raises(ConfigError, match=r"user_parts\.Plain has no argument secnod.*second") as caught:
        check_imports(place)
    assert str(caught.value).startswith(f"{key}: ")
