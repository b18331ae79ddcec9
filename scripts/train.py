"""Train a detector, evaluate it, and write everything to one folder.

python scripts/train.py
python scripts/train.py data=coco data.root=FOLDER
python scripts/train.py model=c4 roi=pool seed=3
python scripts/train.py --multirun hparams=finetune data=coco data.root=FOLDER
"""

from detector.config.command_line import run
from detector.config.schema import Config


def main(config: Config) -> float:
    from detector.training.train import train  # Lightning takes seconds to import: not for --help or a wrong key

    return train(config).objective  # what a sweep maximises


if __name__ == "__main__":
    run(Config, "train")(main)
