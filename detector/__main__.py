"""``python -m detector COMMAND ...``: runs ``scripts/COMMAND.py``, also where the package is installed without a clone.

python -m detector train data=coco data.root=FOLDER
python -m detector train --help

An installed package has the same as ``multiscale-rcnn COMMAND ...``.
"""

from __future__ import annotations

import difflib
import os
import runpy
import sys
from pathlib import Path

from detector.config.commands import CONSOLE, names, scripts_folder

WRONG_USE = 2  # exit code


def main(arguments: list[str]) -> int:
    """Run the script that the first of ``arguments`` names with the others; 2 if there is none of that name."""
    folder = scripts_folder()
    known = names(folder)
    words = f"{os.environ.get(CONSOLE) or 'python -m detector'} COMMAND"
    usage = f"{words} ..., where COMMAND is one of {', '.join(known)}; COMMAND --help says more"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else WRONG_USE
    name, *others = arguments
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(f"error: there is no command {name!r}: {hint}{usage}", file=sys.stderr)
        return WRONG_USE
    file = str(folder / f"{name}.py")
    sys.argv = [file, *others]
    runpy.run_path(file, run_name="__main__")
    return 0


def console() -> int:
    """The console command ``multiscale-rcnn``."""
    os.environ[CONSOLE] = Path(sys.argv[0]).name  # also for the processes that this one starts
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
