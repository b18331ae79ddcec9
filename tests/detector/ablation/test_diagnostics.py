"""The operators themselves: a ramp, a shift, an exchange."""

import pytest
import pytorch_lightning as pl
import torch
from studies import TINY

from detector.ablation import diagnostics
from detector.ablation.cell_run import WEIGHTS, keep_weights
from detector.ablation.diagnostics import jitter, ramp, representatives, shifted, update_diagnostics, with_operator
from detector.config.defaults import default
from detector.config.schema import RoiConfig
from detector.data.coco import CocoDataset
from detector.data.shapes import ensure_shapes
from detector.training.module import DetectionModule


@pytest.mark.parametrize(
    ("keys", "offset"),
    [
        ({"kind": "align"}, 0.5),  # a cell's centre is taken for its corner
        ({"kind": "align", "aligned": True}, 0.0),
        ({"kind": "align", "sampling_ratio": 0}, 0.5),
        ({"kind": "prroi"}, 0.5),
        ({"kind": "torchvision_align"}, 0.5),
    ],
)
def test_linear_operators_are_exact_on_a_ramp(keys, offset):
    found = ramp(default(RoiConfig, **keys))
    assert found["offset"] == pytest.approx(offset, abs=1e-9)
    assert found["shift_error"] == pytest.approx(0, abs=1e-9)


def test_maximum_of_samples_follows_a_shift():
    """The highest of two samples a bin is a quarter of a bin beyond its centre, wherever the box is."""
    found = ramp(default(RoiConfig, kind="align", mode="max"))
    assert found["shift_error"] == pytest.approx(0, abs=1e-9)
    assert found["offset"] > 0.5


def test_rounded_bins_do_not_follow_a_shift():
    """RoIPool moves by whole cells. A uniform fraction u rounded to 0 or 1 misses by |u - 1| or u: root mean square
    sqrt(E[u (1 - u)]) = sqrt(1 / 6) where a move is rounded fairly."""
    assert ramp(default(RoiConfig, kind="pool"))["shift_error"] == pytest.approx(6**-0.5, abs=0.05)


def test_shifted_images():
    image = torch.rand(3, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(shifted(image, 0.0), image)
    moved = shifted(image, 2.0)
    torch.testing.assert_close(moved[:, 4:7, 4:10], image[:, 2:5, 2:8])
    ramp_image = torch.arange(12.0, dtype=torch.float64).expand(3, 9, 12) / 20
    torch.testing.assert_close(shifted(ramp_image, 0.25)[:, 3:6, 3:9], ramp_image[:, 3:6, 3:9] - 0.25 / 20)


@pytest.fixture
def trained(make_study):
    """A study whose cells have random weights and a record that says they are finished."""
    keys = {"common": {**TINY, "data": "shapes", "model": "c4", "roi.output_size": [3, 3]}}
    study = make_study(**keys)
    for cell in study.cells:
        ensure_shapes_of(cell)
        torch.manual_seed(cell.seed)
        names = ["circle", "rectangle", "triangle", "star", "ring", "cross"]
        module = DetectionModule(cell.config, names, [1, 2, 3, 4, 5, 6])
        checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams),
                      "pytorch-lightning_version": pl.__version__}  # fmt: skip
        cell.write(study.config)
        torch.save({**checkpoint, "optimizer_states": [1, 2, 3]}, cell.folder / "best.ckpt")
        keep_weights(cell.folder / "best.ckpt", cell.folder / WEIGHTS)
        (cell.folder / "record.json").write_text(f'{{"hash": "{cell.hash}"}}')
    return make_study(**keys)


def ensure_shapes_of(cell):
    from pathlib import Path

    return ensure_shapes(Path(cell.config.data.root), cell.config.data.shapes)


def test_kept_weights_have_no_optimiser(trained):
    content = torch.load(trained.cells[0].folder / WEIGHTS, weights_only=True)
    assert set(content) == {"state_dict", "hyper_parameters", "pytorch-lightning_version"}


def test_diagnostics_are_made_once(trained, monkeypatch):
    said = []
    found = update_diagnostics(trained, said.append)
    assert len(said) == 1
    assert set(found["ramp"]) == {"pool", "align"}
    (context,) = found["contexts"].values()
    assert context["seed"] == 0
    assert {trained: set(tested) for trained, tested in context["swap"].items()} == {
        "pool": {"pool", "align"}, "align": {"pool", "align"}
    }  # fmt: skip
    assert all(0 <= value <= 100 for tested in context["swap"].values() for value in tested.values())
    assert len(context["jitter"]["pool"]["pooled"]) == len(found["shifts"])
    # Kept until runs are added.
    monkeypatch.setattr(diagnostics, "of_context", lambda cells: pytest.fail("made again"))
    assert update_diagnostics(trained, said.append) == diagnostics.stored_diagnostics(trained)
    # In a folder whose study has been changed they are of runs that do not count.
    trained.cells = trained.cells[2:]
    assert diagnostics.stored_diagnostics(trained) == {}


def test_representatives_have_one_seed(trained):
    (trained.cells[0].folder / WEIGHTS).unlink()
    assert {level: cell.seed for level, cell in representatives(trained, "").items()} == {"pool": 1, "align": 1}


def test_an_exchanged_operator_leaves_the_detector_as_it_was(trained):
    from detector.models.checkpoint import load_trained_model

    cell = trained.cells[0]
    module = load_trained_model(cell.folder / WEIGHTS)
    pooler = module.model.roi_heads.box_roi_pool
    exchanged = with_operator(module, default(RoiConfig, kind="align", output_size=[3, 3]))
    assert type(exchanged.model.roi_heads.box_roi_pool).__name__ == "MultiScaleRoIAlign"
    assert module.model.roi_heads.box_roi_pool is pooler
    assert exchanged.model.roi_heads.box_head is module.model.roi_heads.box_head
    assert list(exchanged.model.roi_heads.box_roi_pool.spatial_scales) == [1 / 16]


def test_no_shift_no_jitter(trained, monkeypatch):
    from detector.models.checkpoint import load_trained_model

    monkeypatch.setattr(diagnostics, "SHIFTS", (0.0, 4.0))
    cell = trained.cells[0]
    folder = ensure_shapes_of(cell)
    dataset = CocoDataset(folder / "val.json", folder / "images")
    found = jitter(load_trained_model(cell.folder / WEIGHTS), [dataset[i] for i in range(len(dataset))])
    assert found["pooled"][0] == found["score"][0] == 0
    assert found["pooled"][1] > 0
