"""The convolution as a layer of GraphGym."""

import warnings

import pytest
import torch
from torch_geometric.data import Data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # GraphGym wants yacs for its configuration files
    from torch_geometric.graphgym.models.layer import GeneralLayer, LayerConfig

import rstg_pyg.graphgym  # noqa: F401


@pytest.mark.parametrize(("name", "edge_dim"), [("rstgconv", 128), ("rstgedgeconv", 3)])
def test_a_layer_by_name(name, edge_dim):
    """128 is GraphGym's ``dataset.edge_dim`` where nobody sets it."""
    layer = GeneralLayer(name, LayerConfig(dim_in=4, dim_out=8, edge_dim=edge_dim, has_batchnorm=True, has_act=False))
    batch = Data(torch.randn(5, 4), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), torch.randn(4, 3))
    outs = [layer(batch.clone()).x, layer(Data(batch.x, batch.edge_index, 2 * batch.edge_attr)).x]
    assert outs[0].shape == (5, 8)
    assert torch.equal(*outs) == (name == "rstgconv")
    outs[0].square().sum().backward()
    assert all(weight.grad is not None for weight in layer.parameters())
