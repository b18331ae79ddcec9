"""Lightning's Tuner finds a learning rate of the module and a batch size of the data module."""

import sys

import pytorch_lightning as pl
from pytorch_lightning.tuner import Tuner

from detector import DetectionDataModule, DetectionModule

if __name__ == "__main__":
    data = DetectionDataModule(sys.argv[1])
    small = {"min_size": [64], "fpn_channels": 16, "head": {"width": 16}}
    module = DetectionModule({"model": small, "optim": {"warmup_steps": 0}}, data.class_names)
    trainer = pl.Trainer(max_steps=15, max_epochs=-1, limit_val_batches=0, logger=False)
    tuner = Tuner(trainer)
    size = tuner.scale_batch_size(module, datamodule=data, steps_per_trial=1, init_val=1, max_trials=2)
    found = tuner.lr_find(module, datamodule=data, num_training=15, early_stop_threshold=None)
    trainer.fit(module, data)
    rates = [group["initial_lr"] for group in trainer.optimizers[0].param_groups]
    print(size, data.batch_size, len(found.results["lr"]), module.lr == found.suggestion(), max(rates) == module.lr)
