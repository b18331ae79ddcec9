"""Mean losses over batches: by hand, and whatever process had which batch."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from detector.evaluation.detections import Detections
from detector.training.validation import BatchOutcome, gather, mean_losses, true_boxes


def outcome(ids, **losses):
    return BatchOutcome(Detections.empty(ids), losses)


def test_images_weigh_alike():
    """(2 x 1 + 1 x 4) / 3 and (2 x 0.5 + 1 x 0.2) / 3."""
    means = mean_losses([outcome([1, 2], a=1.0, b=0.5), outcome([3], a=4.0, b=0.2)])
    assert means == {"loss": pytest.approx(2 + 1.2 / 3), "a": pytest.approx(2.0), "b": pytest.approx(0.4)}
    assert mean_losses([outcome([1])]) == mean_losses([]) == {}


def test_images_that_come_again_do_not_count():
    once = [outcome([1, 2], a=1.0), outcome([3, 4], a=3.0)]
    assert mean_losses([*once, outcome([1], a=100.0)]) == mean_losses(once)
    half = mean_losses([*once, outcome([4, 5], a=7.0)])  # of the last batch one image is new
    assert half["a"] == pytest.approx((2 * 1 + 2 * 3 + 7) / 5)


def test_the_order_of_the_batches_makes_no_difference():
    """Summed one by one, these would differ in their last digits."""
    numbers = [1e16, 1.0, 0.1, 3e-9]
    batches = [outcome([2 * n, 2 * n + 1], a=number) for n, number in enumerate(numbers)]
    means = {mean_losses(order)["a"] for order in itertools.permutations(batches)}
    assert len(means) == 1
    assert sum(numbers) != sum(reversed(numbers))


def test_one_process_has_all_there_is():
    own = [outcome([1])]
    assert gather(own, SimpleNamespace(world_size=1)) is own


def test_true_boxes_of_a_batch():
    target = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([1]), "iscrowd": torch.tensor([1]), "name": "x"}
    parts = true_boxes([torch.zeros(3, 4, 5)], [target], [9])
    assert parts["sizes"] == {9: (4, 5)}
    assert sorted(parts["targets"][9]) == ["boxes", "iscrowd", "labels"]
