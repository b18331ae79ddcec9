"""Mean losses over batches: by hand, and whatever process had which batch."""

import functools
import itertools
import operator
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.evaluation.detections import Detections
from detector.exceptions import DataError
from detector.training.validation import BatchOutcome, ImageIds, gather, mean_losses, true_boxes


def outcome(ids, **losses):
    return BatchOutcome(Detections.empty(ids), losses)


def test_ids_of_images():
    """As a distributed sampler deals them out: images 1, 3, 5 of the second of two processes."""
    numbers = ImageIds(rank=1, world_size=2, needed=False)
    assert numbers.of([{}, {}]) + numbers.of([{}]) == [1, 3, 5]
    named = ImageIds(0, 1, needed=True)
    given = [7, np.int64(8), torch.tensor(9), torch.tensor([10])]
    found = named.of([{"image_id": value} for value in given])
    assert found == [7, 8, 9, 10]
    assert {type(value) for value in found} == {int}


@pytest.mark.parametrize("value", ["a.jpg", "12", 1.5, torch.tensor(2.0), torch.tensor([1, 2]), None])
def test_ids_that_are_no_whole_numbers(value):
    with pytest.raises(DataError, match="image_id") as caught:
        ImageIds(0, 1, needed=False).of([{"image_id": value}])
    shown = value.tolist() if isinstance(value, torch.Tensor) else value
    assert str(shown) in str(caught.value)


@pytest.mark.parametrize("batches", [[[1, None]], [[None, 0]], [[0, 1], [None]], [[None], [3]]])
def test_ids_of_some_images_only(batches):
    ids = ImageIds(0, 1, needed=False)
    *fine, wrong = [[{} if value is None else {"image_id": value} for value in batch] for batch in batches]
    for batch in fine:
        ids.of(batch)
    with pytest.raises(DataError, match="image_id"):
        ids.of(wrong)


@pytest.mark.parametrize(("rank", "processes", "named", "count"), [(0, 2, False, 1), (1, 2, False, 0), (0, 1, False, 0),
                                                                   (0, 2, True, 0)])  # fmt: skip
def test_images_that_may_count_twice_are_said_once(rank, processes, named, count):
    ids = ImageIds(rank, processes, needed=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            ids.of([{"image_id": number} if named else {}])
    assert sum("image_id" in str(w.message) for w in caught) == count


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
    one_by_one = functools.partial(functools.reduce, operator.add)  # Python 3.12 has a better sum
    assert one_by_one(numbers) != one_by_one(numbers[::-1])


def test_one_process_has_all_there_is():
    own = [outcome([1])]
    assert gather(own, SimpleNamespace(world_size=1)) is own


def test_true_boxes_of_a_batch():
    target = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([1]), "iscrowd": torch.tensor([1]), "name": "x"}
    parts = true_boxes([torch.zeros(3, 4, 5)], [target], [9])
    assert parts["sizes"] == {9: (4, 5)}
    assert sorted(parts["targets"][9]) == ["boxes", "iscrowd", "labels"]
