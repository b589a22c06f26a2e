"""Every backend computes what message passing computes, gradients included."""

import itertools

import pytest
import torch
from laws import assert_same_with_gradients
from small_graphs import GRAPHS, irregular_graph
from torch.func import functional_call
from torch_geometric import EdgeIndex

from rstg_pyg import RSTG, RSTGConv, RSTGToMap, RSTGToVec, region_graph
from rstg_pyg.ops import GatherSpec, GraphIndex
from rstg_pyg.ops.blocks import Blocks
from rstg_pyg.ops.native import attend as native
from rstg_pyg.ops.triton import attend as triton

OPTIONS = {
    "default": {},
    "heads": {"heads": 2},
    "additive": {"attention": "additive", "heads": 2},
    "mean": {"attention": "mean"},
    "paper": {"send_act_last": True, "update_act_last": True},
    "paper with heads": {"send_act_last": True, "heads": 2},
    "one layer": {"send_layers": 1, "update_layers": 1},
    "three layers": {"send_layers": 3, "update_layers": 3, "act": "gelu"},
    "three layers, heads": {"send_layers": 3, "heads": 2},
    "learned activation": {"act": "prelu"},
    "normed": {"norm": "layer_norm", "residual": True},
    "no bias": {"bias": False},
    "positions": {"pe_channels": 3},
    "edge features": {"edge_dim": 3},
    "edge features, paper": {"edge_dim": 3, "send_act_last": True},
    "no activation": {"act": None},
}
FAST = [
    "blocks",
    pytest.param(
        "native", marks=pytest.mark.skipif(not native.is_available(), reason="there is no C++ compiler for native code")
    ),
]
INNER = [(), (9,), (2, 5)]


@pytest.fixture
def many_blocks(monkeypatch):
    monkeypatch.setattr(Blocks.__init__, "__defaults__", (16, 32))


def layer(backend, options, channels=4):
    return RSTGConv(channels, channels, backend=backend, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("backend", FAST)
def test_every_option_equals_message_passing(backend, options):
    assert_equals_message_passing(backend, "irregular", options, (9,))


@pytest.mark.parametrize("act", [torch.nn.Softmax(1), torch.nn.LogSoftmax(2), torch.nn.PReLU(2)], ids=str)
@pytest.mark.parametrize("backend", FAST)
def test_activations_along_an_inner_dimension_equal_message_passing(backend, act):
    assert_equals_message_passing(backend, "irregular", {"act": act}, (2, 5))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("backend", FAST)
def test_every_graph_and_shape_equals_message_passing(backend, graph):
    for inner in INNER:
        assert_equals_message_passing(backend, graph, {}, inner)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_many_blocks_equal_message_passing(options, many_blocks):
    assert_equals_message_passing("blocks", "irregular", options, (9,))


def assert_equals_message_passing(backend, graph, options, inner):
    edge_index, num_nodes = GRAPHS[graph]
    conv = layer("reference", options).double()
    x = torch.randn(num_nodes, *inner, 4).double()
    pe = torch.randn(num_nodes, 3).double() if "pe_channels" in options else None
    edge_attr = torch.randn(edge_index.size(1), 3).double() if "edge_dim" in options else None

    def run(name):
        def forward(x):
            conv.backend = name
            return conv(x, edge_index, edge_attr, pe)

        return forward

    assert_same_with_gradients(run("reference"), run(backend), conv, x)


@pytest.mark.skipif(not triton.is_available(torch.device("cpu")), reason="Triton's interpreter is not on")
@pytest.mark.parametrize("options", ["default", "heads", "additive", "mean", "positions", "normed", "no bias"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_triton_equals_message_passing(graph, options):
    assert_equals_message_passing("triton", graph, OPTIONS[options], (3,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"send_act_last": True}], ids=["default", "heads", "paper"])
@pytest.mark.parametrize("backend", FAST)
def test_backends_agree_in_lower_precision_and_under_autocast(backend, options, dtype):
    edge_index = irregular_graph()
    conv = layer("reference", options, 16)
    x = torch.randn(7, 40, 16)
    results = {}
    for name in ("reference", backend):
        conv.backend = name
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = conv(x, edge_index)
        out.float().square().sum().backward()
        results[name] = (out.float(), [p.grad.clone() for p in conv.parameters()])
    tolerance = {"rtol": 0.1, "atol": 0.1} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(results[backend][0], results["reference"][0], **tolerance)
    for one, other in zip(*(result[1] for result in results.values()), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance["rtol"], atol=tolerance["atol"] * (1 + other.abs().max()))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_and_second_gradients_of_blocks(options, many_blocks):
    edge_index = irregular_graph()
    options = {**options, "act": "tanh"} if "act" not in options else options
    conv = layer("blocks", options).double()
    x = torch.randn(7, 3, 4, requires_grad=True).double()
    pe = torch.randn(7, 3).double() if "pe_channels" in options else None
    edge_attr = torch.randn(10, 3, requires_grad=True).double() if "edge_dim" in options else None
    inputs = (x,) if edge_attr is None else (x, edge_attr)

    def run(x, edge_attr=None):
        return conv(x, edge_index, edge_attr, pe)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    if options.get("act") != "prelu":
        assert torch.autograd.gradgradcheck(run, inputs, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("options", ["paper", "three layers, heads", "learned activation"])
@pytest.mark.parametrize("backend", FAST)
def test_weights_of_a_call_get_their_gradients_and_frozen_ones_none(backend, options):
    """functional_call has put the module's own weights back when the backward pass runs."""
    x, edges = torch.randn(5, 3, 4).double(), torch.randint(5, (2, 12))
    found = []
    conv = layer(backend, OPTIONS[options]).double()
    weights = {name: torch.randn_like(p) for name, p in conv.named_parameters()}
    frozen = [name for name in weights if name in ("send.lin_last.weight", "send.act.weight") or "send.lins" in name]
    for name in (backend, "reference"):
        conv.backend = name
        given = {key: value.clone().requires_grad_(key not in frozen[:1]) for key, value in weights.items()}
        functional_call(conv, given, (x, edges)).square().sum().backward()
        found.append({key: value.grad for key, value in given.items()})
    assert found[0][frozen[0]] is None
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"edge_dim": 3}], ids=["default", "heads", "edge features"])
def test_gradients_and_second_gradients_with_relu(options, many_blocks):
    conv = layer("blocks", options).double()
    x = torch.randn(7, 3, 4, requires_grad=True).double()
    edge_attr = torch.randn(10, 3).double() if "edge_dim" in options else None
    assert torch.autograd.gradcheck(lambda x: conv(x, irregular_graph(), edge_attr), x)
    assert torch.autograd.gradgradcheck(lambda x: conv(x, irregular_graph(), edge_attr), x)


@pytest.mark.parametrize("attention", ["dot", "additive", "mean"])
@pytest.mark.parametrize("backend", FAST)
def test_attention_weights_come_in_the_order_of_the_edges(backend, attention):
    edge_index = irregular_graph()
    conv = layer("reference", {"attention": attention, "heads": 2})
    x = torch.randn(7, 5, 4)
    expected, (_, expected_alpha) = conv(x, edge_index, return_attention_weights=True)
    conv.backend = backend
    out, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
    torch.testing.assert_close((out, alpha), (expected, expected_alpha.expand_as(alpha)))


@pytest.mark.parametrize(
    "form, flow",
    [
        ("edge index", "source_to_target"),
        ("edge index", "target_to_source"),
        *[(form, "source_to_target") for form in ("sorted edge index", "coo", "csr", "csc")],
    ],
)
def test_backends_take_every_form_of_edges(form, flow):
    edge_index = irregular_graph().unique(dim=1)
    conv = RSTGConv(4, 4, flow=flow)
    x = torch.randn(7, 6, 4)
    conv.backend = "reference"
    expected = conv(x, edge_index)
    if form == "sorted edge index":
        edges = EdgeIndex(edge_index.contiguous(), sparse_size=(7, 7)).sort_by("col").values
    elif form == "edge index":
        edges = edge_index
    else:
        matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (7, 7)).coalesce()
        edges = {"coo": matrix, "csr": matrix.to_sparse_csr(), "csc": matrix.to_sparse_csc()}[form]
    for backend in ("reference", "blocks"):
        conv.backend = backend
        torch.testing.assert_close(conv(x, edges), expected)


INTEGERS = [torch.int32, torch.int16, torch.int8, torch.uint8]


@pytest.mark.parametrize("form", ["tensor", "edge index", "csr", "csc"])
@pytest.mark.parametrize("backend", ["auto", "reference", *FAST])
def test_backends_take_edges_of_every_type_of_integers(backend, form):
    edge_index = irregular_graph().unique(dim=1)
    for attention in ("dot", "mean"):
        conv = RSTGConv(4, 4, backend=backend, attention=attention)
        x = torch.randn(7, 6, 4)
        expected, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
        for dtype in INTEGERS if form == "tensor" else INTEGERS[:1]:
            edges = edge_index.flip(1).contiguous().to(dtype)
            if form == "edge index":
                edges = EdgeIndex(edges, sparse_size=(7, 7))
            elif form != "tensor":
                matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (7, 7))
                matrix = matrix.to_sparse_csr()
                parts = matrix.crow_indices().to(dtype), matrix.col_indices().to(dtype), matrix.values()
                edges = torch.sparse_csr_tensor(*parts, (7, 7))
                edges = edges if form == "csr" else edges.to_sparse_csc()
            out, (_, found) = conv(x, edges, return_attention_weights=True)
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(found.sort(dim=0).values, alpha.sort(dim=0).values)


EMPTY = {
    "no frames": ((7, 0, 4), irregular_graph()),
    "no clips": ((7, 0, 3, 4), irregular_graph()),
    "no frames of clips": ((7, 2, 0, 4), irregular_graph()),
    "no nodes": ((0, 3, 4), irregular_graph()[:, :0]),
    "no edges": ((7, 3, 4), irregular_graph()[:, :0]),
}


@pytest.mark.parametrize("backend", ["auto", "reference", *FAST])
def test_backends_take_what_is_empty(backend):
    every = ({}, {"send_act_last": True}, {"attention": "mean"}, {"send_layers": 3}, {"heads": 2})
    for options, (shape, edge_index) in itertools.product(every, EMPTY.values()):
        conv = layer(backend, options)
        x = torch.randn(shape, requires_grad=True)
        out, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
        out.sum().backward()
        assert out.shape == x.shape == x.grad.shape
        assert alpha.shape == (edge_index.size(1), *shape[1:-1], conv.heads)


def test_recurrent_blocks_take_a_batch_without_clips():
    block = RSTGToVec(4, scales=(2, 1))
    assert block(torch.randn(0, 4, 3, 6, 6)).shape == (0, 4)
    assert RSTGToMap(4, scales=(2, 1))(torch.randn(0, 4, 3, 6, 6)).shape == (0, 4, 3, 6, 6)


def run_beside(run, bad):
    """Outputs and gradients of a graph, alone and in a batch with one whose first node holds ``bad``."""
    edge_index, x = irregular_graph(), torch.randn(14, 3, 4)
    x[0] = bad
    results = []
    for nodes, edges in ((x[7:], edge_index), (x, torch.cat([edge_index, edge_index + 7], dim=1))):
        inputs = nodes.clone().requires_grad_()
        out = run(inputs, edges)
        out.sum().backward()
        results.append((out.detach()[-7:], inputs.grad[-7:]))
    return results


@pytest.mark.parametrize("options", [{}, {"send_act_last": True}, {"send_layers": 3, "act": "gelu"}], ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference", *FAST])
def test_values_that_are_not_finite_stay_in_their_graph(backend, options):
    for bad in (float("nan"), float("inf")):
        alone, beside = run_beside(layer(backend, options), bad)
        assert all(value.isfinite().all() for value in alone)
        torch.testing.assert_close(beside, alone)


def test_compiled_code_keeps_nan_in_its_graph_and_refuses_nodes_that_are_not_there():
    torch._dynamo.reset()
    for backend in ("reference", "native") if native.is_available() else ("reference",):
        conv = torch.compile(layer(backend, {}), fullgraph=True, backend="aot_eager")
        alone, beside = run_beside(conv, float("nan"))
        torch.testing.assert_close(beside, alone)
        for shift in (-1, 2):
            with pytest.raises((RuntimeError, IndexError), match=r"'edge_index' (points outside|to hold nodes)"):
                conv(torch.randn(7, 3, 4), irregular_graph() + shift)


def test_exported_code_keeps_nan_in_its_graph_and_refuses_nodes_that_are_not_there():
    conv, edge_index, x = RSTGConv(4, 4), irregular_graph(), torch.randn(14, 3, 4)
    edges = torch.cat([edge_index, edge_index + 7], dim=1)
    exported = torch.export.export(conv, (x, edges)).module()
    x[0] = float("nan")
    torch.testing.assert_close(exported(x, edges)[7:], conv(x[7:], edge_index))
    for shift in (-1, 2):
        with pytest.raises((RuntimeError, IndexError), match=r"outside the nodes|out of range"):
            exported(x, edges + shift)


@pytest.mark.parametrize("attention", ["dot", "mean"])
@pytest.mark.parametrize("backend", FAST)
def test_a_seed_drops_the_same_attention_weights_on_every_backend(backend, attention):
    conv, x = layer("reference", {"dropout": 0.5, "heads": 2, "attention": attention}), torch.randn(7, 5, 4)
    results = []
    for name in ("reference", backend):
        conv.backend = name
        torch.manual_seed(0)
        results.append(conv(x, irregular_graph(), return_attention_weights=True))
    (expected, (_, expected_alpha)), (out, (_, alpha)) = results
    assert (alpha == 0).any()
    torch.testing.assert_close((out, alpha), (expected, expected_alpha.expand_as(alpha)))


def test_merged_products_of_weights_change_nothing_but_rounding():
    edge_index, x = irregular_graph(), torch.randn(7, 9, 4).double()
    conv = RSTGConv(4, 4, backend="blocks").double()
    assert conv.pair_score.merges(63) and not conv.pair_score.merges(7)
    merged = conv(x, edge_index)
    one_by_one = torch.stack([conv(frame, edge_index) for frame in x.unbind(1)], dim=1)
    torch.testing.assert_close(merged, one_by_one)


def test_hooks_on_the_layers_inside_see_their_calls():
    conv = RSTGConv(4, 4, backend="blocks")
    called = []
    inside = (conv.pair_score.lin_src, conv.send.lin_last, conv.update_mlp.lins[0])
    for module in inside:
        module.register_forward_hook(lambda *_: called.append(1))
    conv(torch.randn(7, 50, 4), irregular_graph())
    assert len(called) == 3


def test_messages_are_made_per_edge_when_somebody_looks():
    conv = RSTGConv(4, 4, backend="blocks")
    x = torch.randn(7, 50, 4)
    expected = conv(x, irregular_graph())
    seen = []
    conv.register_message_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(conv(x, irregular_graph()), expected)
    assert seen == [(10, 50, 4)]


def test_without_native_code_small_work_runs_as_message_passing_and_large_work_in_blocks(monkeypatch):
    conv, edge_index = RSTGConv(64, 64), region_graph((3, 2, 1)).edge_index
    monkeypatch.setattr(native, "is_available", lambda *_: False)
    index = GraphIndex(edge_index, 14)
    assert conv._choose_backend(GatherSpec(), torch.randn(14, 1, 64), index) == "reference"
    assert conv._choose_backend(GatherSpec(), torch.randn(14, 160, 64), index) == "blocks"
    with_product = RSTGConv(64, 64, send_act_last=True)
    assert with_product._choose_backend(GatherSpec(message="product"), torch.randn(14, 160, 64), index) == "reference"
    assert with_product._choose_backend(GatherSpec(message="product"), torch.randn(14, 1600, 64), index) == "blocks"


def test_transforms_of_functions_see_message_passing():
    conv, edge_index, x = RSTGConv(4, 4), irregular_graph(), torch.randn(6, 7, 3000, 4)
    expected = torch.stack([conv(one, edge_index) for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda x: conv(x, edge_index))(x), expected)


def test_a_backend_that_cannot_run_here_says_why(monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda *_: False)
    monkeypatch.setattr(triton, "is_available", lambda *_: False)
    x = torch.randn(7, 5, 4)
    with pytest.raises(RuntimeError, match=r"a C\+\+ compiler .* with backend='native', got torch.float32 on cpu"):
        RSTGConv(4, 4, backend="native")(x, irregular_graph())
    with pytest.raises(RuntimeError, match="CUDA device and Triton with backend='triton', got a tensor on cpu"):
        RSTGConv(4, 4, backend="triton")(x, irregular_graph())
    monkeypatch.setattr(triton, "is_available", lambda *_: True)
    with pytest.raises(RuntimeError, match="no edge features with backend='triton'"):
        RSTGConv(4, 4, edge_dim=3, backend="triton")(x, irregular_graph(), edge_attr=torch.randn(10, 3))


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"expected 'backend' to be one of .*'blocks'.* got 'fast'"):
        RSTGConv(4, 4, backend="fast")
    with pytest.raises(ValueError, match="'fast'"):
        RSTG(4, backend="fast")


@pytest.mark.parametrize("backend", FAST)
def test_recurrent_graph_is_the_same_on_every_backend(backend):
    graph = region_graph((2, 1))
    rstg = RSTG(8, num_stages=2, pe_channels=36, backend="reference").double()
    x = torch.randn(5, 3, 6, 8).double()

    def run(name):
        def forward(x):
            for stage in rstg.space_stages:
                stage.backend = name
            return rstg(x, graph.edge_index, pe=graph.heatmap.double())[0]

        return forward

    assert_same_with_gradients(run("reference"), run(backend), rstg, x)
