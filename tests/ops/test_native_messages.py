"""Messages with a product per edge against the plain formula."""

from itertools import product

import pytest
import torch
from small_graphs import GRAPHS
from torch.autograd import gradcheck, gradgradcheck

from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.native import messages as module
from rstg_pyg.ops.native.attend import is_available
from rstg_pyg.ops.native.messages import plain_product_messages, product_messages

pytestmark = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 3e-2}


EDGES = (None, "constant", "per frame")


def small(name: str = "irregular") -> GraphIndex:
    edge_index, num_nodes = GRAPHS[name]
    return GraphIndex(edge_index, num_nodes)


def draw_inputs(graph, frames, hidden, outputs, heads=1, edge=None, bias=True, dtype=torch.float32) -> list:
    def draw(*shape):
        return torch.randn(shape, dtype=dtype).requires_grad_()

    edge_frames = {"constant": 1, "per frame": frames}
    return [
        draw(outputs, hidden),
        draw(outputs) if bias else None,
        draw(graph.num_nodes, frames, hidden),
        draw(graph.num_nodes, frames, hidden),
        draw(graph.num_edges, frames, heads),
        None if edge is None else draw(graph.num_edges, edge_frames[edge], hidden),
    ]


def assert_equal_with_gradients(inputs: list, graph: GraphIndex) -> None:
    tolerance = TOLERANCES[inputs[0].dtype]
    given = [value for value in inputs if value is not None]
    outs = [function(*inputs, graph) for function in (product_messages, plain_product_messages)]
    weights = torch.randn_like(outs[0])
    results = [(out, *torch.autograd.grad(out, given, weights)) for out in outs]
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() > 0 else 1.0
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.fixture(params=[1, 2])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_a_hub_of_more_edges_than_a_block_holds(monkeypatch):
    """Blocks of the nodes before it have no edges."""
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 64)
    graph = GraphIndex(torch.stack([torch.arange(1, 31), torch.zeros(30, dtype=torch.int64)]), 31)
    assert_equal_with_gradients(draw_inputs(graph, 1, 8, 12, 1, "constant"), graph)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_plain_formula(name, dtype):
    if not is_available(dtype):
        pytest.skip(f"no native kernels for {dtype}")
    graph = small(name)
    for edge, heads in product(EDGES, (1, 3)):
        assert_equal_with_gradients(draw_inputs(graph, 3, 8, 12, heads, edge, dtype=dtype), graph)


def test_bfloat16():
    """Signs of the inputs are such that no rounding decides which channels are active."""
    graph = small()
    inputs = [v.detach().abs() for v in draw_inputs(graph, 3, 16, 16, edge="constant", dtype=torch.bfloat16)]
    assert_equal_with_gradients([value.requires_grad_() for value in inputs], graph)


@pytest.mark.parametrize(("hidden", "outputs"), [(1, 1), (5, 67), (67, 5), (64, 64), (130, 18)])
def test_any_width(hidden, outputs):
    graph = small("grid")
    assert_equal_with_gradients(draw_inputs(graph, 2, hidden, outputs, bias=False), graph)


@pytest.mark.parametrize(("nodes", "edges", "frames"), [(300, 4000, 1), (300, 4000, 3), (20, 200, 30)])
@pytest.mark.parametrize("elements", [1 << 14, 1 << 18])
def test_any_block(elements, nodes, edges, frames, num_threads, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
    graph = GraphIndex(torch.stack([torch.randint(nodes, (edges,)), torch.randint(nodes - 10, (edges,))]), nodes)
    for edge in EDGES:
        assert_equal_with_gradients(draw_inputs(graph, frames, 24, 16, 2, edge), graph)


@pytest.mark.parametrize("frames", [1, 3, 7])
@pytest.mark.parametrize("elements", [1, 100, 1 << 18])
def test_blocks_cover_all_edges_and_frames_once(elements, frames, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
    graph = small()
    count = torch.zeros(graph.num_edges, frames)
    nodes = torch.zeros(graph.num_nodes, frames)
    for block in module._blocks(graph.ptr, graph.num_edges, frames, 4):
        count[slice(*block.edges), slice(*block.frames)] += 1
        nodes[slice(*block.ranks), slice(*block.frames)] += 1
    assert count.eq(1).all() and nodes.eq(1).all()


@pytest.mark.parametrize(("nodes", "frames"), [(0, 2), (3, 0)])
def test_empty(nodes, frames):
    edge_index = torch.empty(2, 0).long() if nodes == 0 else torch.tensor([[0, 1], [1, 2]])
    graph = GraphIndex(edge_index, nodes)
    assert_equal_with_gradients(draw_inputs(graph, frames, 4, 4), graph)


@pytest.mark.parametrize("wanted", range(6))
def test_one_gradient_alone(wanted):
    graph = small()
    inputs = [value.detach() for value in draw_inputs(graph, 3, 16, 8, 2, "constant")]
    inputs[wanted].requires_grad_()
    found, expected = (
        torch.autograd.grad(function(*inputs, graph).sin().sum(), inputs[wanted])
        for function in (product_messages, plain_product_messages)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_autocast_leaves_the_type_of_the_rows_alone():
    graph = small()
    inputs = draw_inputs(graph, 3, 16, 8)
    expected = product_messages(*inputs, graph)
    with torch.autocast("cpu"):
        torch.testing.assert_close(product_messages(*inputs, graph), expected)


@pytest.mark.skipif(not is_available(torch.float64), reason="no native kernels for float64")
@pytest.mark.parametrize("edge", [None, "constant"])
def test_first_and_second_derivatives(edge):
    graph = small()
    inputs = draw_inputs(graph, 2, 3, 4, 2, edge, dtype=torch.float64)
    given = [value for value in inputs if value is not None]

    def of_given(*values):
        return product_messages(*values, *([None] if edge is None else []), graph)

    assert gradcheck(of_given, given)
    assert gradgradcheck(of_given, given)
