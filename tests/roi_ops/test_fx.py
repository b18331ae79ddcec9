"""``torch.fx`` through our functions and modules, and torchvision's feature extractor."""

import pickle

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import roi_ops
from roi_ops import multiscale_roi_pool

FINE, COARSE = torch.rand(2, 4, 16, 24), torch.rand(2, 4, 8, 12)
BOXES = [torch.tensor([[1.0, 2, 30, 40], [3, 3, 60, 60]]), torch.tensor([[0.0, 10, 80, 50]])]
SIZES = [(64, 96), (60, 90)]


class Model(nn.Module):
    """A pooler inside, functions by both ways of import; boxes and sizes of maps come from the graph."""

    def __init__(self):
        super().__init__()
        self.pooler, self.single = roi_ops.MultiScaleRoIAlign(["a", "b"], 3, 2), roi_ops.PrRoIPool(2, 0.25)
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, fine, coarse, boxes, sizes):
        maps = {"a": fine * 2, "b": coarse}
        aligned = roi_ops.roi_align(self.conv(fine), boxes=boxes, output_size=3, spatial_scale=0.25, mode="max")
        pooled = multiscale_roi_pool([fine, coarse], [boxes[0], boxes[1] + 1], 3, [0.25, 0.125])
        return self.pooler(maps, boxes, sizes), aligned, pooled, self.single(fine, boxes)


def test_a_model_is_traced():
    model = Model()
    traced = torch.fx.symbolic_trace(model)
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert {roi_ops.multiscale_roi_align, roi_ops.roi_align, multiscale_roi_pool, roi_ops.prroi_pool} <= set(called)
    for graph in (traced, pickle.loads(pickle.dumps(traced))):
        for found, expected in zip(graph(FINE, COARSE, BOXES, SIZES), model(FINE, COARSE, BOXES, SIZES), strict=True):
            assert torch.equal(found, expected)
    # Nothing of the first call is left in the graph: other sizes give other scales.
    halves = [b / 2 for b in BOXES]
    found = traced(COARSE, COARSE[..., ::2, ::2], halves, [(32, 48), (30, 45)])
    assert torch.equal(found[0], model(COARSE, COARSE[..., ::2, ::2], halves, [(32, 48), (30, 45)])[0])


def test_features_are_extracted():
    model = Model()
    nodes, _ = get_graph_node_names(model)
    assert {"pooler", "conv", "roi_align", "multiscale_roi_pool"} <= set(nodes)
    extractor = create_feature_extractor(model, ["pooler", "roi_align"])
    found = extractor(FINE, COARSE, BOXES, SIZES)
    expected = model(FINE, COARSE, BOXES, SIZES)
    assert torch.equal(found["pooler"], expected[0])
    assert torch.equal(found["roi_align"], expected[1])


class Wrapper(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, maps, boxes):
        return self.layer(maps, boxes)


@pytest.mark.parametrize("module", [roi_ops.RoIAlign(3, 1.0, 2), roi_ops.RoIPool(3, 1.0), roi_ops.PrRoIPool(3, 1.0)])
def test_a_module_is_one_node(module):
    train, evaluation = get_graph_node_names(Wrapper(module))
    assert len(train) == len(evaluation) == 3  # the two inputs and the module


def test_the_whole_dictionary_of_maps_is_an_input():
    pooler = roi_ops.MultiScaleRoIAlign(["a", "b"], 3, 2)
    maps = {"a": FINE, "b": COARSE, "c": COARSE}
    assert torch.equal(torch.fx.symbolic_trace(pooler)(maps, BOXES, SIZES), pooler(maps, BOXES, SIZES))
