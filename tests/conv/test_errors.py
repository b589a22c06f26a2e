"""Every error of RSTGConv that a user can meet."""

import pytest
import torch
from small_graphs import GRAPHS
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor

from rstg_pyg import RSTGConv

EDGES, NUM_NODES = GRAPHS["grid"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": (4, 4)}, r"'in_channels' to be one int, got \(4, 4\).*no bipartite form"),
        ({"in_channels": 0}, "'in_channels' to be a positive int, got 0"),
        ({"out_channels": 2.0}, "'out_channels' to be a positive int, got 2.0"),
        ({"pe_channels": -1}, "'pe_channels' to be a positive int, got -1"),
        ({"heads": 4}, "'heads' to divide .*, got heads=4 with 6 channels"),
        ({"heads": 0}, "'heads' to be a positive int, got 0"),
        ({"attention": "softmax"}, "one of 'dot', 'additive', 'mean', got 'softmax'"),
        ({"edge_dim": 0}, "'edge_dim' to be a positive int, got 0"),
        ({"hidden_channels": 0}, "'hidden_channels' to be a positive int, got 0"),
        ({"send_layers": 0}, "'send_layers' to be a positive int, got 0"),
        ({"update_layers": 0}, "'update_layers' to be a positive int, got 0"),
        ({"residual": True}, "got in_channels=4, out_channels=6"),
        ({"dropout": 1.0}, r"'dropout' in \[0, 1\), got 1.0"),
        ({"norm": "instance"}, r"'norm' to be one of \['batch_norm', 'layer_norm'\].*got 'instance'"),
        ({"norm": torch.nn.LayerNorm(4)}, "a function from the number of channels to a module, got LayerNorm"),
        ({"norm": "layer_norm", "in_channels": -1}, "'in_channels' to be given where 'norm' is set"),
        ({"node_dim": -2}, "no 'node_dim': nodes are always the first dimension of 'x', got -2"),
        ({"decomposed_layers": 2}, "no 'decomposed_layers': .*, got 2"),
        ({"aggr": None}, "a single aggregation, got None"),
        ({"aggr": ""}, "a single aggregation, got ''"),
        ({"act": torch.nn.ReLU}, "'act' to be a name, a module, a function or None, got <class"),
        ({"act": 2}, "'act' to be a name, a module, a function or None, got 2"),
        ({"negative_slope": None}, "'negative_slope' to be a finite number, got None"),
        ({"negative_slope": float("nan")}, "'negative_slope' to be a finite number, got nan"),
        ({"aggr": ["sum", "max"]}, r"a single aggregation, got \['sum', 'max'\]"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RSTGConv(**{"in_channels": 4, "out_channels": 6, **arguments})


X = torch.randn(NUM_NODES, 3, 4)


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({}, {"x": torch.randn(5, 3)}, r"shape \[num_nodes, \*, 4\], got \[5, 3\]"),
        ({}, {"x": torch.randn(4)}, r"got \[4\]"),
        ({}, {"x": None}, "'x' of shape .*, got None"),
        ({"pe_channels": 1}, {"pe": [[1.0]]}, r"'pe' of shape .*, got a list \(\(1.0\)\)"),
        ({"edge_dim": 4}, {"edge_attr": X.numpy()}, "'edge_attr' of shape .*, got ndarray"),
        ({}, {"x": torch.ones(5, 4).long()}, "floating point 'x'.*got torch.int64"),
        ({}, {"pe": torch.randn(5, 3)}, r"no 'pe' with pe_channels=0, got \[5, 3\]"),
        ({"pe_channels": 3}, {}, "'pe' of width 3 with pe_channels=3, got none"),
        ({"pe_channels": 3}, {"pe": torch.ones(5, 3) * 1j}, r"'pe' of shape .*, got torch\.complex64"),
        ({"pe_channels": 3}, {"pe": torch.ones(5, 3).to_sparse()}, r"'pe' of shape .*, got torch\.sparse_coo"),
        ({"pe_channels": 3}, {"pe": torch.randn(5, 2)}, r"'pe' of shape \[5, 3\] or \[5, 3, 3\], got \[5, 2\]"),
        ({"pe_channels": 3}, {"pe": torch.randn(4, 3)}, r"got \[4, 3\] \('x' of shape \[5, 3, 4\] has 5 nodes"),
        ({"pe_channels": 3}, {"pe": torch.randn(5, 2, 3)}, r"got \[5, 2, 3\]"),
        ({}, {"edge_attr": torch.randn(16, 2)}, r"no 'edge_attr' with edge_dim=None, got \[16, 2\]$"),
        ({}, {"edge_attr": torch.ones(5, 3).bool()}, r"got torch.bool of shape \[5, 3\] \(the third argument is"),
        ({"pe_channels": 3}, {"edge_attr": torch.randn(5, 3)}, "'pe' of width 3 .*, got none .the third argument is"),
        ({"edge_dim": 2}, {}, r"'edge_attr' of shape \[16, 2\], got none"),
        ({"edge_dim": 2}, {"edge_attr": torch.randn(15, 2)}, r"'edge_attr' of shape \[16, 2\].*got \[15, 2\]"),
        ({}, {"edge_index": EDGES.t()}, r"shape \[2, num_edges\].*got torch.int64 of shape \[16, 2\]"),
        ({}, {"edge_index": EDGES.float()}, r"integer 'edge_index'.*got torch.float32 of shape \[2, 16\]$"),
        ({}, {"edge_index": EDGES.tolist()}, r"got a list \(16 entries, 16 entries\)"),
        ({}, {"edge_index": EDGES.to(torch.complex64)}, "integer 'edge_index'.*got torch.complex64"),
        ({}, {"edge_index": EdgeIndex(EDGES, sparse_size=(9, 9))}, r"EdgeIndex of size \(5, 5\).*got \(9, 9\)"),
        ({}, {"edge_index": torch.ones(5, 5, 5).to_sparse()}, r"matrix of size \[5, 5\], got \[5, 5, 5\]"),
        ({}, {"edge_index": torch.ones(5, 5, 5).to_sparse_csr()}, r"matrix of size \[5, 5\], got \[5, 5, 5\]"),
        ({}, {"edge_index": to_torch_coo_tensor(EDGES, size=(5, 6))}, r"of size \[5, 5\], got \[5, 6\]"),
        (
            {"edge_dim": 2},
            {"edge_index": to_torch_coo_tensor(EDGES, size=(5, 5))},
            r"'edge_attr' of shape \[16, 2\].*, got \[16, 1\]",
        ),
        (
            {"edge_dim": 2},
            {"edge_index": to_torch_csc_tensor(EDGES, size=(5, 5)), "edge_attr": torch.randn(16, 2)},
            "'edge_attr' with a coalesced COO or a CSR matrix.*got a CSC matrix",
        ),
        (
            {"edge_dim": 2},
            {"edge_index": torch.sparse_coo_tensor(EDGES, torch.ones(16)), "edge_attr": torch.randn(16, 2)},
            "got a COO matrix that is not coalesced",
        ),
    ],
)
def test_inputs(options, inputs, message):
    conv = RSTGConv(4, 6, **options)
    with pytest.raises(ValueError, match=message):
        conv(**{"x": X, "edge_index": EDGES, **inputs})


@pytest.mark.parametrize("backend", ["reference", "blocks", "auto"])
@pytest.mark.parametrize("shift", [1, -1])
def test_edges_that_point_outside(shift, backend):
    expected = "larger than 4 .got 5|from 0 to 4, got 5" if shift > 0 else "negative indices|from 0 to 4, got -1"
    with pytest.raises(IndexError, match=expected):
        RSTGConv(4, 6, backend=backend)(X, EDGES + shift)


def test_bipartite_inputs():
    with pytest.raises(ValueError, match=r"got a pair.*no bipartite form"):
        RSTGConv(4, 6)((X, X), EDGES)


def test_a_lazy_residual_of_another_width():
    with pytest.raises(ValueError, match="'x' of width 6 with residual=True, got 4"):
        RSTGConv(-1, 6, residual=True)(X, EDGES)
