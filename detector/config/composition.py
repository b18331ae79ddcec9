"""The folders of configs: which groups and choices there are, and what Hydra composes of them."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.commands import configs_folder
from detector.config.plugins import plugin_folders
from detector.exceptions import ConfigError

# Groups with keys that configs/tuning/ sets; configs/train.yaml has `optional OWN/GROUP@GROUP` after the data for each.
TUNED = ("model", "roi", "optim", "trainer")
OWN = "multiscale_rcnn_own"  # the store is that of the whole process: other applications have groups in it too

RECIPES = ("experiment", "debug")  # groups whose files set keys of other groups
SEARCH = "hparams"  # the group whose choices make sense with --multirun only; they set keys of Hydra
AT_TOP = "# @package _global_"
NO_TEXT = r"null|true|false|[+-]?(inf|nan|[\d_.]+(e[+-]?[\d_]+)?)"  # what Hydra reads as something else than a text


def config_folders(config_dir: str | Path = "", configs: Path | None = None) -> list[Path]:
    """The folders of configs that a command looks into: the user's own, those of plugin packages, the shipped ones.

    Args:
        config_dir: the user's own; "": none.
        configs: the shipped ones; None: those of this package. Plugins are for these only.

    Raises:
        ConfigError: a plugin package has no such folder as it says.
    """
    own = [Path(config_dir).expanduser().absolute()] if config_dir else []
    shipped = configs_folder()
    return [*own, *(plugin_folders() if configs in (None, shipped) else []), configs or shipped]


def group_names(folders: Sequence[Path]) -> list[str]:
    """Names of the groups, sorted."""
    return sorted({p.name for folder in folders for p in folder.iterdir() if p.is_dir() and any(p.glob("*.yaml"))})


def choices_of(folders: Sequence[Path], group: str) -> list[str]:
    """Names of the choices of a group, sorted; none if there is no such group. ``_NAME.yaml`` is a part of others."""
    files = (path for folder in folders for path in (folder / group).glob("*.yaml") if group)
    return sorted({path.stem for path in files if not path.stem.startswith("_")})


def check_choice(folders: Sequence[Path], group: str, name: str) -> None:
    """Raise :class:`ConfigError` with the nearest choice of the group unless ``name`` is one, and only one."""
    choices = choices_of(folders, group)
    files = [path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()]
    if len(files) > 1:
        raise ConfigError(f"{group}={name}: two files have this name: {files[0]} and {files[-1]}; rename one")
    if name not in choices:
        nearest = difflib.get_close_matches(name, choices, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        folder = ", or a folder" if group == "data" else ""  # see `detector.config.overrides.Configs.whole_keys`
        known = ", ".join(choices)
        raise ConfigError(f"{group}={name}: there is no such choice{hint}; {group} is one of {known}{folder}")


def read_config(path: Path) -> dict[str, Any]:
    """What is in a config file.

    Raises:
        ConfigError: it is missing, or is not a group of keys in YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise not_yaml(error, str(path)) from None
    except yaml.YAMLError as error:  # characters that no YAML has
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {'is empty' if content is None else 'not a group of keys, as a config is'}")
    return content


def not_yaml(error: yaml.MarkedYAMLError, file: str) -> ConfigError:
    """The error for a file with a mistake in its YAML; ``file`` is named if the mistake does not say where it is."""
    mark = error.problem_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    name = mark.name if mark and Path(mark.name).is_file() else file
    return ConfigError(f"{', '.join(filter(None, (name, where)))}: not valid YAML: {error.problem}")


def default_choices(folder: Path, config_name: str) -> dict[str, str | None]:
    """The defaults list of a primary config: group -> choice.

    What other configs of the folder add by their own lists is in it; groups that depend on others are left out.
    """
    content = read_config(folder / f"{config_name}.yaml")
    found: dict[str, str | None] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            found |= {} if entry == "_self_" else default_choices(folder, entry)
            continue
        found |= {g.split()[-1]: c for g, c in entry.items() if "${" not in str(c) and not g.startswith("override")}
    return found


def foreign_groups(folder: Path, config_name: str) -> set[str]:
    """The groups in ``folder`` that other primary configs choose from than ``config_name``."""
    own = {key.partition("@")[0] for key in default_choices(folder, config_name)}
    return set(group_names([folder])) - own - ({"tuning"} if "data" in own else set())  # data=NAME chooses the tuning


def first_comment(folders: Sequence[Path], group: str, choice: str) -> str:
    """What the first line of a choice's file says of it."""
    for folder in folders:
        path = folder / group / f"{choice}.yaml"
        if path.is_file():
            lines = (line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line)
            first = next(lines, "")
            return textwrap.shorten(first.lstrip("# "), 96, placeholder=" ...") if first.startswith("#") else ""
    return ""


def compose(folders: Sequence[Path], config_name: str, arguments: Sequence[str], hydras: bool = False) -> DictConfig:
    """The configuration that ``arguments`` make of a primary config.

    Args:
        folders: of configs, with the primary config in one of them.
        config_name: the primary config, without ``.yaml``.
        arguments: overrides in Hydra's grammar.
        hydras: with Hydra's own keys, under ``hydra``.

    Raises:
        ConfigError: Hydra cannot compose them.
    """
    # Hydra wants to find the primary config without a search path.
    home = next((f for f in reversed(folders) if (f / f"{config_name}.yaml").is_file()), folders[-1])
    searchpath = search_path([folder for folder in folders if folder != home])
    try:
        with own_files(folders), no_running_hydra(), hydra.initialize_config_dir(str(home), version_base="1.3"):
            composed = hydra.compose(config_name, [*arguments, *searchpath], return_hydra_config=hydras)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
        if "hydra/launcher" in str(error):
            lines += [f"pip install hydra-{name}-launcher" for name in ("joblib", "submitit") if name in str(error)]
        if "hydra/sweeper/optuna" in str(error):
            lines.append('pip install "multiscale-rcnn[optuna]"')
        raise ConfigError("; ".join(dict.fromkeys(lines))) from None
    except yaml.MarkedYAMLError as error:
        raise not_yaml(error, "a config file") from None
    check_packages(folders, composed)
    return composed


def check_packages(folders: Sequence[Path], composed: DictConfig) -> None:
    """Raise :class:`ConfigError` if the keys of a recipe or a search lie below the name of its group.

    Its file sets keys of other groups, so it has to say that they start at the top.
    """
    for group in (*RECIPES, SEARCH):
        below = composed.get(group)
        if isinstance(below, DictConfig):
            files = [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
            wrong = [str(path) for path in files if not at_top(path) and top_keys(path) & {str(key) for key in below}]
            raise ConfigError(
                f"{', '.join(wrong) or group}: sets keys below '{group}', as its first line is not '{AT_TOP}'; add "
                "that line"
            )


def at_top(path: Path) -> bool:
    """Whether a config file says that its keys start at the top."""
    return AT_TOP in path.read_text(encoding="utf-8", errors="replace")


def top_keys(path: Path) -> set[str]:
    """The keys at the top of a config file; none if it cannot be read."""
    try:
        return set(map(str, read_config(path)))
    except ConfigError:
        return set()


def search_path(folders: Sequence[Path]) -> list[str]:
    """The override that makes Hydra look into more folders; none for no folders."""
    named = ",".join(quote(f"file://{folder}") for folder in folders)
    return [f"hydra.searchpath=[{named}]"] if named else []


@contextmanager
def own_files(folders: Sequence[Path]) -> Iterator[None]:
    """Let the keys that a user's own choice sets win over the data's tuning, in the block.

    Args:
        folders: of configs, the shipped ones last; of two files of one name, Hydra is given the shipped one.
    """
    repo = ConfigStore.instance().repo
    before = repo.get(OWN)
    store_own_files([folders[-1], *folders[:-1]], folders[-1])
    try:
        yield
    finally:
        repo.pop(OWN, None)
        if before is not None:
            repo[OWN] = before


def store_own_files(folders: Sequence[Path], shipped: Path) -> None:
    """Let Hydra find the keys of each choice outside ``shipped`` once more, as ``OWN/GROUP/CHOICE``.

    The tuning is composed after the groups, as it replaces values of the shipped choices. ``train.yaml`` names
    ``OWN/GROUP/CHOICE`` after the tuning and before the recipe.

    Args:
        folders: of configs; of two files of one name, the first counts.
        shipped: the one of this package.
    """
    store = ConfigStore.instance()
    store.repo.pop(OWN, None)
    for group in TUNED:
        for choice in choices_of([folder for folder in folders if folder != shipped], group):
            if keys := own_keys(folders, shipped, group, choice):
                store.store(group=f"{OWN}/{group}", name=choice, node=keys)


def own_keys(folders: Sequence[Path], shipped: Path, group: str, choice: str) -> DictConfig:
    """The keys that a user's file sets, and those of the user's files that its defaults list names.

    Empty for a shipped choice, and for a file that cannot be read: if it is chosen, Hydra says so.
    """
    file = next((path for folder in folders if (path := folder / group / f"{choice}.yaml").is_file()), None)
    keys = OmegaConf.create({})
    if file is None or file.parent.parent == shipped:
        return keys
    with suppress(OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        content = OmegaConf.load(file)
        if isinstance(content, DictConfig) and "@package" not in file.read_text(encoding="utf-8").partition("\n")[0]:
            defaults = content.pop("defaults", [])
            below = [own_keys(folders, shipped, group, name) for name in defaults
                     if isinstance(name, str) and name != choice]  # fmt: skip
            return OmegaConf.merge(keys, *below, content)  # type: ignore[return-value]
    return keys


@contextmanager
def no_running_hydra() -> Iterator[None]:
    """Put away the Hydra that started this job, if one did: there can be only one in a process."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def hydra_value(value: Any) -> str:
    """``value`` in Hydra's grammar of overrides, as the command line takes it: Hydra reads the same value from it.

    Args:
        value: None, a bool, a number, a text, or lists and dicts of them. The keys of dicts are texts; Hydra reads one
            that is a number, or true, as that.

    Raises:
        ConfigError: the grammar cannot express a key of a dict: an empty one, or one with a quote or beyond ASCII.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_dict_key(str(key))}:{hydra_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value) if isinstance(value, int | float) else quote(str(value))


def _dict_key(key: str) -> str:
    """A key of a dict in Hydra's grammar, which has no quotes for it but a backslash before what means something.

    Raises:
        ConfigError: the grammar cannot express it.
    """
    if not re.fullmatch(r"[\w /.+%*@?|()\[\]{}:=,$-]+", key, re.ASCII):
        raise ConfigError(f"{key!r}: Hydra's command line has no way to write this as a key of a dict")
    return re.sub(r"([()\[\]{}:=, ])", r"\\\1", key)


def quote(value: str) -> str:
    """``value`` as a text in Hydra's grammar of overrides, in quotes if there is more in it than a plain path has."""
    plain = re.fullmatch(r"[\w/.:+-]+", value, re.ASCII) and not re.fullmatch(NO_TEXT, value, re.IGNORECASE)
    return value if plain else in_quotes(value)


def in_quotes(value: str) -> str:
    """``value`` as a text in Hydra's grammar, whatever is in it."""
    # A backslash stands for itself but before a quote, where the text ends, and before an interpolation.
    text = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), value)
    return f"'{text.replace('${', chr(92) + '${')}'"
