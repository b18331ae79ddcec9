"""Our callbacks in a plain Trainer with somebody else's module; Ctrl-C, and the training goes on where it stopped."""

import os
import signal

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from detector.training import callbacks as ours


class Model(BoringModel):
    def validation_step(self, batch, batch_idx):
        self.log("val/error", self.step(batch))


def fit(module, resume=None):
    watch = [ours.Guard(clip_norm=1.0), ours.Monitor(), ours.ProgressDisplay(), ours.AveragedWeights(0.9)]
    watch += [ours.Checkpoints("kept", monitor="val/error", mode="min"), ours.Interrupt()]
    trainer = pl.Trainer(max_epochs=3, callbacks=watch, limit_train_batches=4, enable_progress_bar=False)
    trainer.fit(module, ckpt_path=resume, weights_only=True)


stopped, resumed = Model(), Model()
stopped.on_train_batch_start = lambda *args: stopped.global_step == 2 and os.kill(os.getpid(), signal.SIGINT)
try:
    fit(stopped)
except ours.Interruption as interruption:
    fit(resumed, resume="kept/last.ckpt")
    print(interruption, resumed.global_step)
