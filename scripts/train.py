"""Train a detector, evaluate it, and write everything to one folder.

python scripts/train.py
python scripts/train.py data=coco data.root=FOLDER
python scripts/train.py model=c4 roi=pool seed=3
"""

from detector.config.command_line import run
from detector.config.schema import Config


def main(config: Config) -> None:
    from detector.training.train import train  # Lightning takes seconds to import: not for --help or a wrong key

    train(config)


if __name__ == "__main__":
    run(Config, "train")(main)
