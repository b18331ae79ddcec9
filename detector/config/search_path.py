"""Our configs in the applications of others: the plugin that ``hydra_plugins/multiscale_rcnn`` hands to Hydra."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

import detector.config.schema  # noqa: F401  the resolver `detector.case`, which the configs use
from detector.config.commands import configs_folder
from detector.config.composition import store_own_files
from detector.config.plugins import plugin_folders
from detector.exceptions import ConfigError

PROVIDER = "multiscale-rcnn"


class MultiscaleRcnnSearchPath(SearchPathPlugin):
    """Puts ``configs/`` and the folders of plugin packages behind the configs of the application, which win.

    What an application's own choices of ``model``, ``roi``, ``optim`` and ``trainer`` set wins over the data's tuning,
    as it does with ``--config-dir``.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes."""
        shipped = configs_folder()
        own = [folder for element in search_path.get_path() if element.provider == "main"
               for folder in [folder_of(element.path)] if folder]  # fmt: skip
        if shipped in own:
            return  # one of our commands, which says itself where to look
        folders = [shipped]
        with suppress(ConfigError):  # a plugin package with a mistake is not the application's
            folders = [*plugin_folders(), shipped]
        store_own_files([*own, *folders], shipped)
        for folder in folders:
            search_path.append(PROVIDER, f"file://{folder}")


def folder_of(path: str) -> Path | None:
    """The folder that an element of Hydra's search path means; None if it is none on disk."""
    scheme, _, rest = path.rpartition("://")
    if scheme in ("", "file"):
        return Path(rest).absolute()
    if scheme == "pkg":
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(rest.replace("/", "."))
            for location in (spec.submodule_search_locations if spec else None) or []:
                return Path(location)
    return None
