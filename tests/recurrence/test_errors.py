"""Every error of RSTG and TimeStage that a user can meet."""

from itertools import product

import pytest
import torch
from small_graphs import GRAPHS
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_torch_coo_tensor

from rstg_pyg import RSTG, TimeStage
from rstg_pyg.ops import GraphIndex

EDGES, NUM_NODES = GRAPHS["grid"]
X = torch.randn(NUM_NODES, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "'channels' to be a positive int, got 0"),
        ({"num_stages": 0}, "'num_stages' to be a positive int, got 0"),
        (
            {"rnn": "rnn"},
            "'rnn' to be one of 'lstm', 'gru', 'linear', or a function from the width to a module, got 'rnn'",
        ),
        ({"stages": "alltemp"}, "'stages' to be one of 'all-temp'.*got 'alltemp'"),
        ({"stages": []}, "one or more of 'time', 'space' and 'space-time'"),
        ({"stages": ["time", "pace"]}, "'space-time', got .*'pace'"),
        ({"chrono": 1}, "'chrono' to be an int of 2 or more, or None, got 1"),
        ({"chrono": 9, "bias": False}, "'chrono' with an LSTM or GRU with biases or a LinearRNN, got LSTM"),
        ({"chrono": 9, "rnn": lambda channels: torch.nn.ReLU()}, "or a LinearRNN, got ReLU"),
        ({"stages": "homogeneous", "edge_dim": 2}, "no 'edge_dim' with space-time stages.*got 2"),
        ({"heads": 3}, "'heads' to divide the number"),
        ({"norm": "group"}, "'norm' to be one of"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RSTG(**{"channels": 4, **arguments})


def test_unknown_arguments_are_not_swallowed():
    for stages in ("all-temp", "time-only"):
        with pytest.raises(TypeError, match="expected an option of RSTG, got 'head'"):
            RSTG(4, stages=stages, head=2)
    with pytest.raises(TypeError, match="expected an option of RSTG, got 'out_channels'"):
        RSTG(4, out_channels=4)
    with pytest.raises(ValueError, match="expected no 'num_layers': 'num_stages' is the number of space stages, got 2"):
        RSTG(4, num_layers=2)


@pytest.mark.parametrize("shape", [(5, 4), (5, 6, 3), (5, 0, 4)])
def test_sequences(shape):
    with pytest.raises(ValueError, match=r"\[num_nodes, \*, T >= 1, 4\], got \[5, "):
        RSTG(4)(torch.randn(shape), EDGES)


def test_bipartite_inputs():
    with pytest.raises(ValueError, match=r"got \(\[5, 6, 4\], \[5, 6, 4\]\): there is no bipartite form"):
        RSTG(4)((X, X), EDGES)


H = torch.zeros(NUM_NODES, 4)


@pytest.mark.parametrize(
    ("rnn", "state", "message"),
    [
        ("lstm", [(H, H)], "a state of 4 entries, got 1"),
        ("lstm", [H] * 4, r"\(h, c\), each of shape \[5, 4\], got \[5, 4\]$"),
        ("lstm", [(H, H, H)] * 4, r"got \(\[5, 4\], \[5, 4\], \[5, 4\]\)"),
        ("lstm", [(H[:4], H[:4])] * 4, r"each of shape \[5, 4\], got \(\[4, 4\], \[4, 4\]\)"),
        ("lstm", 4, "a state of 4 entries, got int"),
        ("lstm", [(H, None)] * 4, r"got \(\[5, 4\], None\)"),
        ("gru", [H.long()] * 4, r"h of shape \[5, 4\], got torch.int64 of shape \[5, 4\]"),
        ("linear", [(H, H)] * 4, r"h of shape \[5, 4\], got \(\[5, 4\], \[5, 4\]\)"),
        ("gru", [(H, H)] * 4, r"h of shape \[5, 4\], got \(\[5, 4\], \[5, 4\]\)"),
    ],
)
def test_states(rnn, state, message):
    with pytest.raises(ValueError, match=message):
        RSTG(4, rnn=rnn)(X, EDGES, state=state)


def test_homogeneous_stages_need_plain_edges():
    rstg = RSTG(4, stages="homogeneous")
    with pytest.raises(ValueError, match="edges as a tensor"):
        rstg(X, to_torch_coo_tensor(EDGES, size=(5, 5)))
    with pytest.raises(ValueError, match=r"homogeneous stage to be a tensor of shape \[5, 4\], got \[4, 4\]"):
        rstg(X, EDGES, state=[H[:4]] * 3)
    with pytest.raises(ValueError, match=r"got \(\[5, 4\], \[5, 4\]\)"):
        rstg(X, EDGES, state=[(H, H)] * 3)


FLOWS = "source_to_target", "target_to_source"


class AnyConv(MessagePassing):
    """A layer of somebody else."""

    def forward(self, x, edge_index, *given):
        return self.propagate(edge_index, x=x)


def test_homogeneous_stages_speak_of_the_nodes_of_a_frame():
    edges = torch.tensor([[0], [NUM_NODES]])
    for flow, state in product(FLOWS, [None, [H] * 3]):
        rstg = RSTG(4, stages="homogeneous", pe_channels=2, flow=flow)
        pe, index = torch.randn(NUM_NODES, 2), GraphIndex(EDGES, NUM_NODES + 1, flow)
        with pytest.raises(ValueError, match=r"'pe' of shape \[5, 2\] or .*, got \[4, 2\] \('x' of .* has 5 nodes\)$"):
            rstg(X, EDGES, pe=pe[:4], state=state)
        with pytest.raises(IndexError, match="nodes from 0 to 4, got 5 "):
            rstg(X, edges, pe=pe, state=state)
        with pytest.raises(ValueError, match="an index of 5 nodes, as 'x' has, got one of 6"):
            rstg(X, index, pe=pe, state=state)
        rstg.space_stages[0] = AnyConv(flow=flow)
        for changes in ({"mask": torch.ones(X.shape[:-1], dtype=torch.bool)}, {"edge_time": EDGES[0] * 0}):
            with pytest.raises(ValueError, match=f"an index with flow='{flow}', got "):
                rstg(X, GraphIndex(EDGES, NUM_NODES, FLOWS[FLOWS[0] == flow]), state=state, **changes)


@pytest.mark.parametrize("stages", ["all-temp", "space-only", "homogeneous"])
def test_another_type_than_the_weights(stages):
    rstg = RSTG(4, stages=stages)
    with pytest.raises(ValueError, match=r"^expected 'x' of type torch.float32, as the weights, got torch.float64$"):
        rstg(X.double(), EDGES)
    with torch.autocast("cpu", torch.bfloat16):
        rstg(X.bfloat16(), EDGES)


def test_time_stage():
    with pytest.raises(ValueError, match="'channels' to be a positive int, got -1"):
        TimeStage(-1)
    with pytest.raises(ValueError, match=r"sequence 'x' of shape \[num_nodes, \*, T >= 1, 4\], got \[5, 6, 3\]"):
        TimeStage(4)(torch.randn(5, 6, 3))
