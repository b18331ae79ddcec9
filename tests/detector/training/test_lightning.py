"""What Lightning's counterparts of our own classes do: when one of these tests fails, ours may no longer be needed."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader


class Line(pl.LightningModule):
    """A linear layer that notes the steps at which it was evaluated, and cannot be evaluated after step ``broken``."""

    def __init__(self, broken=0):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.broken = broken
        self.evaluated = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        if self.trainer.global_step == self.broken:
            raise KeyError("broken")
        self.evaluated.append(self.trainer.global_step)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, callback, **more):
    trainer = pl.Trainer(accelerator="cpu", max_steps=8, max_epochs=-1, val_check_interval=2, num_sanity_val_steps=0,
                         check_val_every_n_epoch=None, logger=False, enable_progress_bar=False,
                         enable_model_summary=False, callbacks=[callback])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(torch.ones(8, 2)), DataLoader(torch.ones(1, 2)), **more)


def test_model_checkpoint_leaves_an_evaluation_out(tmp_path):
    """The evaluation after step 4 fails; the run that resumes from the checkpoint of step 4 does not repeat it."""
    callback = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KeyError):
        fit(Line(broken=4), callback)
    resumed = Line()
    fit(resumed, ModelCheckpoint(tmp_path), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    assert resumed.evaluated == [6, 8]


def test_csv_logger_deletes_what_is_there(tmp_path):
    for step in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger = CSVLogger(tmp_path, name="", version="")
            logger.log_metrics({"loss": 0.5}, step)
            logger.save()
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["0.5,2"]
