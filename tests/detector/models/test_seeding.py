"""Draws that belong to numbers, and that leave those around them alone."""

import pytest
import torch

from detector.models.seeding import seed_of, seeded


def test_seeds_differ():
    seeds = {seed_of(s, n, r) for s in range(-1, 2) for n in range(50) for r in range(2)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_draws_inside_depend_on_the_seed_and_those_outside_do_not(device):
    torch.manual_seed(1)
    expected = [torch.rand(3, device=device) for _ in range(2)]
    torch.manual_seed(1)
    first = torch.rand(3, device=device)
    inside = []
    for _ in range(2):
        with seeded(7, torch.device(device)):
            inside.append((torch.rand(3, device=device), torch.rand(3)))
    assert torch.equal(first, expected[0])
    assert torch.equal(torch.rand(3, device=device), expected[1])
    for a, b in zip(*inside, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(inside[0][0], first)


def test_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(7):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)
