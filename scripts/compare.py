"""Compare runs on the same images: what the later ones have more or less than the first, and in which images.

python scripts/compare.py RUN_A RUN_B
python scripts/compare.py A.json B.json C.json annotations=GT.json images=FOLDER
"""

from detector.config.command_line import run
from detector.config.schema import CompareConfig


def main(config: CompareConfig) -> None:
    from detector.evaluation.compare import compare_from_config  # takes seconds to import: not for --help
    from detector.outcome import show

    show(compare_from_config(config))


if __name__ == "__main__":
    run(CompareConfig, "compare", positional="runs")(main)
