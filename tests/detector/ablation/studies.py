"""Settings of tiny studies, and runs that only pretend to train."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from detector.ablation.cell_run import run_cell
from detector.evaluation.scoring import evaluate

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = [ROOT / "configs"]
TINY = {
    "data.shapes.train_images": 6, "data.shapes.val_images": 4, "data.shapes.image_size": 64,
    "data.shapes.max_object": 40, "data.batch_size": 2, "data.workers": 0, "model.min_size": [64],
    "model.anchors.sizes": [[8, 16, 24, 32, 48]], "model.head.width": 16, "model.fpn_channels": 16,
    "trainer.max_steps": 2, "trainer.eval_every": 0, "trainer.log_every": 1, "trainer.accelerator": "cpu",
    "optim.warmup_steps": 1, "logger.tensorboard": False, "logger.sheet_images": 0,
}  # fmt: skip


class FakeTraining:
    """Writes what a training leaves behind; detections are the objects, moved by an amount that depends on level
    and seed. ``fail`` is asked for each configuration whether its run fails."""

    def __init__(self, fail=lambda config: False):
        self.fail = fail
        self.calls = []

    def train(self, config):
        from detector.data.shapes import ensure_shapes
        from detector.evaluation.detections import Detections

        self.calls.append((config.roi.kind, config.seed))
        if self.fail(config):
            raise RuntimeError("pretended failure")
        folder = Path(config.run_dir)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "best.ckpt").write_text("weights")
        annotations = ensure_shapes(Path(config.data.root), config.data.shapes) / "val.json"
        content = json.loads(annotations.read_text())
        rng = np.random.default_rng([config.seed, len(config.roi.kind)])
        size = 1.5 if config.roi.kind == "pool" else 0.7
        found = [{"image_id": a["image_id"], "category_id": a["category_id"], "score": float(rng.uniform()),
                  "bbox": [a["bbox"][0] + float(rng.normal(0, size)), a["bbox"][1] + float(rng.normal(0, size)),
                           *a["bbox"][2:]]} for a in content["annotations"]]  # fmt: skip
        (folder / "predictions.json").write_text(json.dumps(found))
        (folder / "metrics.csv").write_text("step,train/images_per_s\n1,5.0\n2,20.0\n3,22.0\n")
        result = evaluate(annotations, Detections.from_json(folder / "predictions.json"))
        return SimpleNamespace(folder=folder, result=result, best_step=2, steps=2, seconds=60.0,
                               checkpoint=folder / "checkpoints" / "best.ckpt")  # fmt: skip

    @staticmethod
    def measure(best):
        return {"forward_ms": 1.0, "backward_ms": 2.0, "inference_ms": 10.0, "peak_memory_mb": 500.0}

    def run(self, study):
        """Do every cell that has no record, in this process."""
        for cell in study.cells:
            if not cell.record:
                cell.write(study.config)
                run_cell(cell.folder, self.train, self.measure)
