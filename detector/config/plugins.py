"""Folders of configs that other installed packages bring along: entry points of the group ``multiscale_rcnn.plugins``.

A package names its folder in its ``pyproject.toml``::

    [project.entry-points."multiscale_rcnn.plugins"]
    cells = "cell_recipes:configs"  # the folder cell_recipes/configs/; "cell_recipes" alone is the package itself
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from detector.exceptions import ConfigError

GROUP = "multiscale_rcnn.plugins"


def plugin_folders() -> list[Path]:
    """The folders of all plugin packages of this environment, in the order of their entry points' names.

    Nothing of a package is imported.

    Raises:
        ConfigError: an entry point names no folder.
    """
    return [_folder(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)]


def _folder(entry: EntryPoint) -> Path:
    package, *inside = (f"{entry.module}.{entry.attr}" if entry.attr else entry.module).split(".")
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations if spec else None) or []:
        folder = Path(location, *inside)
        if folder.is_dir():
            return folder.absolute()
    owner = entry.dist.name if entry.dist else "an installed package"
    raise ConfigError(
        f"the plugin {entry.name} of {owner} names no folder of configs: there is no {'/'.join([package, *inside])}/; "
        f"its entry point {GROUP} is {entry.value!r}. Mend or uninstall {owner}."
    )
