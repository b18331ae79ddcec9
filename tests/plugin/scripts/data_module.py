"""The data module with somebody else's LightningModule, torchvision's detector, and torchvision's transforms."""

import sys

import pytorch_lightning as pl
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms import v2

from detector import DetectionDataModule


class Torchvision(pl.LightningModule):
    def __init__(self, classes):
        super().__init__()
        size = {"min_size": 64, "weights": None, "weights_backbone": None}
        self.model = fasterrcnn_mobilenet_v3_large_320_fpn(num_classes=classes + 1, **size)

    def training_step(self, batch, batch_idx):
        return sum(self.model(*batch).values())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


if __name__ == "__main__":
    data = DetectionDataModule(sys.argv[1], transform=v2.Compose([v2.RandomHorizontalFlip(), v2.RandomZoomOut()]))
    trainer = pl.Trainer(max_epochs=2)
    trainer.fit(Torchvision(len(data.class_names)), data)
    print(trainer.global_step)
