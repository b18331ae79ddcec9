"""The module with a plain Trainer, a plain loader, and Lightning's own callbacks and logger."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger

from detector import DetectionModule


def sample(number):
    image = torch.rand(3, 64, 64)
    image[:, 10:40, 8:44] = number % 2
    return image, {"boxes": torch.tensor([[8.0, 10.0, 44.0, 40.0]]), "labels": torch.tensor([1 + number % 2])}


if __name__ == "__main__":
    torch.manual_seed(0)
    collate = lambda items: tuple(zip(*items, strict=True))
    loader = torch.utils.data.DataLoader([sample(n) for n in range(6)], batch_size=2, collate_fn=collate)
    module = DetectionModule({"model": {"min_size": [64]}, "optim": {"warmup_steps": 2}}, ["dark", "bright"])
    best = ModelCheckpoint(monitor="val/AP", mode="max")
    watch = [best, EarlyStopping("val/loss"), LearningRateMonitor(), RichProgressBar()]
    trainer = pl.Trainer(max_epochs=2, callbacks=watch, logger=CSVLogger("logs"), log_every_n_steps=1)
    trainer.fit(module, loader, loader)
    trainer.validate(module, loader)
    trainer.test(module, loader, ckpt_path="best", weights_only=True)
    boxes = trainer.predict(module, loader)
    print(trainer.global_step, best.best_model_path, len(boxes), sorted(boxes[0][0]))
