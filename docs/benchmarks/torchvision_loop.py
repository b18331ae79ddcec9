"""A plain torchvision fine-tuning loop, the peer of docs/benchmarks/small_data.md: what a user writes who follows
torchvision's tutorial on detection. Nothing of this project is used.

    python docs/benchmarks/torchvision_loop.py DIR --weights FILE --steps 100 --seed 0 --out result.json

DIR holds train.json, val.json and images/. FasterRCNN on MobileNetV2 features, batch norm and first blocks frozen
as by trainable_layers=3, a pyramid of strides 4 to 64 with torchvision's default anchors, horizontal flips, two images
per step, SGD with 0.005 and momentum 0.9, a warm-up, and a drop of the rate after two thirds.
"""

import argparse
import contextlib
import io
import json
import time
from pathlib import Path

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d

LAYERS = {"3": "0", "6": "1", "13": "2", "17": "3"}  # the last block of each stride from 4 to 32
CHANNELS = [24, 32, 96, 320]
FROZEN = 4  # blocks up to stride 4


class CocoImages(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The images of a COCO file that have a box."""

    def __init__(self, root: Path, split: str):
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(root / f"{split}.json"))
        self.folder = root / "images"
        self.ids = [i for i in sorted(self.coco.imgs) if split != "train" or self.coco.getAnnIds(i, iscrowd=False)]
        self.labels = {category: label for label, category in enumerate(sorted(self.coco.cats), 1)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        number = self.ids[index]
        image = decode_image(str(self.folder / self.coco.imgs[number]["file_name"]), ImageReadMode.RGB) / 255
        objects = self.coco.loadAnns(self.coco.getAnnIds(number, iscrowd=False))
        objects = [a for a in objects if min(a["bbox"][2:]) > 0]
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self.labels[a["category_id"]] for a in objects], dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels, "image_id": torch.tensor(number)}


def build(classes: int, weights: str, sides: dict[str, int]) -> FasterRCNN:
    """The detector; ``sides`` are torchvision's min_size and max_size, if they are not to be its defaults."""
    network = mobilenet_v2(norm_layer=FrozenBatchNorm2d)
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, strict=False)
    for block in network.features[:FROZEN]:
        block.requires_grad_(False)
    backbone: nn.Module = BackboneWithFPN(network.features, LAYERS, CHANNELS, 256)
    mean = [0.5, 0.5, 0.5]  # of the weights
    return FasterRCNN(backbone, num_classes=classes, image_mean=mean, image_std=mean, **sides)


def train(model: FasterRCNN, data: CocoImages, steps: int, batch: int) -> None:
    """``steps`` of SGD."""
    together = lambda rows: tuple(zip(*rows, strict=True))
    loader = DataLoader(data, batch, shuffle=True, drop_last=True, collate_fn=together)
    used = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(used, lr=0.005, momentum=0.9, weight_decay=0.0005)
    warmup = max(min(steps // 5, 100), 1)
    rate = lambda step: min((step + 1) / warmup, 1) * (0.1 if step >= steps * 2 / 3 else 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    step = 0
    model.train()
    while step < steps:
        for images, targets in loader:
            images, targets = list(images), [dict(t) for t in targets]
            for i, target in enumerate(targets):
                if torch.rand(()) < 0.5:
                    images[i], width = images[i].flip(-1), images[i].shape[-1]
                    target["boxes"] = target["boxes"][:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1.0])
                    target["boxes"][:, [0, 2]] += width
            loss = sum(model(images, targets).values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if step == steps:
                return


@torch.no_grad()
def evaluate(model: FasterRCNN, data: CocoImages) -> tuple[float, float]:
    """AP and AP50 by pycocotools."""
    model.eval()
    categories = {label: category for category, label in data.labels.items()}
    found = []
    for image, target in data:
        output = model([image])[0]
        corners = output["boxes"]
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
        for box, label, score in zip(boxes, output["labels"].tolist(), output["scores"].tolist(), strict=True):
            found.append({"image_id": int(target["image_id"]), "category_id": categories[label],
                          "bbox": box, "score": score})  # fmt: skip
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        scored = COCOeval(data.coco, data.coco.loadRes(found), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(scored.stats[0]), float(scored.stats[1])


def main() -> None:
    """Train, evaluate, write the numbers."""
    parser = argparse.ArgumentParser(description="A plain torchvision fine-tuning loop.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", required=True, help="state dict of torchvision's mobilenet_v2, inputs of -1..1")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=2, help="images per step")
    parser.add_argument("--min-size", type=int, default=0, help="short side in pixels; 0: torchvision's 800")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    start, start_cpu = time.perf_counter(), time.process_time()
    data, held_out = CocoImages(given.root, "train"), CocoImages(given.root, "val")
    sides = {"min_size": given.min_size, "max_size": 2 * given.min_size} if given.min_size else {}
    model = build(len(data.labels) + 1, given.weights, sides)
    train(model, data, given.steps, given.batch)
    trained = time.process_time() - start_cpu
    ap, ap50 = evaluate(model, held_out)
    result = {"AP": ap, "AP50": ap50, "seconds": time.perf_counter() - start,
              "cpu_seconds": time.process_time() - start_cpu, "training_cpu_seconds": trained,
              "steps": given.steps, "min_size": given.min_size, "seed": given.seed}  # fmt: skip
    given.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
