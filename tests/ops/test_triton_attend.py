"""The Triton kernels against the formula written with gathered edges, on CUDA or in Triton's interpreter.

Shape legend: N nodes, E edges, F frames, K heads, H hidden channels, D channels per head.
"""

import pytest
import torch
from small_graphs import GRAPHS

from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.triton.attend import attend, is_available, neighbor_softmax, pair_dot, weighted_messages

pytest.importorskip("triton")
if not is_available():
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 in the environment", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def hub_graph():
    """12 nodes of which the first has edges from and to all, itself twice."""
    others = torch.arange(12)
    return torch.stack([torch.cat([others, others * 0]), torch.cat([others * 0, others])])


GRAPHS = {**GRAPHS, "hub": (hub_graph(), 12)}


def index_of(graph):
    edge_index, num_nodes = GRAPHS[graph]
    return GraphIndex(edge_index.to(DEVICE), num_nodes)


def plain_softmax(score, graph):
    alpha = torch.zeros_like(score)
    for node in range(graph.num_nodes):
        incoming = (graph.dst == node).nonzero().squeeze(1)
        alpha = alpha.index_add(0, incoming, score[incoming].softmax(dim=0))
    return alpha


def plain_messages(src, dst, alpha, graph):
    hidden = (src[graph.src] + dst[graph.dst]).relu()
    zero = src.new_zeros(src.size(0), src.size(1), alpha.size(2), src.size(2))
    return zero.index_add(0, graph.dst, alpha.unsqueeze(-1) * hidden.unsqueeze(2))


def plain_attend(src, dst, query, key, graph):
    alpha = plain_softmax((query[graph.dst] * key[graph.src]).sum(-1), graph)
    return plain_messages(src, dst, alpha, graph), alpha


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, device=DEVICE, dtype=torch.float64).to(dtype).requires_grad_()


def draw_nodes(graph, frames, heads, hidden, channels, dtype=torch.float32):
    n = graph.num_nodes
    pairs = [(n, frames, hidden)] * 2 + [(n, frames, heads, channels)] * 2
    return [draw(*shape, dtype=dtype) for shape in pairs]


def outputs_and_grads(function, inputs, graph, seed=1):
    outputs = function(*inputs, graph)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (out.double() * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(DEVICE)).sum()
        for out in outputs
    )
    return [*outputs, *torch.autograd.grad(loss, inputs)]


def assert_equals_plain(function, plain, inputs, graph):
    dtype = inputs[0].dtype
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    ours, theirs = outputs_and_grads(function, inputs, graph), outputs_and_grads(plain, exact, graph)
    for one, other in zip(ours, theirs, strict=True):
        scale = max(other.abs().max().item(), 1.0) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=TOLERANCE[dtype] * scale)
    for tensor, grad in zip(inputs, ours[-len(inputs) :], strict=True):
        assert grad.dtype == tensor.dtype


@pytest.mark.parametrize(
    ("graph", "dtype", "heads", "hidden", "channels", "frames"),
    [
        ("irregular", torch.float32, 1, 64, 64, 3),
        ("irregular", torch.bfloat16, 1, 64, 64, 3),
        ("irregular", torch.float16, 4, 5, 2, 2),
        ("irregular", torch.float32, 4, 100, 5, 2),
        *((graph, torch.float64, 3, 5, 2, 5) for graph in GRAPHS),
        ("hub", torch.bfloat16, 4, 5, 2, 2),
    ],
    ids=str,
)
def test_attend_equals_the_formula(graph, heads, hidden, channels, frames, dtype):
    graph = index_of(graph)
    inputs = draw_nodes(graph, frames, heads, hidden, channels, dtype)
    assert_equals_plain(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize(("heads", "hidden", "channels"), [(1, 640, 1030), (2, 1024, 513)])
def test_widths_beyond_one_block(heads, hidden, channels):
    graph = index_of("irregular")
    inputs = draw_nodes(graph, 2, heads, hidden, channels)
    inputs[2] = (inputs[2].detach() / channels**0.5).requires_grad_()
    assert_equals_plain(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize(
    ("graph", "dtype"),
    [
        *(("irregular", dtype) for dtype in TOLERANCE),
        *((graph, torch.float32) for graph in GRAPHS if graph != "irregular"),
    ],
    ids=str,
)
def test_any_weights(graph, dtype):
    """Weights need not add up to 1, as under dropout."""
    graph = index_of(graph)
    src, dst = draw(graph.num_nodes, 3, 12, dtype=dtype), draw(graph.num_nodes, 3, 12, dtype=dtype)
    alpha = draw(graph.num_edges, 3, 2, dtype=torch.promote_types(dtype, torch.float32))
    assert_equals_plain(weighted_messages, plain_messages, [src, dst, alpha], graph)


def test_weights_of_one_frame_serve_all():
    graph = index_of("irregular")
    inputs = [draw(7, 4, 6), draw(7, 4, 6), draw(graph.num_edges, 1, 2)]
    assert_equals_plain(weighted_messages, plain_messages, inputs, graph)


def test_bfloat16_weights_have_bfloat16_gradients():
    graph = index_of("irregular")
    inputs = [draw(7, 4, 6, dtype=torch.bfloat16) for _ in range(2)]
    inputs.append(draw(graph.num_edges, 4, 2, dtype=torch.bfloat16))
    assert_equals_plain(weighted_messages, plain_messages, inputs, graph)


def test_scores_are_products_of_pairs():
    graph = index_of("irregular")
    query, key = draw(7, 3, 2, 9, dtype=torch.bfloat16), draw(7, 3, 2, 9, dtype=torch.bfloat16)
    assert pair_dot(query, key, graph).dtype == torch.float32

    def plain(query, key, graph):
        return (query[graph.dst] * key[graph.src]).sum(-1)

    assert_equals_plain(pair_dot, plain, [query, key], graph)


def test_softmax_of_large_scores_and_of_many_rows():
    graph = index_of("hub")
    score = (draw(graph.num_edges, 30, 5, dtype=torch.float64).detach() * 300).requires_grad_()
    assert_equals_plain(neighbor_softmax, plain_softmax, [score], graph)


def test_what_is_not_finite_shows():
    graph = index_of("hub")
    score = draw(graph.num_edges, 20, 1).detach()
    score[0], score[-13:-3] = float("-inf"), float("-inf")
    weights = neighbor_softmax(score, graph)
    assert weights[0].isnan().all() and not weights[-13:].isnan().any()
    torch.testing.assert_close(weights, plain_softmax(score, graph), equal_nan=True)

    graph = index_of("irregular")
    src, dst, alpha = draw(7, 1, 3).detach(), draw(7, 1, 3).detach(), draw(graph.num_edges, 1, 1).detach()
    src[2, 0, 1] = float("nan")
    ours, theirs = weighted_messages(src, dst, alpha, graph), plain_messages(src, dst, alpha, graph)
    assert theirs.isnan().any()
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_relu_has_no_gradient_at_zero():
    graph = index_of("irregular")
    src, dst = (torch.zeros(7, 2, 3, device=DEVICE, requires_grad=True) for _ in range(2))
    weighted_messages(src, dst, draw(graph.num_edges, 2, 1), graph).sum().backward()
    assert not src.grad.any() and not dst.grad.any()


@pytest.mark.parametrize(("nodes", "frames"), [(0, 3), (3, 0), (3, 3)])
def test_nothing_to_sum(nodes, frames):
    none = torch.empty(0, dtype=torch.long, device=DEVICE)
    graph = GraphIndex(torch.stack([none, none]), nodes)
    inputs = [draw(nodes, frames, 4), draw(nodes, frames, 4), draw(nodes, frames, 2, 5), draw(nodes, frames, 2, 5)]
    gathered, alpha = attend(*inputs, graph)
    assert gathered.shape == (nodes, frames, 2, 4) and not gathered.any()
    assert alpha.shape == (0, frames, 2)
    for grad in torch.autograd.grad(gathered.sum() + alpha.sum(), inputs):
        assert not grad.any()


def test_no_frames_of_a_graph_with_edges():
    graph = index_of("irregular")
    inputs = draw_nodes(graph, 0, 2, 4, 5)
    gathered, alpha = attend(*inputs, graph)
    assert gathered.shape == (7, 0, 2, 4) and alpha.shape == (graph.num_edges, 0, 2)
    torch.autograd.grad(gathered.sum(), inputs)


def test_inputs_need_not_be_contiguous():
    graph = index_of("irregular")
    inputs = [draw(3, 7, 8), draw(7, 3, 16), draw(2, 7, 3, 5), draw(7, 3, 5, 2)]

    def views(src, dst, query, key):
        return src.transpose(0, 1), dst[..., ::2], query.permute(1, 2, 0, 3), key.transpose(2, 3)

    def strided(*tensors):
        return attend(*views(*tensors[:-1]), tensors[-1])

    def plain(*tensors):
        return plain_attend(*views(*tensors[:-1]), tensors[-1])

    assert_equals_plain(strided, plain, inputs, graph)


def test_gradcheck():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 0, 2]], device=DEVICE)
    graph = GraphIndex(edges, 3)
    inputs = draw_nodes(graph, 2, 2, 3, 2, dtype=torch.float64)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda *tensors: attend(*tensors, graph), inputs, fast_mode=True)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="the interpreter runs one program after the other")
def test_runs_agree_bit_for_bit():
    graph = index_of("hub")
    inputs = draw_nodes(graph, 3, 2, 20, 10)
    first, second = (outputs_and_grads(attend, inputs, graph) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_only_wanted_gradients():
    graph = index_of("irregular")
    src, dst, query, key = draw_nodes(graph, 2, 1, 4, 3)
    src, query = src.detach(), query.detach()
    gathered, alpha = attend(src, dst, query, key, graph)
    theirs, their_alpha = plain_attend(src, dst, query, key, graph)
    ours = torch.autograd.grad(gathered.square().sum() + alpha[0].sum(), [dst, key])
    theirs = torch.autograd.grad(theirs.square().sum() + their_alpha[0].sum(), [dst, key])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_inference_does_not_sort_edges_by_source():
    graph = index_of("irregular")
    with torch.no_grad():
        attend(*draw_nodes(graph, 2, 1, 4, 3), graph)
    assert "by_source" not in vars(graph)


def test_wrong_shapes():
    graph = index_of("irregular")
    with pytest.raises(ValueError, match="expected 'src' with 3 dimensions and 7 rows, got"):
        weighted_messages(draw(6, 2, 4), draw(6, 2, 4), draw(graph.num_edges, 2, 1), graph)
    with pytest.raises(ValueError, match="expected 'query' and 'key' of one shape, got"):
        pair_dot(draw(7, 2, 1, 4), draw(7, 2, 1, 5), graph)
    with pytest.raises(ValueError, match=f"expected 'alpha' with 3 dimensions and {graph.num_edges} rows, got"):
        weighted_messages(draw(7, 2, 4), draw(7, 2, 4), draw(3, 2, 1), graph)
