"""What a run says when it begins: its learning rate, and what is legal and mostly a mistake."""

import pytest
from test_recipes import composed

from detector.config import OptimConfig
from detector.training.announce import notes, rate


@pytest.mark.parametrize(
    ("name", "batch", "line"),
    [
        ("sgd", 2, "lr 0.0025 = 0.02 x 2/16 (optim.lr is for steps of 16 images, these are of 2)"),
        ("adamw", 64, "lr 0.04 = 0.02 x sqrt(64/16) (optim.lr is for steps of 16 images, these are of 64)"),
        ("sgd", 16, "lr 0.02"),
    ],
)
def test_rate_says_how_it_comes_about(name, batch, line):
    assert rate(OptimConfig(name=name, lr=0.02, base_batch=16), batch) == line


def test_rate_for_any_number_of_images_stands_alone():
    assert rate(OptimConfig(lr=0.0005), 4) == "lr 0.0005"


def test_random_weights_on_photographs_are_said_and_what_to_do():
    (note,) = notes(composed("data=coco", "model.weights=none", "model.norm=batch"), 10)
    assert "random weights" in note
    assert "model.weights=IMAGENET1K_V2" in note
    assert notes(composed("data=coco"), 10) == []
    assert notes(composed(), 10) == []


def test_frozen_random_weights_and_short_runs_are_said():
    config = composed("model.norm=frozen", "model.trainable_stages=3", "trainer.max_steps=50")
    frozen, stages, short = notes(config, 0.5)
    assert "model.norm=batch" in frozen
    assert "model.trainable_stages=3" in stages
    assert "trainer.epochs" in short
