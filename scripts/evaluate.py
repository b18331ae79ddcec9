"""Score a checkpoint or a COCO results file: the twelve COCO numbers, each class, a picture of the predictions.

    python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt
    python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt annotations=GT.json images=FOLDER
    python scripts/evaluate.py annotations=GT.json predictions=DETECTIONS.json
"""

from rich.console import Console

from detector.cli import run
from detector.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from detector.evaluation.run import evaluate_from_config  # PyTorch takes seconds to import: not for --help

    result, folder = evaluate_from_config(config)
    console = Console()
    console.print(result)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    console.print(f"\nResults are in {folder}: {files}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run(EvaluateConfig, "evaluate")(main)
