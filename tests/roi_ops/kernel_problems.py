"""Random problems for the kernels, and the comparison of what two backends make of them."""

import torch
from cases import FORMS, rois
from cuda_emulator.emulated import operators
from hypothesis import strategies as st

from roi_ops import cpu, cuda, reference, use_backend
from roi_ops.geometry import LINEAR_KINDS, MAX_KINDS
from roi_ops.maps import describe

KINDS = LINEAR_KINDS + MAX_KINDS
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Largest difference allowed, relative to the largest value: a few roundings of the storage type.
PRECISION = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
LAYOUTS = (
    "contiguous",
    "channels_last",
    "batch innermost",
    "cut from contiguous",
    "cut from channels_last",
    "expanded",
)
NAN, INF = float("nan"), float("inf")
ODD = (NAN, INF, -INF, 1e30, -1e30, 3e38, 30000.0, 16777216.0)


def lay_out(t: torch.Tensor, layout: str) -> torch.Tensor:
    """The values of ``t`` with other strides; what lies around a cut is NaN, so that reading it shows."""
    n, c, h, w = t.shape
    if layout == "channels_last":
        return t.contiguous(memory_format=torch.channels_last)
    if layout == "batch innermost":
        return t.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    if layout == "expanded":
        return t[:1].contiguous().expand(n, c, h, w)
    if layout.startswith("cut"):
        whole = torch.full((n, c + 3, h + 2, w + 4), NAN, dtype=t.dtype)
        whole = whole.to(memory_format=torch.channels_last) if layout.endswith("channels_last") else whole
        whole[:, 1 : c + 1, 1 : h + 1, 2 : w + 2] = t
        return whole[:, 1 : c + 1, 1 : h + 1, 2 : w + 2]
    return t.contiguous()


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, what: str, terms: int = 1) -> None:
    """Equal in shape, dtype and NaNs, and in values up to the rounding of ``dtype``.

    ``terms`` is how many random numbers of size one a value is the sum of. They cancel, and their rounding does not:
    a value near 0 is held to the size that such a sum has, the root of ``terms``.
    """
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if not theirs.numel():
        return
    a, b = ours.double(), theirs.double()
    assert torch.equal(a.isnan(), b.isnan()), what
    largest = b.abs().nan_to_num().max().clamp(min=terms**0.5).item()
    difference = (a - b).abs().nan_to_num().max().item() / largest
    assert difference <= PRECISION[dtype], f"{what}: relative difference {difference:g}"


def moved(value, device):
    """A tensor, or the tensors of a list, on a device: memory and strides as they were."""
    if isinstance(value, (list, tuple)):
        return type(value)(moved(v, device) for v in value)
    if not isinstance(value, torch.Tensor):
        return value
    size = value.untyped_storage().nbytes() // value.element_size()
    memory = value.as_strided((size,), (1,), 0).to(device)
    return memory.as_strided(value.shape, value.stride(), value.storage_offset())


class CudaKernels:
    """The functions of the CUDA backend for CPU tensors, which go to a device and come back.

    The backend is forced: unforced, the reference answers for a kernel that does not compile, and equals itself.
    """

    def __init__(self, device="cuda"):
        self._device = device

    def __getattr__(self, name):
        function = getattr(cuda, name)

        def forced(*args):
            with use_backend("cuda"):
                return moved(function(*moved(args, self._device)), "cpu")

        return forced


EMULATOR = "cuda on the emulator"
# What the fixtures of kernels call, by backend: each makes the seven functions for CPU tensors.
BACKENDS = {"cpu": lambda: cpu, EMULATOR: operators, "cuda": CudaKernels}


class Problem:
    """The arguments of the backend functions: random maps and gradient, the given boxes (Tensor[K, 5])."""

    def __init__(self, kind, dtype, shape, layouts, boxes, output, ratio, levels=1, scale=0.5, canonical=60.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        n, c, h, w = shape
        self.kind, self.dtype, self.features = kind, dtype, []
        for level in range(levels):
            size = (n, c, max(h >> level, min(h, 1)), max(w >> level, min(w, 1)))
            f = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
            self.features.append(lay_out(f, layouts[level % len(layouts)]))
        self.boxes = boxes.to(torch.float64 if dtype == torch.float64 else torch.float32).contiguous()
        grad = torch.randn((len(boxes), c, *output), generator=generator, dtype=torch.float64).to(dtype)
        self.grad = lay_out(grad, layouts[-1]) if len(boxes) else grad
        k_min = 2 if levels > 1 else 0
        scales = [scale / 2**level for level in range(levels)]
        self.geom = (scales, kind, *output, ratio, k_min, k_min + levels - 1, canonical, 4.0)

    def results(self, backend, channels_last=False):
        """Everything the backend computes for this problem, by name."""
        f, b, g = self.features, self.boxes, self.geom
        if self.kind in LINEAR_KINDS:
            named = {"forward": backend.linear_forward(f, b, channels_last, *g)}
            gradients = backend.linear_backward_features(self.grad, b, *describe(f), *g)
            named["boxes"] = backend.linear_backward_boxes(self.grad, f, b, *g)
        else:
            named = dict(zip(("forward", "argmax"), backend.max_forward(f, b, channels_last, *g), strict=True))
            argmax = named["argmax"]
            named["gather"] = backend.max_gather(f, argmax, b, *g)
            gradients = backend.max_backward_features(self.grad, argmax, b, *describe(f), *g)
            if self.kind != "pool":
                named["boxes"] = backend.max_backward_boxes(self.grad, argmax, f, b, *g)
        return named | {f"level {i}": t for i, t in enumerate(gradients)}

    def assert_equals_reference(self, backend, channels_last=False):
        """The kernels and the reference agree in every result, its memory format included."""
        ours, theirs = self.results(backend, channels_last), self.results(reference, channels_last)
        if "argmax" in theirs:  # sums round alike in both, so even ties fall alike
            assert torch.equal(ours["argmax"], theirs.pop("argmax"))
        for name, expected in theirs.items():
            if name == "boxes":  # a sum over all channels and bins
                assert_close(ours[name], expected, self.boxes.dtype, name, max(1, self.grad[:1].numel()))
            else:
                assert_close(ours[name], expected, self.dtype, name)
            if name != "boxes" and expected.numel() and 1 not in expected.shape:
                assert ours[name].stride() == expected.stride(), name


problems = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "dtype": st.sampled_from(DTYPES),
        "images": st.integers(1, 3),
        "channels": st.one_of(st.integers(1, 40), st.sampled_from((64, 100, 257, 300))),
        "size": st.tuples(st.integers(1, 30), st.integers(1, 40)),
        "layouts": st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=3),
        "forms": st.lists(st.sampled_from(FORMS), max_size=7),
        "output": st.tuples(st.integers(1, 8), st.integers(1, 8)),
        "ratio": st.sampled_from((-1, 0, 1, 2, 3, 5)),
        "levels": st.integers(1, 3),
        "scale": st.sampled_from((1.0, 0.5, 0.25, 1 / 3)),
        "channels_last": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)


def build(p, boxes=None) -> Problem:
    """The problem of an example of ``problems``, with other boxes if given."""
    if boxes is None:
        boxes = rois(p["forms"], p["size"], p["images"], p["seed"], p["scale"])
    shape = (p["images"], p["channels"], *p["size"])
    return Problem(p["kind"], p["dtype"], shape, p["layouts"], boxes, p["output"], p["ratio"], p["levels"], p["scale"],
                   seed=p["seed"])  # fmt: skip
