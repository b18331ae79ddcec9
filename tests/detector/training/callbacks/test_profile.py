"""The phases of a step: whose time is counted where."""

import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from detector.training.callbacks.profile import WARM, Profile

PAUSE = 0.05  # seconds


class OneWeight(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        time.sleep(3 * PAUSE)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Slow(pl.Callback):
    """Takes its time at the end of each batch, as a checkpoint does."""

    def on_train_batch_end(self, *args, **kwargs):
        time.sleep(PAUSE)


def test_what_other_callbacks_do_is_no_waiting_for_data(tmp_path):
    """Two batches are measured, with an evaluation between them that belongs to no phase."""
    profile = Profile(tmp_path, 2, print)
    data = DataLoader(torch.ones(2 * (WARM + 2), 2), batch_size=2)
    trainer = pl.Trainer(
        max_steps=WARM + 2, callbacks=[Slow(), profile], logger=False, enable_checkpointing=False, accelerator="cpu",
        val_check_interval=WARM + 1, check_val_every_n_epoch=None, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(OneWeight(), data, DataLoader(torch.ones(1, 2)))
    assert profile.done == 2
    assert profile.seconds["optimiser, callbacks"] >= 2 * PAUSE
    assert profile.seconds["data"] < PAUSE
