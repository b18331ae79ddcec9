"""The open ends of the configuration: a key that holds a node with ``_target_`` is made by a class of the user's.

``roi.kind: {_target_: my_ops.Pooler, gamma: 0.1}`` names a class and arguments for it, as in every application of
Hydra's, and :func:`build` makes it. A node may hold others, and ``_args_``, ``_partial_`` and ``_recursive_`` mean what
they mean to Hydra; arguments are plain dicts and lists. Every mistake is a :class:`ConfigError` that names the key and
the class.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from detector.config.checks import is_target
from detector.config.stored import StoredNode, trust_of
from detector.exceptions import CheckpointError, ConfigError

OF_HYDRA = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")  # keys of a node that are no arguments

Classes = type | tuple[type, ...]
Arguments = Mapping[str, Any]


def build(node: Mapping[str, Any], key: str, /, *args: Any, returns: Classes = object, **kwargs: Any) -> Any:
    """What a node makes: its class, or function, called with ``args`` and ``kwargs`` and the node's own arguments.

    Args:
        node: with ``_target_``; values as a parsed configuration has them, which are not interpolated again.
        key: of the node in the configuration, for messages.
        args: positional arguments, in front of ``_args_`` of the node.
        returns: what it has to be an instance of.
        kwargs: arguments that the node may replace.

    Raises:
        ConfigError: the class cannot be imported, does not take the arguments, raises an exception, which is the cause
            of the error then, or makes something else.
        CheckpointError: the node is from a file, and the class is not trusted.
    """
    make, where = _maker(node, key), f"{key}: {node['_target_']}"
    inner = _build_inner if node.get("_recursive_", True) else (lambda value, _: value)
    own = {name: inner(value, f"{key}.{name}") for name, value in node.items() if name not in OF_HYDRA}
    args = (*args, *inner(list(node.get("_args_", [])), f"{key}._args_"))
    given, partial = {**kwargs, **own}, node.get("_partial_", False)
    if not partial:
        _check_arguments(make.func, where, args, given, own)
    try:
        made = functools.partial(make, *args, **given) if partial else make(*args, **given)
    except Exception as error:
        raise ConfigError(f"{where} failed with {in_words(error)}") from error
    if not isinstance(made, returns):
        wanted = " or ".join(map(name_of, returns if isinstance(returns, tuple) else (returns,)))
        raise ConfigError(f"{where} made an instance of {name_of(type(made))}, where one of {wanted} is wanted")
    return made


def build_all(nodes: Any, key: str, /, *args: Any, returns: Classes = object, **kwargs: Any) -> list[Any]:
    """What each node makes, in a list; see :func:`build`.

    Args:
        nodes: a list of nodes, or a dict of them by name, in which None stands for nothing.
        key: of ``nodes`` in the configuration.
    """
    pairs = nodes.items() if isinstance(nodes, Mapping) else enumerate(nodes)
    inside = "{}.{}" if isinstance(nodes, Mapping) else "{}[{}]"
    return [build(node, inside.format(key, name), *args, returns=returns, **kwargs)
            for name, node in pairs if node is not None]  # fmt: skip


def fitting(node: Mapping[str, Any], key: str, /, **offers: Any) -> dict[str, Any]:
    """Those of ``offers`` that are named in the signature of a node's class: keyword arguments for :func:`build`.

    Raises:
        ConfigError: the class cannot be imported.
    """
    try:
        names = inspect.signature(_maker(node, key).func).parameters
    except (TypeError, ValueError):  # a class in C that does not say
        return {}
    return {name: value for name, value in offers.items() if name in names}


def targets_of(config: Any, prefix: str = "") -> dict[str, str]:
    """Dotted key -> dotted class of every node in a configuration, nested ones included; nothing is imported.

    Args:
        config: an instance of the schema, or of a group of it; or what it holds: a dict, a list, a value.
        prefix: the key of ``config`` itself; "" for a whole one.
    """
    return {key: str(node["_target_"]) for key, node in _nodes_of(config, prefix).items()}


def _nodes_of(config: Any, prefix: str) -> dict[str, Mapping[str, Any]]:
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    found: dict[str, Mapping[str, Any]] = {}
    if isinstance(config, Mapping):
        found |= {prefix: config} if is_target(config) else {}
        for name, value in config.items():
            found |= _nodes_of(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(config, list | tuple):
        for place, value in enumerate(config):
            found |= _nodes_of(value, f"{prefix}[{place}]")
    return found


def check_imports(config: Any) -> None:
    """Raise :class:`ConfigError` for a class in a configuration that cannot be imported, or has not an argument.

    So a run that would fail later is refused before it reads its data.

    Raises:
        CheckpointError: the configuration is from a file, and a class is not trusted.
    """
    if (trust := trust_of(config)) is not None:
        check_trust(targets_of(config), trust)
    nodes = _nodes_of(config, "")
    makers = {place: _maker(node, place).func for place, node in nodes.items()}
    for place, node in nodes.items():
        _check_names(makers[place], f"{place}: {node['_target_']}", node)


def check_trust(targets: Mapping[str, str], trust: str) -> None:
    """Raise :class:`CheckpointError` unless ``trust`` allows every class that a checkpoint names.

    Nothing is imported but modules that are trusted. What a trusted module has imported from elsewhere, as ``os`` in
    ``my_ops.os.system``, is not trusted.

    Args:
        targets: dotted key -> dotted class, of :func:`targets_of`.
        trust: a module, with all that is in it, or a class; or several with commas; "": none.
    """
    if not isinstance(trust, str):
        raise ConfigError(f"trust={trust!r}: give the names of modules as a text, as in trust='my_ops'")
    trusted = [name.strip() for name in trust.split(",") if name.strip()]
    within = lambda name: any(name == module or name.startswith(f"{module}.") for module in trusted)
    for key, target in targets.items():
        module = target.rpartition(".")[0]
        if not within(target):
            given = f", and trust={trust!r} does not say so" if trusted else ""
            raise CheckpointError(
                f"{key} is made by {target}, whose code a checkpoint does not run by itself{given}. If you trust that "
                f"module and this file, give trust={module!r}"
            )
        try:
            owner = getattr(locate(target, key), "__module__", None) if target not in trusted else target
        except ConfigError as error:
            raise CheckpointError(str(error)) from error.__cause__
        if not within(str(owner)):
            raise CheckpointError(
                f"{key}: {target} comes from {owner or 'elsewhere'}, which trust={trust!r} does not allow; to trust "
                f"that too, give trust={target!r}"
            )


def trust_in(config: Any) -> str:
    """The ``trust`` that allows what a configuration names, and nothing else."""
    return ",".join(sorted(set(targets_of(config).values())))


def word_of(value: Any) -> str:
    """The value of an open end in a word: itself, or its class."""
    return str(value["_target_"]) if is_target(value) else str(value)


# ----------------------------------------------------------------------------------------------- finding
def locate(target: str, key: str) -> Any:
    """What a dotted name stands for; its module is imported.

    Raises:
        ConfigError: a part of the name does not exist, or its module cannot be imported.
    """
    first, *rest = target.split(".")
    found: Any = _imported(first, f"{key}: {target}: there is no module {first}{_hint(first)}", f"{key}: {target}")
    name = first
    for part in rest:
        owner, name = name, f"{name}.{part}"
        try:
            found = getattr(found, part)
            continue
        except AttributeError:
            pass
        except Exception as error:  # a module that imports its parts when they are asked for
            raise ConfigError(f"{key}: {target}: the import of {name} failed with {in_words(error)}") from error
        nearest = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("__")], n=1)
        hint = f"; did you mean {owner}.{nearest[0]}?" if nearest else ""
        missing = f"{key}: {target}: {owner} has no {part}{hint}"
        if not isinstance(found, ModuleType):
            raise ConfigError(missing)
        found = _imported(name, missing, f"{key}: {target}")
    return found


def _imported(name: str, missing: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:  # else it is one that the module imports
            raise ConfigError(missing) from None
        raise ConfigError(f"{where}: the import of {name} failed with {in_words(error)}") from error
    except Exception as error:
        raise ConfigError(f"{where}: the import of {name} failed with {in_words(error)}") from error


def _hint(module: str) -> str:
    """What to do about a module that is not found, if its file lies here."""
    here = Path(f"{module}.py").is_file() or Path(module, "__init__.py").is_file()
    return "; it is in this folder: set PYTHONPATH=." if here else ""


def _maker(node: Mapping[str, Any], key: str) -> Any:
    """The class of a node, as the ``functools.partial`` that Hydra makes; Hydra refuses some targets."""
    target = str(node["_target_"])
    if isinstance(node, StoredNode):
        check_trust(targets_of(node, key), node.trust)
    found = locate(target, key)
    if not callable(found):
        raise ConfigError(f"{key}: {target} is no class or function, but of type {type(found).__name__}")
    try:
        return instantiate({"_target_": target, "_partial_": True})
    except InstantiationException as error:
        raise ConfigError(f"{key}: {target}: Hydra refuses it: {' '.join(str(error).split())}") from None


# --------------------------------------------------------------------------------------------- arguments
def _build_inner(value: Any, key: str) -> Any:
    """``value`` with what the nodes in it make in their places."""
    if is_target(value):
        return build(value, key)
    if isinstance(value, Mapping):
        return {name: _build_inner(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list):
        return [_build_inner(part, f"{key}[{place}]") for place, part in enumerate(value)]
    return value


def _check_names(function: Callable[..., Any], where: str, node: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` for an argument in a node that its class does not know."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    own = {name: value for name, value in node.items() if name not in OF_HYDRA}
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not (own.keys() <= known or any(p.kind == p.VAR_KEYWORD for p in parameters)):
        wrong = {name: value for name, value in own.items() if name not in known}
        nearest = {name: difflib.get_close_matches(name, known, n=1) for name in wrong}
        told = [f"has no argument {n}{f' (did you mean {near[0]}?)' if near else ''}" for n, near in nearest.items()]
        raise ConfigError(f"{where} {', and '.join(told)}; it takes {', '.join(sorted(known)) or 'none'}")


def _check_arguments(
    function: Callable[..., Any], where: str, args: Sequence[Any], given: Arguments, own: Arguments
) -> None:
    """Raise :class:`ConfigError` that names each argument in ``given`` that a class does not know, or that it lacks.

    Args:
        function: the class.
        where: key and class.
        args: positional arguments.
        given: named ones.
        own: those of them that stand in the configuration.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a class in C that does not say; it will complain itself
        return
    parameters = signature.parameters.values()
    try:
        signature.bind(*args, **given)
        return
    except TypeError as error:
        reason = str(error)
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wrong = []
    for name in given if not any(p.kind == p.VAR_KEYWORD for p in parameters) else ():
        if name not in named:
            nearest = difflib.get_close_matches(name, named, n=1) if name in own else []
            hint = (
                f" (did you mean {nearest[0]}?)" if nearest else "" if name in own else ", which it is called with here"
            )
            wrong.append(f"has no argument {name}{hint}")
    filled = {*positional[: len(args)], *given}
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    wrong += [f"needs the argument {name}" for name in required if name not in filled]
    bare = [p.replace(annotation=p.empty) for p in parameters]
    shown = textwrap.shorten(
        f"{function.__name__}{signature.replace(parameters=bare, return_annotation=signature.empty)}", 300
    )
    raise ConfigError(f"{where} {', and '.join(wrong) or f'cannot be called so: {reason}'}. It is {shown}")


# ------------------------------------------------------------------------------------------------- words
def in_words(error: BaseException) -> str:
    """The type of an exception and its message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def name_of(kind: type) -> str:
    """The dotted name of a class."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
