"""The stream of training batches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.data.samplers import EpochOrder, ShardedBatches, StepBatchSampler

SIZES = [(480, 640)] * 13 + [(640, 480)] * 7 + [(500, 500)] * 3


def batches_of(sizes, batch_size, seed, rank=0, world_size=1, *, steps, **order):
    return StepBatchSampler(EpochOrder(sizes, batch_size * world_size, seed, **order), rank, world_size, batches=steps)


def stream(sampler):
    return [key for batch in sampler for key in batch]


@given(
    st.lists(st.sampled_from([(3, 4), (4, 3), (1, 1), (9, 16)]), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 2**40),
    st.booleans(),
)
def test_every_image_once_a_pass_and_batches_full(sizes, batch_size, world, seed, group):
    passes = 3
    steps = -(-passes * len(sizes) // (batch_size * world))
    ranks = [list(batches_of(sizes, batch_size, seed, r, world, steps=steps, group=group)) for r in range(world)]
    assert all(len(batches) == steps for batches in ranks)
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    keys = [key for step in zip(*ranks, strict=True) for batch in step for key in batch]
    for number in range(passes):
        assert sorted(i for p, i in keys if p == number) == list(range(len(sizes)))


@given(st.integers(0, 60), st.integers(1, 7), st.booleans())
def test_batch_depends_on_seed_and_step_only(step, batch_size, group):
    whole = list(batches_of(SIZES, batch_size, 5, group=group, steps=64))
    alone = batches_of(SIZES, batch_size, 5, group=group, steps=64)
    alone.start_batch = step
    assert list(alone) == whole[step:]
    assert alone.batch(step // 2) == whole[step // 2]  # and backwards


def test_position_can_be_set():
    sampler = batches_of(SIZES, 4, 0, steps=10)
    whole = list(sampler)
    sampler.start_batch = 7
    assert list(sampler) == whole[7:]
    assert len(sampler) == 10  # Lightning counts from the start of the run


def test_passes_and_seeds_differ():
    def order(seed, number):
        return [i for p, i in stream(batches_of(SIZES, 1, seed, steps=2 * len(SIZES))) if p == number]

    assert len({tuple(order(s, p)) for s in (0, 1, 2) for p in (0, 1)}) == 6


def test_like_shapes_share_batches():
    sizes = [(480, 640)] * 100 + [(640, 480)] * 60 + [(500, 500)] * 40
    shape = np.array([h / w for h, w in sizes])
    steps = 10 * len(sizes) // 8

    def mixed(group):
        batches = batches_of(sizes, 8, 0, steps=steps, group=group)
        return sum(len({shape[i] for _, i in batch}) > 1 for batch in batches) / steps

    assert mixed(False) > 0.9
    # The leftovers of three groups (under 3 * 8 images, so 3 batches) and the seam between passes: 4 of 25 batches.
    assert mixed(True) <= 4 / 25


def test_shapes_take_turns_within_a_pass():
    """Training must not see all upright images first."""
    sizes = [(480, 640)] * 400 + [(640, 480)] * 400
    upright = [sum(i >= 400 for _, i in batch) for batch in batches_of(sizes, 8, 0, steps=100)]
    assert 15 < sum(n > 4 for n in upright[:50]) < 35


def test_processes_of_a_step_see_like_shapes_in_every_pass():
    sizes = [(480, 640)] * 83 + [(640, 480)] * 83  # a pass does not end with a step
    ranks = [batches_of(sizes, 4, 0, r, 2, steps=166) for r in range(2)]
    same = [len({i >= 83 for batch in step for _, i in batch}) == 1 for step in zip(*ranks, strict=True)]
    assert sum(same) >= 166 - 8 * 2  # of each of 8 passes, the leftovers and the seam


def test_an_iteration_goes_on_to_the_next_multiple_of_its_steps():
    sampler = batches_of(SIZES, 4, 0, steps=10)
    sampler.start_batch = 10
    assert list(sampler) == [sampler.batch(step) for step in range(10, 20)]


@pytest.mark.parametrize(
    ("sizes", "rank", "words"), [([], 0, "no images"), ([(1, 1)], 2, "rank 2 is not among 2 processes")]
)
def test_mistakes_of_the_caller(sizes, rank, words):
    with pytest.raises(ValueError, match=words):
        batches_of(sizes, 2, 0, rank, 2, steps=1)


@given(st.integers(1, 50), st.integers(1, 6), st.integers(1, 8))
def test_evaluation_parts_are_whole_batches_of_every_image_once(length, world, batch_size):
    """But for image 0, alone, in parts that would be empty; it comes after the batch of rank 0 that it belongs to."""
    whole = [list(range(length))[i : i + batch_size] for i in range(0, length, batch_size)]
    parts = [list(ShardedBatches(length, batch_size, rank, world)) for rank in range(world)]
    seen = []
    for rank, part in enumerate(parts):
        assert len(part) == len(ShardedBatches(length, batch_size, rank, world))
        if part == [[0]] and seen:
            assert seen[0][0] == 0
        else:
            seen += part
    assert seen == whole
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.floats(1, 4), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 2), st.integers(0, 2**40))
def test_repeats_are_rounded_down_or_up(factors, batch_size, world, seed):
    """In each pass every image occurs its factor's number of times, and no draw comes twice."""
    factors = np.array(factors)
    length = math.ceil(factors.sum()) if (factors > 1).any() else len(factors)
    steps = -(-3 * length // (batch_size * world))
    sizes = [(3, 4), (4, 3)] * len(factors)
    ranks = [
        list(batches_of(sizes[: len(factors)], batch_size, seed, r, world, steps=steps, repeats=factors))
        for r in range(world)
    ]
    keys = [key for step in zip(*ranks, strict=True) for batch in step for key in batch]
    assert len(set(keys)) == len(keys)
    raised = factors * length / factors.sum() + 1e-9
    for number in range(3):
        seen = [i for _, i in keys[number * length : (number + 1) * length]]
        counts = np.bincount(seen, minlength=len(factors))
        assert ((counts >= np.floor(factors)) & (counts <= np.ceil(raised))).all()


def test_repeats_on_average():
    """2 or 3 times in each pass is 2.5 on average."""
    sampler = batches_of([(1, 1)] * 4, 1, 0, steps=7 * 400, repeats=np.array([1, 1, 2.5, 2.5]))
    counts = np.bincount([i for _, i in stream(sampler)])
    assert counts[:2].tolist() == [400, 400]
    assert counts[2:] / 400 == pytest.approx([2.5, 2.5], abs=0.1)


def test_no_repeats_changes_nothing():
    plain, ones = (batches_of(SIZES, 4, 7, steps=30, repeats=r) for r in (None, np.ones(len(SIZES))))
    assert list(plain) == list(ones)
