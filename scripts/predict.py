"""Find objects in images or a video: pictures with boxes, COCO results, a CSV table.

python scripts/predict.py checkpoint=RUN source=IMAGE|FOLDER|VIDEO
python scripts/predict.py checkpoint=RUN source='photos/*.jpg' draw_thresh=0.7
"""

from detector.config.command_line import run
from detector.config.schema import PredictConfig


def main(config: PredictConfig) -> None:
    from detector.inference.predict import predict  # PyTorch takes seconds to import: not for --help
    from detector.outcome import show

    show(predict(config))


if __name__ == "__main__":
    run(PredictConfig, "predict")(main)
