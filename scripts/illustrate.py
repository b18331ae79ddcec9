"""Draw the RoI operators: cells, bins, samples with their neighbours and weights, results; a box that moves.

python scripts/illustrate.py
python scripts/illustrate.py figure=motion output_dir=FOLDER
python scripts/illustrate.py figure=image image=PHOTO.jpg image_box=[100,50,300,250] checkpoint=RUN
"""

from detector.config.command_line import run
from detector.config.schema import IllustrateConfig


def main(config: IllustrateConfig) -> None:
    from detector.illustrate.draw_figures import illustrate

    for path in illustrate(config):
        print(path)


if __name__ == "__main__":
    run(IllustrateConfig, "illustrate")(main)
