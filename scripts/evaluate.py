"""Score a checkpoint or a COCO results file, say what is wrong with the detections, and write a report.

python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt
python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt annotations=GT.json images=FOLDER
python scripts/evaluate.py annotations=GT.json predictions=DETECTIONS.json images=FOLDER
"""

from detector.config.command_line import run
from detector.config.schema import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    from detector.evaluation.evaluate import evaluate_from_config  # PyTorch takes seconds to import: not for --help
    from detector.outcome import show

    show(evaluate_from_config(config))


if __name__ == "__main__":
    run(EvaluateConfig, "evaluate")(main)
