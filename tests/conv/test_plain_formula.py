"""The layer against the formula of the paper, in float64, gradients included."""

import pytest
import torch
from laws import assert_same_with_gradients
from plain_formula import plain_conv
from small_graphs import GRAPHS

from rstg_pyg import RSTGConv

OPTIONS = {
    "default": {},
    "additive": {"attention": "additive"},
    "mean": {"attention": "mean"},
    "heads": {"heads": 3},
    "additive heads": {"attention": "additive", "heads": 2},
    "mean heads": {"attention": "mean", "heads": 2},
    "act last": {"send_act_last": True, "update_act_last": True},
    "act last heads": {"send_act_last": True, "heads": 3},
    "one layer": {"send_layers": 1, "update_layers": 1},
    "one layer act last": {"send_layers": 1, "send_act_last": True, "heads": 2},
    "three layers": {"send_layers": 3, "update_layers": 3, "heads": 2},
    "four layers act last": {"send_layers": 4, "send_act_last": True},
    "narrow hidden": {"hidden_channels": 3, "heads": 2},
    "no bias": {"bias": False, "heads": 2},
    "elu": {"act": "elu"},
    "norm residual": {"norm": "layer_norm", "residual": True, "in_channels": 6},
}


def make(options, **more):
    options = {"in_channels": 4, "out_channels": 6, **options, **more}
    return RSTGConv(**options).double()


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_equals_the_plain_formula(options):
    assert_plain(options, "irregular", (2,))


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_and_shape_equals_the_plain_formula(graph):
    for inner in ((), (2,), (2, 3)):
        assert_plain("default", graph, inner)


def assert_plain(options, graph, inner):
    torch.manual_seed(1)
    edge_index, num_nodes = GRAPHS[graph]
    conv = make(OPTIONS[options], pe_channels=5)
    x = torch.randn(num_nodes, *inner, conv.in_channels, dtype=torch.float64)
    pe = torch.randn(num_nodes, 5, dtype=torch.float64)
    assert_same_with_gradients(
        lambda x, pe: conv(x, edge_index, pe=pe),
        lambda x, pe: plain_conv(conv, x, edge_index, pe=pe)[0],
        conv,
        x,
        pe,
    )
    _, (_, alpha) = conv(x, edge_index, pe=pe, return_attention_weights=True)
    torch.testing.assert_close(alpha, plain_conv(conv, x, edge_index, pe=pe)[1])


@pytest.mark.parametrize("options", ["default", "act last", "one layer", "heads"])
@pytest.mark.parametrize("edge_inner", [(), (3,)], ids=str)
def test_edge_features_equal_the_plain_formula(options, edge_inner):
    edge_index, num_nodes = GRAPHS["irregular"]
    conv = make(OPTIONS[options], edge_dim=2)
    x = torch.randn(num_nodes, 3, 4, dtype=torch.float64)
    edge_attr = torch.randn(edge_index.size(1), *edge_inner, 2, dtype=torch.float64)
    assert_same_with_gradients(
        lambda x, e: conv(x, edge_index, edge_attr=e),
        lambda x, e: plain_conv(conv, x, edge_index, edge_attr=e)[0],
        conv,
        x,
        edge_attr,
    )


def test_positions_that_change_over_time():
    edge_index, num_nodes = GRAPHS["grid"]
    conv = make({}, pe_channels=2)
    x = torch.randn(num_nodes, 3, 4, dtype=torch.float64)
    pe = torch.randn(num_nodes, 3, 2, dtype=torch.float64)
    together = conv(x, edge_index, pe=pe)
    for t in range(3):
        torch.testing.assert_close(together[:, t], conv(x[:, t], edge_index, pe=pe[:, t]))


@pytest.mark.parametrize("options", ["default", "additive heads", "act last heads", "norm residual"])
def test_gradcheck(options):
    edge_index, num_nodes = GRAPHS["irregular"]
    # ELU: gradcheck's finite differences need a smooth function.
    conv = make(OPTIONS[options], act="elu", pe_channels=2)
    x = torch.randn(num_nodes, 2, conv.in_channels, dtype=torch.float64, requires_grad=True)
    pe = torch.randn(num_nodes, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, pe: conv(x, edge_index, pe=pe), (x, pe))


@pytest.mark.parametrize("heads", [1, 2])
def test_bias_counts_by_the_sum_of_the_weights_under_dropout(heads):
    edge_index, num_nodes = GRAPHS["irregular"]
    conv = make({"heads": heads, "dropout": 0.5})
    x = torch.randn(num_nodes, 2, 4, dtype=torch.float64)
    torch.manual_seed(0)
    out, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
    handle = conv.register_message_forward_hook(lambda *args: None)
    torch.manual_seed(0)
    per_edge, (_, same_alpha) = conv(x, edge_index, return_attention_weights=True)
    handle.remove()
    torch.testing.assert_close(alpha, same_alpha)
    torch.testing.assert_close(out, per_edge)
    assert (alpha == 0).any()
    assert not torch.allclose(out, conv.eval()(x, edge_index))


def test_a_node_without_neighbours_gathers_zero():
    edge_index, num_nodes = GRAPHS["irregular"]
    conv = make({})
    x = torch.randn(num_nodes, 4, dtype=torch.float64)
    alone = conv.update_mlp(torch.cat([x[6], x.new_zeros(6)]))
    torch.testing.assert_close(conv(x, edge_index)[6], alone)


@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_another_aggregation_sees_whole_messages(aggr):
    edge_index, num_nodes = GRAPHS["grid"]
    conv = make({"attention": "mean"}, aggr=aggr)
    seen = []
    conv.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    x = torch.randn(num_nodes, 4, dtype=torch.float64)
    with_hook = conv(x, edge_index)
    conv._message_forward_hooks.clear()
    torch.testing.assert_close(conv(x, edge_index), with_hook)
    assert seen[0].shape == (edge_index.size(1), 6)


@pytest.mark.parametrize("backend", ["blocks", "auto"])
def test_layers_that_share_their_weights_learn_once(backend):
    edges, num_nodes = GRAPHS["irregular"]
    grads = []
    for name in ("reference", backend):
        torch.manual_seed(0)
        conv = make({"send_layers": 4}, backend=name)
        conv.send.lins[1] = conv.send.lins[0]
        conv(torch.randn(num_nodes, 3, 4).double(), edges).square().sum().backward()
        grads.append([one.grad for one in conv.parameters()])
    torch.testing.assert_close(*grads)
