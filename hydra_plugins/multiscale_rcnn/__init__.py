"""What Hydra finds when it looks for its plugins: the groups of configs of this package, for any application.

There is no ``__init__.py`` above this folder: ``hydra_plugins`` is shared by the plugins of all packages.
"""

try:
    from detector.config.search_path import MultiscaleRcnnSearchPath
except ModuleNotFoundError as error:
    # An application with a package `detector` of its own hides ours, and does without its configs.
    if not str(error.name).startswith("detector"):
        raise
else:
    __all__ = ["MultiscaleRcnnSearchPath"]
