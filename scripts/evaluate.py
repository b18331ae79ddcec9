"""Score a checkpoint or a COCO results file, say what is wrong with the detections, and write a report.

    python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt
    python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt annotations=GT.json images=FOLDER
    python scripts/evaluate.py annotations=GT.json predictions=DETECTIONS.json images=FOLDER
"""

from rich.console import Console

from detector.cli import run
from detector.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from detector.evaluation.findings import findings
    from detector.evaluation.run import evaluate_from_config  # PyTorch takes seconds to import: not for --help
    from detector.evaluation.tables import error_table, operating_table

    result, analysis, folder = evaluate_from_config(config)
    console = Console()
    console.print(result)
    if analysis:
        console.print(error_table(analysis), operating_table(analysis))
        for sentence in findings(analysis):
            console.print(f"- {sentence}", markup=False, highlight=False)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    console.print(f"\nResults are in {folder}: {files}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run(EvaluateConfig, "evaluate")(main)
