"""Checkpoints of a plain Trainer, read by Lightning and by `detector.load`; initial weights are read once."""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torchvision.models import mobilenet_v2

import detector

if __name__ == "__main__":
    torch.save(mobilenet_v2().state_dict(), "start.pth")
    config = {"model": {"weights": "start.pth", "min_size": [64]}}
    module = detector.DetectionModule(config, ["dark", "bright"])
    data = detector.DetectionDataModule(sys.argv[1])
    trainer = pl.Trainer(max_steps=2, limit_val_batches=0, logger=False, enable_checkpointing=False)
    trainer.fit(module, data)
    trainer.save_checkpoint("mine.ckpt")
    Path("start.pth").unlink()
    again = detector.DetectionModule.load_from_checkpoint("mine.ckpt").eval()
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        (found,) = module.eval()([image])
        assert torch.equal(again([image])[0]["boxes"], found["boxes"])
    assert torch.equal(detector.load("mine.ckpt", "cpu")(image)[0].boxes, found["boxes"])
    print(again.class_names, again.category_ids, again.config.model.min_size)
