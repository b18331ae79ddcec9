"""Look at a data set before training on it: what is in it, what is wrong with it, and whether the anchors fit.

    python scripts/inspect_data.py data=coco data.root=DIR
    python scripts/inspect_data.py data=coco data.root=DIR fix=DIR/clean.json fix_val=DIR/clean_val.json

It takes the arguments of train.py as well, and inspects what would be trained on.
"""

from detector.config.command_line import given_keys, run
from detector.config.schema import InspectConfig
from detector.exceptions import DataError


def main(config: InspectConfig) -> None:
    from detector.inspection.inspect_data import inspect_from_config  # PyTorch takes seconds to import: not for --help
    from detector.outcome import show

    found = inspect_from_config(config, given_keys())
    show(found)
    if found.refused:
        raise DataError("\n".join(found.refused))


if __name__ == "__main__":
    run(InspectConfig, "inspect_data")(main)
