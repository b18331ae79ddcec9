"""Compare runs on the same images: what the later ones have more or less than the first, and in which images.

    python scripts/compare.py RUN_A RUN_B
    python scripts/compare.py A.json B.json C.json annotations=GT.json images=FOLDER
"""

from rich.console import Console

from detector.cli import run
from detector.config import CompareConfig


def main(config: CompareConfig) -> None:
    from detector.evaluation.compare import compare_from_config  # takes seconds to import: not for --help

    outcome = compare_from_config(config)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(outcome)
    files = ", ".join(sorted(path.name for path in outcome.folder.iterdir() if not path.name.startswith(".")))
    console.print(f"\nResults are in {outcome.folder}: {files}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run(CompareConfig, "compare", positional="runs")(main)
