"""What ``--help`` of a script prints."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector.config.checks import known_keys
from detector.config.commands import command
from detector.config.composition import default_choices, first_comment
from detector.config.overrides import Configs


def help_text(function: Callable[..., Any], configs: Configs, config_name: str) -> str:
    """The docstring of a script, and the groups with their choices, as their files begin.

    Args:
        function: of the script.
        configs: that its command line chooses from.
        config_name: its primary config.
    """
    module = sys.modules.get(function.__module__)
    shipped, here = configs.folders[-1], Path.cwd()
    about = inspect.cleandoc(module.__doc__ or "") if module else ""
    lines = [re.sub(r"python scripts/(\w+)\.py", lambda found: command(found[1]), about), ""]
    chosen = default_choices(shipped, config_name)
    if "data" in chosen:
        chosen["tuning@_global_"] = None  # data chooses it
    for key, default in chosen.items():
        group = key.partition("@")[0]
        if choices := configs.choices(group):
            lines.append(f"{group}:")
        for choice in choices:
            mark = " (default)" if choice == default else ""
            about = first_comment(configs.folders, group, choice)
            lines.append(f"  {key + '=' + choice + mark:<34} {about}".rstrip())
    if len(lines) > 2:
        lines.append("")
    keys = [k for k in known_keys(configs.schema) if "." in k] or known_keys(configs.schema)
    lines += [
        f"Any key can be set: {command(Path(inspect.getfile(function)).stem)} KEY=VALUE ... "
        f"({', '.join([*keys[:2], '...'])})",
        f"--cfg job --resolve prints all keys and their values; the files in "
        f"{shipped.relative_to(here) if shipped.is_relative_to(here) else shipped}/ explain each of them",
        "--multirun KEY=A,B runs once for each value",
    ]
    return "\n".join(lines)
