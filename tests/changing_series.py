"""Small graphs that change, for the tests of temporal."""

import torch
from torch_geometric.data import Data

from rstg_pyg import RSTG

N, T, C, D = 9, 12, 4, 2


def make_rstg(**options):
    torch.manual_seed(1)
    return RSTG(C, **{"num_stages": 2, "edge_dim": D, "norm": "layer_norm", **options}).double().eval()


def run(rstg, data):
    return rstg(data.x, data.edge_index, data.edge_attr, edge_time=data.get("edge_time"), mask=data.get("mask"))[0]


def make_series(num_nodes=N, num_edges=80, static=False, **more):
    """Nodes that come and go on edges that change, unsorted."""
    data = Data(
        x=torch.randn(num_nodes, T, C, dtype=torch.float64),
        edge_index=torch.randint(num_nodes, (2, num_edges)),
        edge_attr=torch.randn(num_edges, D, dtype=torch.float64),
        mask=torch.rand(num_nodes, T) < 0.7,
        **more,
    )
    if not static:
        data.edge_time = torch.randint(T, (num_edges,))
    return data


def assert_same(data, other):
    """The same attributes with the same values."""
    assert set(data.keys()) == set(other.keys())
    for name, value in data:
        assert torch.equal(value, other[name]), name
