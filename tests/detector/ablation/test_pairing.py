"""Runs of one seed are pairs: equal initial weights, equal batches, equal augmentation, at every level."""

import hashlib

import pytest
import pytorch_lightning as pl
import torch
from studies import TINY

from detector.data.datamodule import DetectionDataModule
from detector.models.seeding import seed_of
from detector.training.module import DetectionModule

BATCHES = 3


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def start_of(config):
    """Hashes of the initial weights and of the first batches, images and targets, as ``train`` makes them; and the
    random draws of the first steps."""
    data = DetectionDataModule(config.data, config.augment, config.seed)
    data.prepare_data()
    data.setup()
    pl.seed_everything(config.seed, verbose=False)
    module = DetectionModule(config, data.class_names, data.category_ids)
    batches = [
        digest([*images, *(value for target in targets for _, value in sorted(target.items()))])
        for images, targets in map(data.training_batch, range(BATCHES))
    ]
    assert len(batches) == BATCHES
    return digest(module.state_dict().values()), batches, module


@pytest.mark.parametrize("model", ["c4", "fpn"])
def test_weights_and_batches_are_equal_at_all_levels(make_study, model):
    anchors = {"model.anchors.sizes": [[8], [16], [24], [32], [48]]} if model == "fpn" else {}
    common = {**TINY, **anchors, "data": "shapes", "augment": "strong", "model": model}
    study = make_study(
        factors={"roi": ["pool", "align", "align_aligned", "align_max", "prroi", "torchvision_align"]},
        seeds=[0, 1],
        common=common,
    )
    starts = {(cell.levels["roi"], cell.seed): start_of(cell.config)[:2] for cell in study.cells}
    for seed in (0, 1):
        assert len({str(start) for (_, s), start in starts.items() if s == seed}) == 1
    weights, batches = zip(starts["pool", 0], starts["pool", 1], strict=True)
    assert weights[0] != weights[1]  # the hashes see what they are to see
    assert batches[0] != batches[1]
    assert len(set(batches[0])) == BATCHES


def test_no_operator_draws_random_numbers(make_study):
    """After a training step from equal states the generators are equal too, so the next step samples alike."""
    study = make_study(factors={"roi": ["pool", "align", "align_max", "prroi"]}, seeds=[0],
                       common={**TINY, "data": "shapes", "model": "c4"})  # fmt: skip
    states = set()
    for cell in study.cells:
        _, _, module = start_of(cell.config)
        data = DetectionDataModule(cell.config.data, cell.config.augment, 0)
        data.setup()
        batch = next(iter(data.train_dataloader()))
        torch.manual_seed(seed_of(0, 0, 0))
        sum(module.model(*batch).values()).backward()
        states.add(digest([torch.get_rng_state()]))
    assert len(states) == 1
