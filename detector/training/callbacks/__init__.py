"""Lightning callbacks, one a file, for any Trainer; docs/lightning.md shows each in use.

``train.py`` lists them in the order in which their hooks run. What happens in a training step, in this order:

1. ``DetectionModule.training_step`` computes the losses of a batch.
2. ``Guard.on_before_backward`` checks them, and the norm of the gradients of the step before.
3. Backward. Step 4 follows after every ``optim.accumulate`` batches, whose gradients are added up; step 5 after each.
4. ``Guard.on_before_optimizer_step`` clips the gradients. The optimiser steps, then the schedule of the learning rate.
5. ``on_train_batch_end`` of the callbacks: ``Monitor`` logs, ``ProgressDisplay`` draws, ``SkippedImages`` notes,
   ``AveragedWeights`` moves the average, ``Checkpoints`` writes ``last.ckpt`` if it is due, ``Interrupt`` ends the run
   after a signal, ``Profile`` takes the time.
6. If an evaluation is due, Lightning runs it: averaged weights are put in, ``DetectionModule`` collects detections, the
   newest weights are put back, the detections are scored, ``Checkpoints`` keeps the best as ``best.ckpt``.
"""

from detector.training.callbacks.averaged_weights import AveragedWeights
from detector.training.callbacks.checkpoints import Checkpoints, Schedule
from detector.training.callbacks.guard import Guard
from detector.training.callbacks.interrupt import Interrupt, Interruption
from detector.training.callbacks.monitor import Monitor
from detector.training.callbacks.prediction_sheet import PredictionSheet
from detector.training.callbacks.profile import Profile
from detector.training.callbacks.progress import ProgressDisplay
from detector.training.callbacks.skipped_images import SkippedImages

__all__ = [
    "AveragedWeights",
    "Checkpoints",
    "Guard",
    "Interrupt",
    "Interruption",
    "Monitor",
    "PredictionSheet",
    "Profile",
    "ProgressDisplay",
    "Schedule",
    "SkippedImages",
]
