"""RSTGConv as a native PyG operator: laws, kinds of adjacency, explanations, compilation."""

import copy
import io

import pytest
import torch
import torch_geometric.typing
from laws import assert_batch_equals_singles, assert_permutation_equivariant
from plain_formula import plain_messages
from small_graphs import GRAPHS
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import HeteroConv, Sequential, to_hetero
from torch_geometric.testing import withDevice
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor, to_torch_csr_tensor

from rstg_pyg import RSTGConv, region_graph


@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"attention": "additive"}, {"send_act_last": True}])
@pytest.mark.parametrize("graph", GRAPHS)
def test_permutation_equivariance(graph, options):
    edge_index, num_nodes = GRAPHS[graph]
    conv = RSTGConv(4, 6, pe_channels=3, **options).double()
    x = torch.randn(num_nodes, 2, 4, dtype=torch.float64)
    assert_permutation_equivariant(
        lambda x, edges, pe: conv(x, edges, pe=pe), x, edge_index, torch.randn(num_nodes, 3, dtype=torch.float64)
    )


def test_a_batch_equals_its_members():
    conv = RSTGConv(4, 6, pe_channels=36).double()
    graphs = []
    for scales in [(3, 2, 1), (1,), (2, 1), ((1, 3),)]:
        graph = region_graph(scales)
        graph.x, graph.heatmap = torch.randn(graph.num_nodes, 2, 4).double(), graph.heatmap.double()
        graphs.append(graph)
    assert_batch_equals_singles(lambda data: conv(data.x, data.edge_index, pe=data.heatmap), graphs)


def unique_edges():
    """A graph without double edges, which a matrix would merge, its edges sorted by destination."""
    graph = region_graph((3, 1))
    return graph.edge_index, graph.num_nodes


def adjacencies():
    edge_index, num_nodes = unique_edges()
    size = (num_nodes, num_nodes)
    transposed = edge_index.flip(0)
    kinds = {
        "EdgeIndex": EdgeIndex(edge_index, sparse_size=size),
        "EdgeIndex sorted": EdgeIndex(edge_index, sparse_size=size, sort_order="col"),
        "COO": to_torch_coo_tensor(transposed, size=size),
        "CSR": to_torch_csr_tensor(transposed, size=size),
        "CSC": to_torch_csc_tensor(transposed, size=size),
        "COO not coalesced": torch.sparse_coo_tensor(
            transposed.flip(1), torch.ones(edge_index.size(1)), size, is_coalesced=False
        ),
    }
    if torch_geometric.typing.WITH_TORCH_SPARSE:
        from torch_sparse import SparseTensor

        kinds["SparseTensor"] = SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=size)
    return kinds


needs_torch_sparse = pytest.mark.skipif(
    not torch_geometric.typing.WITH_TORCH_SPARSE, reason="torch-sparse is not installed"
)
KINDS = ["EdgeIndex", "EdgeIndex sorted", "COO", "COO not coalesced", "CSR", "CSC"]


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("SparseTensor", marks=needs_torch_sparse)])
@pytest.mark.parametrize("options", [{}, {"send_act_last": True, "heads": 2}, {"attention": "mean"}], ids=str)
def test_every_kind_of_adjacency_gives_the_same(kind, options):
    edge_index, num_nodes = unique_edges()
    adjacency = adjacencies()[kind]
    conv = RSTGConv(4, 6, pe_channels=3, **options)
    x, pe = torch.randn(num_nodes, 2, 4), torch.randn(num_nodes, 3)
    for mask in (None, torch.rand(num_nodes, 2) < 0.7):
        given = {"pe": pe, "mask": mask}
        expected, (_, alpha) = conv(x, edge_index, **given, return_attention_weights=True)
        torch.testing.assert_close(conv(x, adjacency, **given), expected)

        out, attention = conv(x, adjacency, **given, return_attention_weights=True)
        torch.testing.assert_close(out, expected)
        if kind == "SparseTensor":
            torch.testing.assert_close(attention.storage.value(), alpha)
        else:
            torch.testing.assert_close(attention[1], alpha)
        if kind in ("COO", "COO not coalesced", "CSR", "CSC"):
            torch.testing.assert_close(attention[0].values(), alpha)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("kind", ["COO", "CSR"])
def test_values_of_a_matrix_are_edge_features_where_asked_for(kind, width):
    """Also one each, as matrices of weights have them."""
    edge_index, num_nodes = unique_edges()
    edge_attr = torch.randn(edge_index.size(1), width)
    make = {"COO": to_torch_coo_tensor, "CSR": to_torch_csr_tensor}[kind]
    adjacency = make(edge_index.flip(0), edge_attr.squeeze(1), size=(num_nodes, num_nodes))
    x = torch.randn(num_nodes, 2, 4)
    conv = RSTGConv(4, 6, edge_dim=width)
    expected = conv(x, edge_index, edge_attr=edge_attr)
    torch.testing.assert_close(conv(x, adjacency), expected)
    out, (weights, alpha) = conv(x, adjacency, return_attention_weights=True)
    torch.testing.assert_close((out, weights.values()), (expected, alpha))
    with pytest.raises(ValueError, match=rf"'edge_attr' of shape .* got \[{edge_attr.size(0)}, {width}\]"):
        RSTGConv(4, 6, edge_dim=2)(x, adjacency)
    conv = RSTGConv(4, 6)
    torch.testing.assert_close(conv(x, adjacency), conv(x, edge_index))


def test_flow_can_be_turned_round():
    edge_index, num_nodes = GRAPHS["irregular"]
    x = torch.randn(num_nodes, 4)
    conv = RSTGConv(4, 6)
    reverse = RSTGConv(4, 6, flow="target_to_source")
    reverse.load_state_dict(conv.state_dict())
    torch.testing.assert_close(reverse(x, edge_index.flip(0)), conv(x, edge_index))


def test_propagate_is_the_generated_one():
    conv = RSTGConv(4, 6)
    conv._set_jittable_templates(raise_on_error=True)
    assert conv.propagate.__module__.endswith("_propagate")
    assert conv.edge_updater.__module__.endswith("_edge_updater")


def test_attention_weights_follow_the_truth_value():
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(4, 6, heads=3)
    x = torch.randn(num_nodes, 2, 4)
    for falsy in (None, False):
        assert isinstance(conv(x, edge_index, return_attention_weights=falsy), torch.Tensor)
    out, (edges, alpha) = conv(x, edge_index, return_attention_weights=True)
    assert edges is edge_index
    assert alpha.shape == (16, 2, 3)
    total = torch.zeros(num_nodes, 2, 3).index_add(0, edge_index[1], alpha)
    torch.testing.assert_close(total, torch.ones_like(total))
    torch.testing.assert_close(out, conv(x, edge_index))


class Net(torch.nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.conv1 = RSTGConv(4, 8, heads=heads, act="elu")
        self.conv2 = RSTGConv(8, 3, attention="additive", act="elu")

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).tanh(), edge_index)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("algorithm", [AttentionExplainer(), GNNExplainer(epochs=3)], ids=["attention", "gnn"])
def test_explainers(algorithm, heads):
    edge_index, num_nodes = GRAPHS["grid"]
    explainer = Explainer(
        Net(heads),
        algorithm=algorithm,
        explanation_type="model",
        edge_mask_type="object",
        node_mask_type=None if isinstance(algorithm, AttentionExplainer) else "attributes",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(torch.randn(num_nodes, 4), edge_index)
    assert explanation.edge_mask.shape == (16,)
    assert explanation.edge_mask.max() > 0


def test_message_hooks_see_the_messages_of_the_paper():
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(4, 6)
    x = torch.randn(num_nodes, 4)
    seen = {}

    def hook(module, inputs, out):
        seen.update(alpha=inputs[0]["alpha"], out=out)

    expected = conv(x, edge_index)
    conv.register_message_forward_hook(hook)
    torch.testing.assert_close(conv(x, edge_index), expected)
    torch.testing.assert_close(seen["out"], seen["alpha"] * plain_messages(conv, x, edge_index))


def test_a_message_hook_that_mutes_an_edge_removes_it_bias_and_all():
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(4, 6, attention="mean")
    x = torch.randn(num_nodes, 4)
    conv.register_message_forward_hook(lambda module, inputs, out: out * 0)
    muted = conv(x, edge_index)
    torch.testing.assert_close(muted, conv.update_mlp(torch.cat([x, x.new_zeros(num_nodes, 6)], 1)))


@pytest.mark.parametrize(
    ("options", "backend"),
    [({}, "inductor"), ({"heads": 2, "attention": "additive"}, "aot_eager"), ({"send_act_last": True}, "aot_eager")],
    ids=str,
)
def test_compiled_equals_eager(options, backend):
    torch._dynamo.reset()
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(4, 6, pe_channels=3, **options)
    compiled = torch.compile(conv, fullgraph=True, backend=backend)
    x, pe = torch.randn(num_nodes, 2, 4, requires_grad=True), torch.randn(num_nodes, 3)
    expected = conv(x, edge_index, pe=pe)
    expected.square().sum().backward()
    gradient, x.grad = x.grad, None
    out = compiled(x, edge_index, pe=pe)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_near_float32(dtype):
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(16, 16, pe_channels=3, heads=2, norm="layer_norm", residual=True)
    x, pe = torch.randn(num_nodes, 4, 16), torch.randn(num_nodes, 3)
    with torch.autocast("cpu", dtype):
        out = conv(x, edge_index, pe=pe)
        out.sum().backward()
    torch.testing.assert_close(out.float(), conv(x, edge_index, pe=pe), atol=0.1, rtol=0.05)
    assert all(parameter.grad is not None for parameter in conv.parameters())


@withDevice
def test_devices(device):
    graph = region_graph((3, 2, 1)).to(device)
    conv = RSTGConv(8, 8, pe_channels=36).to(device)
    out = conv(torch.randn(14, 3, 8, device=device), graph.edge_index, pe=graph.heatmap)
    out.sum().backward()
    assert out.device == device


def test_width_can_follow_the_first_input():
    edge_index, num_nodes = GRAPHS["grid"]
    lazy = RSTGConv(-1, 6, pe_channels=3)
    assert repr(lazy) == "RSTGConv(-1, 6, heads=1)"
    x, pe = torch.randn(num_nodes, 2, 4), torch.randn(num_nodes, 3)
    lazy(x, edge_index, pe=pe)
    conv = RSTGConv(4, 6, pe_channels=3)
    conv.load_state_dict(lazy.state_dict())
    torch.testing.assert_close(conv(x, edge_index, pe=pe), lazy(x, edge_index, pe=pe))


def test_copies_and_checkpoints():
    edge_index, num_nodes = GRAPHS["grid"]
    conv = RSTGConv(4, 6, heads=2)
    x = torch.randn(num_nodes, 4)
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    for twin in (copy.deepcopy(conv), torch.load(file, weights_only=False)):
        torch.testing.assert_close(twin(x, edge_index), conv(x, edge_index))


def test_reset_parameters_draws_all_of_them_anew():
    conv = RSTGConv(4, 6, pe_channels=3, edge_dim=2, send_layers=4, update_layers=3, norm="layer_norm", act="prelu")
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(7.0)
    conv.reset_parameters()
    assert not any((parameter == 7.0).all() for parameter in conv.parameters())


def test_repr():
    assert repr(RSTGConv(16, 32)) == "RSTGConv(16, 32, heads=1)"
    assert repr(RSTGConv(16, 32, heads=4)) == "RSTGConv(16, 32, heads=4)"


def test_it_runs_in_a_pyg_sequential():
    graph = region_graph((2, 1))
    net = Sequential("x, edge_index", [(RSTGConv(4, 8), "x, edge_index -> x"), torch.nn.ReLU()])
    data = Data(x=torch.randn(5, 4), edge_index=graph.edge_index)
    assert net(data.x, data.edge_index).shape == (5, 8)


class Stage(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = RSTGConv(-1, 4)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def test_several_kinds_of_edges():
    """Within one type of nodes; between two it has no form, see test_errors."""
    edge_index, num_nodes = GRAPHS["grid"]
    x = {"a": torch.randn(num_nodes, 2, 4), "b": torch.randn(num_nodes, 2, 4)}
    edges = {("a", "to", "a"): edge_index, ("a", "from", "a"): edge_index.flip(0), ("b", "to", "b"): edge_index}
    for net in (HeteroConv({kind: RSTGConv(4, 4) for kind in edges}), to_hetero(Stage(), (list(x), list(edges)))):
        found = net(x, edges)
        to, back, other = (module for module in net.modules() if isinstance(module, RSTGConv))
        expected = {"a": to(x["a"], edge_index) + back(x["a"], edge_index.flip(0)), "b": other(x["b"], edge_index)}
        torch.testing.assert_close(found, expected)
