"""Write a detector as ONNX or as an exported PyTorch program, and check that it finds the same.

python scripts/export.py checkpoint=RUN format=onnx
python scripts/export.py checkpoint=RUN format=torch_export image_size=[480,640] images=PHOTOS
"""

from detector.config.command_line import run
from detector.config.schema import ExportConfig


def main(config: ExportConfig) -> None:
    from detector.export.export_model import export  # PyTorch takes seconds to import: not for --help

    made = export(config)
    for name, result in made.parity.items():
        print(f"{name}  {result}")
    print(f"Results are in {', '.join(str(file) for file in made.files)}")


if __name__ == "__main__":
    run(ExportConfig, "export")(main)
