"""What other programs see of the kernels: compilers, exports, FLOP counters."""

import subprocess
import sys

import pytest
import torch
from small_graphs import irregular_graph
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric import EdgeIndex

from rstg_pyg import RSTG, RSTGConv, RSTGToMap, RSTGToVec, TimeStage, region_graph
from rstg_pyg.ops import FrameIndex, GraphIndex, index, linear
from rstg_pyg.ops.linear import MIN_PRODUCT
from rstg_pyg.ops.native.attend import is_available

needs_compiler = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")
OPS = torch.ops.rstg_pyg


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def inputs_of(name):
    """Arguments of an operator on a graph of 7 nodes and 10 edges, over 3 frames."""
    graph = GraphIndex(irregular_graph(), 7)
    edges = (graph.nodes, graph.ptr, graph.src, graph.dst)
    halves, alpha, edge = (draw(7, 3, 4), draw(7, 3, 4)), draw(10, 3, 2), draw(10, 1, 4)
    return {
        "sort_edges": (*irregular_graph(), 7),
        "attend": (*halves, draw(7, 3, 2, 2), draw(7, 3, 2, 2), edge, *edges),
        "weighted_relu": (*halves, alpha, None, *edges),
        "product_messages": (draw(6, 4), draw(6), *halves, alpha, edge, *edges, True),
        "linear": (draw(5, 3, 4, dtype=torch.float32), draw(6, 4, dtype=torch.float32), None),
        "stages": stages_inputs(edges),
    }[name]


def stages_inputs(edges):
    """A space stage of 4 channels, an LSTM and the space stage again, without gradients."""
    one, hidden, pair, bias = torch.randn(4, 4), torch.randn(5, 4), torch.randn(3, 8), torch.randn(4)
    space = [hidden, hidden, None, None, None, one, one, torch.randn(4, 5), bias, pair, None, torch.randn(4, 3), bias]
    lstm = [torch.randn(16, 4), torch.randn(16, 4), torch.randn(16), torch.randn(16)]
    weights, forms = [*space, None, None, *lstm, bias, bias], [0, 1, 0, 2, 0, 1, 0, 1, 1, 0]
    x, state = torch.randn(7, 3, 4), torch.randn(7, 3, 4)
    return x, None, weights, [state, None], list(edges), forms, [0.0, 1e-5], [0, 1, 0], True


@needs_compiler
@pytest.mark.parametrize("name", ["sort_edges", "attend", "weighted_relu", "product_messages", "linear", "stages"])
def test_an_operator_is_what_pytorch_expects_of_one(name):
    """Its shapes without data, its gradients under compilers, its schema: PyTorch's own checks."""
    torch.library.opcheck(getattr(OPS, name).default, inputs_of(name))


@needs_compiler
@pytest.mark.parametrize(
    "options", [{}, {"send_act_last": True, "edge_dim": 2}, {"heads": 2, "attention": "mean"}], ids=str
)
def test_compiled_code_calls_the_native_kernels(options):
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    conv = RSTGConv(8, 8, backend="native", **options)
    x, edge_attr = torch.randn(7, 3, 8), torch.randn(10, 2) if "edge_dim" in options else None
    out = torch.compile(conv, fullgraph=True, backend=backend)(x, irregular_graph(), edge_attr)
    torch.testing.assert_close(out, conv(x, irregular_graph(), edge_attr))
    assert any(name.startswith("rstg_pyg") and "sort" not in name for name in seen)


@pytest.mark.parametrize("make", [RSTGToVec, RSTGToMap])
@torch._dynamo.config.patch(allow_rnn=True)
@torch.no_grad()
def test_a_whole_block_and_its_step_compile_in_one_graph(make):
    torch._dynamo.reset()
    block, clip = make(4, scales=(2, 1), num_stages=1), torch.randn(1, 4, 2, 6, 6)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="aot_eager")(clip), block(clip))
    step, state = torch.compile(block.step, fullgraph=True, backend="aot_eager"), None
    for t in range(2):
        out, state = step(clip[:, :, t], state)
    torch.testing.assert_close(out, block(clip) if make is RSTGToVec else block(clip)[:, :, -1])


class Step(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, frame, state):
        return self.block.step(frame, state)


def test_an_exported_step_gives_the_same_numbers_where_the_package_is_not(tmp_path):
    block, frames = RSTGToVec(4, scales=(2, 1)).eval(), torch.randn(3, 1, 4, 6, 6)
    with torch.no_grad():
        _, state = block.step(frames[0])
        program = torch.export.export(Step(block), (frames[1], state))
        expected = block.step(frames[2], state)
    torch.export.save(program, tmp_path / "step.pt2")
    torch.save((frames[2], state, expected), tmp_path / "numbers.pt")
    code = (
        "import sys, torch; sys.modules['rstg_pyg'] = None\n"
        "frame, state, expected = torch.load('numbers.pt')\n"
        "torch.testing.assert_close(torch.export.load('step.pt2').module()(frame, state), expected)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_flop_counters_count_the_products_of_the_kernels():
    weight, bias, *rest = inputs_of("product_messages")
    with FlopCounterMode(display=False) as counter:
        out, _ = OPS.product_messages(weight, bias, *rest)
        once = counter.get_total_flops()
        out.sum().backward()
    edges, frames, (outputs, hidden) = 10, 3, weight.shape
    assert once == 2 * edges * frames * outputs * hidden
    assert counter.get_total_flops() == 3 * once
    x, weight = torch.randn(MIN_PRODUCT >> 12, 64), torch.randn(64, 64)
    with FlopCounterMode(display=False) as counter:
        OPS.linear(x, weight, None)
    assert counter.get_total_flops() == 2 * x.numel() * 64
    torch.testing.assert_close(OPS.linear(x, weight, None), linear(x, weight))


@pytest.fixture
def sorts(monkeypatch):
    """How often edges are sorted."""
    calls, sort = [], index._sort_edges
    monkeypatch.setattr(index, "_sort_edges", lambda *edges: calls.append(1) or sort(*edges))
    return calls


@pytest.mark.parametrize("stages", ["all-temp", "homogeneous"])
def test_a_recurrence_sorts_its_edges_once(stages, sorts):
    graph = region_graph((2, 1))
    rstg = RSTG(4, num_stages=3, stages=stages, share_space=False, backend="blocks")
    rstg(torch.randn(5, 3, 4), graph.edge_index)
    assert len(sorts) == 1


def test_an_edge_index_is_sorted_once_in_its_life(sorts):
    edges = EdgeIndex(irregular_graph(), sparse_size=(7, 7))
    conv = RSTGConv(4, 4, backend="blocks")
    x = torch.randn(7, 3, 4)
    expected = conv(x, irregular_graph())
    sorts.clear()
    for _ in range(3):
        torch.testing.assert_close(conv(x, edges), expected)
    assert len(sorts) == 1


def test_an_edge_index_that_changed_is_sorted_again(sorts):
    conv, x = RSTGConv(4, 4, backend="blocks"), torch.randn(7, 3, 4)
    edges = EdgeIndex(irregular_graph(), sparse_size=(7, 7))
    conv(x, edges)
    edges.as_tensor()[1, 0] = 6
    torch.testing.assert_close(conv(x, edges), conv(x, edges.as_tensor().clone()))
    assert len(sorts) == 3
    with torch.inference_mode():  # whose tensors do not tell of changes
        edges = EdgeIndex(irregular_graph().clone(), sparse_size=(7, 7))
        torch.testing.assert_close(conv(x, edges), conv(x, irregular_graph()))


@pytest.mark.parametrize("backend", ["auto", "blocks"])
def test_what_is_first_used_in_inference_mode_can_be_trained_with(backend):
    conv, stage, x = RSTGConv(4, 4, backend=backend), TimeStage(4), torch.randn(7, 3, 4)
    graph, frames = GraphIndex(irregular_graph(), 7), FrameIndex((7, 3), mask=torch.arange(21).view(7, 3) % 2 == 0)
    with torch.inference_mode():
        conv(x, graph)
        stage(frames.take(x), mask=frames)
    conv(x, graph).sum().backward()
    stage(frames.take(x), mask=frames)[0].sum().backward()


@pytest.mark.parametrize("backend", ["auto", "reference", "blocks"])
def test_an_index_takes_the_place_of_edges(backend):
    graph, x = GraphIndex(irregular_graph(), 7), torch.randn(7, 3, 4)
    conv, rstg = RSTGConv(4, 4, backend=backend), RSTG(4, backend=backend)
    torch.testing.assert_close(conv(x, graph), conv(x, irregular_graph()))
    torch.testing.assert_close(rstg(x, graph)[0], rstg(x, irregular_graph())[0])
    with pytest.raises(ValueError, match="expected an index of 6 nodes, as 'x' has, got one of 7"):
        conv(x[:6], graph)
    with pytest.raises(ValueError, match="flow='target_to_source', got 'source_to_target'"):
        RSTGConv(4, 4, flow="target_to_source", backend=backend)(x, graph)
