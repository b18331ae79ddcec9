"""Kernels that do not compile: a forced backend raises, else the reference serves what needs them and nothing more."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from cases import FORMS, rois
from cuda_emulator.build import compiler
from cuda_emulator.emulated import emulator
from kernel_problems import BACKENDS, KINDS, Problem, assert_close

import roi_ops
from roi_ops import backends, cuda, reference
from roi_ops.cuda.compiler import CompileError
from roi_ops.cuda.operators import Operators
from roi_ops.geometry import LINEAR_KINDS
from roi_ops.maps import describe


class Failing:
    """A launcher whose compiler fails for kernels with ``word`` in their name; others go to ``working``."""

    def __init__(self, word="", working=None):
        self.word, self.working, self.tried, self.launched = word, working, [], []

    def launch(self, kernel, launch, arguments, device):
        if self.word in kernel.name:
            self.tried.append(kernel.name)
            raise CompileError(f"no compiler for {kernel.name} today")
        self.launched.append(kernel.name)
        self.working.launch(kernel, launch, arguments, device)


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a launcher behind the backend, with no failure known."""

    def put(launcher):
        operators = Operators(launcher)
        monkeypatch.setattr(cuda, "_operators", lambda: operators)
        monkeypatch.setattr(cuda, "_warned", set())
        return launcher

    return put


def problem(kind, dtype=torch.float32):
    return Problem(kind, dtype, (2, 8, 17, 19), ["channels_last"], rois(list(FORMS), (17, 19), 2, 1, 0.5), (3, 2), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_parity_tests_fail_where_no_kernel_compiles(stand_in, kind):
    """What the fixtures ``kernels`` and ``cuda_kernels`` give for a GPU, with a compiler that always fails."""
    stand_in(Failing())
    p, kernels = problem(kind), BACKENDS["cuda"]("cpu")
    with pytest.raises(CompileError):
        p.assert_equals_reference(kernels)
    p.assert_equals_reference(reference)


def every_function(kind):
    """(name, arguments) of each backend function for a kind."""
    p = problem(kind)
    f, b, g, grad = p.features, p.boxes, p.geom, p.grad
    if kind in LINEAR_KINDS:
        return [("linear_forward", (f, b, False, *g)), ("linear_backward_features", (grad, b, *describe(f), *g)),
                ("linear_backward_boxes", (grad, f, b, *g))]  # fmt: skip
    argmax = reference.max_forward(f, b, False, *g)[1]
    return [("max_forward", (f, b, False, *g)), ("max_gather", (f, argmax, b, *g)),
            ("max_backward_features", (grad, argmax, b, *describe(f), *g)),
            ("max_backward_boxes", (grad, argmax, f, b, *g))]  # fmt: skip


@pytest.mark.parametrize("kind", ["align", "align_max"])
def test_forced_calls_raise_and_others_fall_back_with_one_warning_a_kernel(stand_in, kind):
    launcher = stand_in(Failing())
    for name, args in every_function(kind):
        with roi_ops.use_backend("cuda"), pytest.raises(CompileError, match="no compiler for"):
            getattr(cuda, name)(*args)
        with pytest.warns(RuntimeWarning, match=f"{name} on cpu: no compiler") as caught:
            ours = getattr(cuda, name)(*args)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = getattr(cuda, name)(*args)
        theirs = getattr(reference, name)(*args)
        for results in zip(*(r if isinstance(r, (list, tuple)) else [r] for r in (ours, again, theirs)), strict=True):
            assert torch.equal(results[0], results[2])
            assert torch.equal(results[1], results[2])
    assert len(launcher.tried) == len(set(launcher.tried))  # a failure is not tried again


def test_a_failure_is_of_one_kernel_on_one_device(stand_in):
    class Device1(Failing):
        def launch(self, kernel, launch, arguments, device):
            if device.index == 1:
                raise CompileError("device 1 is too old")
            self.launched.append(kernel.name)

    launcher = stand_in(Device1())
    operators = cuda._operators()
    kernel = cuda.operators.programs.sort_boxes()
    for _ in range(2):
        with pytest.raises(CompileError, match="device 1 is too old") as caught:
            operators._launch(kernel, None, None, torch.device("cuda:1"))
        assert (caught.value.kernel, caught.value.device) == ("sort_boxes", "cuda:1")
        operators._launch(kernel, None, None, torch.device("cuda:0"))
    assert launcher.launched == ["sort_boxes"] * 2


def test_what_may_be_gone_at_the_next_call_is_tried_again(stand_in):
    class Full(Failing):
        def launch(self, kernel, launch, arguments, device):
            self.tried.append(kernel.name)
            if len(self.tried) < 3:
                raise CompileError("the temporary folder is full", is_lasting=False)

    launcher = stand_in(Full())
    for _ in range(2):
        with pytest.raises(CompileError, match="full") as caught:
            cuda._operators()._launch(cuda.operators.programs.sort_boxes(), None, None, torch.device("cuda:0"))
        assert (caught.value.kernel, caught.value.device) == ("sort_boxes", "cuda:0")
    cuda._operators()._launch(cuda.operators.programs.sort_boxes(), None, None, torch.device("cuda:0"))
    assert len(launcher.tried) == 3


def test_each_device_has_its_warning(monkeypatch):
    """The same kernel fails on two devices in turn, twice."""
    devices = iter(["cuda:0", "cuda:1"] * 2)

    def fail(*args):
        raise CompileError("too old", "linear_forward_f32_vector", next(devices))

    monkeypatch.setattr(cuda, "_operators", lambda: SimpleNamespace(linear_forward=fail))
    monkeypatch.setattr(cuda, "_warned", set())
    name, args = every_function("align")[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            getattr(cuda, name)(*args)
    assert ["cuda:0" in str(warning.message) for warning in caught] == [True, False]
    assert "cuda:1" in str(caught[1].message)


def test_nothing_falls_back_while_a_graph_is_captured(stand_in, monkeypatch):
    stand_in(Failing())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    name, args = every_function("align")[0]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(CompileError, match="no compiler for"):
        getattr(cuda, name)(*args)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with pytest.warns(RuntimeWarning, match="no compiler for"):
        getattr(cuda, name)(*args)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:roi_ops. the slower reference backend:RuntimeWarning")
@pytest.mark.parametrize("word", ["backward_features", "forward", "sort_boxes", "gather"])
def test_where_one_kernel_fails_all_results_stay_right(stand_in, kind, word):
    """The reference takes the positions of maxima that a kernel found, and the other way round."""
    if compiler() is None:
        pytest.skip("no C++ compiler to build the emulator with")
    launcher = stand_in(Failing(word, emulator()))
    p = problem(kind)
    with backends.use_backend(None):
        ours = p.results(cuda)
    for name, expected in p.results(reference).items():
        if name == "argmax":
            assert torch.equal(ours[name], expected)
        else:
            assert_close(ours[name], expected, torch.float32, name)
    assert any("forward" in name for name in launcher.launched) == (word != "forward")
    assert any("backward_features" in name for name in launcher.launched) == (word in ("forward", "gather"))
