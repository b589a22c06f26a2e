"""The Triton kernels as operators of PyTorch: schemas, compilation, what is kept and how much is launched."""

import pytest
import torch
from small_graphs import irregular_graph

from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.triton.attend import attend, is_available

triton = pytest.importorskip("triton")
if not is_available():
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 in the environment", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FRAMES, HEADS, HIDDEN, CHANNELS = 3, 2, 6, 5


@pytest.fixture
def graph():
    return GraphIndex(irregular_graph().to(DEVICE), 7)


def draw_nodes(frames=FRAMES):
    shapes = [(7, frames, HIDDEN)] * 2 + [(7, frames, HEADS, CHANNELS)] * 2
    return [torch.randn(shape, device=DEVICE, requires_grad=True) for shape in shapes]


def operator_calls(graph):
    from rstg_pyg.ops.triton import messages, scores, softmax

    src, dst, query, key = draw_nodes()
    alpha = torch.rand(graph.num_edges, FRAMES, HEADS, device=DEVICE, requires_grad=True)
    grad = torch.randn(7, FRAMES, HEADS, HIDDEN, device=DEVICE)
    plain = alpha.detach()
    edges, source_ptr = graph.by_source
    index = (graph.nodes, graph.ptr, graph.src, graph.dst, edges, source_ptr)
    return {
        "messages": (messages.messages, (src, dst, alpha, *index)),
        "destination grad": (
            messages.destination_grad,
            (grad, src.detach(), dst.detach(), plain, graph.nodes, graph.ptr, graph.src),
        ),
        "source grad": (
            messages.source_grad,
            (grad, src.detach(), dst.detach(), plain, graph.dst, edges, source_ptr),
        ),
        "pair dot": (scores.pair_dot, (query, key, *index)),
        "row sum in": (scores.row_sum, (key.detach(), plain, graph.nodes, graph.ptr, None, graph.src)),
        "row sum out": (scores.row_sum, (query.detach(), plain, None, source_ptr, edges, graph.dst)),
        "softmax": (softmax.neighbor_softmax, (alpha, graph.ptr, graph.dst)),
        "softmax grad": (softmax.neighbor_softmax_grad, (plain, plain + 1, graph.ptr)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "messages",
        "destination grad",
        "source grad",
        "pair dot",
        "row sum in",
        "row sum out",
        "softmax",
        "softmax grad",
    ],
)
def test_operator_is_well_formed(graph, name):
    operator, arguments = operator_calls(graph)[name]
    torch.library.opcheck(operator, arguments)


def test_compiled_in_one_graph(graph):
    inputs = draw_nodes()
    assert graph.by_source

    def loss(src, dst, query, key):
        gathered, alpha = attend(src, dst, query, key, graph)
        return gathered.square().sum() + alpha.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(*inputs), loss(*inputs)
    torch.testing.assert_close(ours, theirs)
    grads = torch.autograd.grad(ours, inputs)
    for one, other in zip(grads, torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_kept_for_the_backward_pass_are_inputs_and_weights(graph):
    inputs = draw_nodes()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        _, alpha = attend(*inputs, graph)
    floats = {tensor.data_ptr() for tensor in kept if tensor.is_floating_point()}
    assert floats == {tensor.data_ptr() for tensor in (*inputs, alpha)}


def test_number_of_launches_is_independent_of_frames(graph, monkeypatch):
    from rstg_pyg.ops.triton import messages, scores, softmax

    launches = []

    class Counting:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            launches.append(grid)
            return self.kernel[grid]

    for module in (messages, scores, softmax):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Counting(getattr(module, name)))

    counts = []
    for frames in (1, 18):
        launches.clear()
        gathered, _ = attend(*draw_nodes(frames), graph)
        counts.append((len(launches), gathered.sum().backward(), len(launches))[::2])
    assert counts == [(3, 8), (3, 8)]


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
def test_captured_in_a_cuda_graph(graph):
    inputs = draw_nodes()

    def grads():
        gathered, alpha = attend(*inputs, graph)
        return torch.autograd.grad(gathered.square().sum() + alpha.square().sum(), inputs)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            grads()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        replayed = grads()
    with torch.no_grad():
        for tensor in inputs:
            tensor.copy_(torch.randn_like(tensor))
    captured.replay()
    for one, other in zip(replayed, grads(), strict=True):
        assert torch.equal(one, other)
