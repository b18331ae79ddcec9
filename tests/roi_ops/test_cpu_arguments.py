"""The flat list of numbers between Python and the C++ kernels: count and kind of every argument."""

import pytest
import torch
from cases import rois
from kernel_problems import Problem

from roi_ops import cpu

if not cpu.available():
    pytest.skip(f"backend cpu: {cpu.why_not()}", allow_module_level=True)


@pytest.mark.parametrize("kind", ["align", "align_max"])
def test_another_number_or_kind_of_arguments_is_an_error(monkeypatch, kind):
    run, calls = cpu._kernels.run, []
    monkeypatch.setattr(cpu._kernels, "run", lambda *call: calls.append(call) or run(*call))
    boxes = rois(["inside", "whole map"], (9, 11), 2, 0, 0.5)
    problem = Problem(kind, torch.float32, (2, 3, 9, 11), ["contiguous"], boxes, (2, 3), 2, levels=2)
    kept = problem.results(cpu)  # a build that takes a wrong list writes to the addresses of these
    assert kept
    assert {operator for operator, _ in calls} == (set(range(3)) if kind == "align" else set(range(3, 7)))
    for operator, numbers in calls:
        for at, number in enumerate(numbers):
            changed = numbers.copy()
            changed[at] = int(number) if isinstance(number, float) else float(number)
            with pytest.raises(TypeError):
                run(operator, changed)
        with pytest.raises(ValueError, match="too few"):
            run(operator, numbers[:-1])
        with pytest.raises(ValueError, match="too many"):
            run(operator, [*numbers, 0])
