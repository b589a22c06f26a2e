"""The native kernels against the plain formulas.

Shape legend: N nodes, E edges, F frames, H hidden channels, K heads of D channels.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from small_graphs import GRAPHS, irregular_graph
from torch.autograd import gradcheck, gradgradcheck

from rstg_pyg import region_graph
from rstg_pyg.ops import GraphIndex
from rstg_pyg.ops.native import build
from rstg_pyg.ops.native.attend import attend, attention_weights, is_available, weighted_relu
from rstg_pyg.ops.plain import plain_attend, plain_messages, relu_message

pytestmark = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def index_of(edge_index: torch.Tensor, num_nodes: int) -> GraphIndex:
    return GraphIndex(edge_index, num_nodes)


def small(name: str = "irregular") -> GraphIndex:
    return index_of(*GRAPHS[name])


def large() -> GraphIndex:
    """Enough work for a second thread even in one frame."""
    return index_of(torch.randint(150, (2, 1500)), 150)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


def attend_inputs(graph, frames, hidden, heads=1, width=None, edge=None, dtype=torch.float32) -> list:
    """Arguments of ``attend`` but for the graph; ``edge`` is None, "constant" or "per frame"."""
    nodes, width = (graph.num_nodes, frames), hidden if width is None else width
    inputs = [draw(*nodes, hidden, dtype=dtype) for _ in range(2)]
    inputs += [draw(*nodes, heads, width, dtype=dtype) for _ in range(2)]
    edge_frames = {"constant": 1, "per frame": frames}
    return [*inputs, None if edge is None else draw(graph.num_edges, edge_frames[edge], hidden, dtype=dtype)]


def relu_inputs(graph, frames, hidden, heads=1, edge=None, dtype=torch.float32) -> list:
    src, dst, _, _, edge = attend_inputs(graph, frames, hidden, heads, 1, edge, dtype)
    return [src, dst, draw(graph.num_edges, frames, heads, dtype=dtype), edge]


def assert_equal_with_gradients(native: Callable, plain: Callable, inputs: list, graph: GraphIndex) -> None:
    """Low-precision inputs are held against the plain formula in float32."""
    dtype = inputs[0].dtype
    exact = [None if v is None else v.detach().to(torch.promote_types(dtype, torch.float32)) for v in inputs]
    exact = [None if v is None else v.requires_grad_() for v in exact]
    results = [out if isinstance(out, tuple) else (out,) for out in (native(*inputs, graph), plain(*exact, graph))]
    weights = [torch.randn_like(out).to(dtype) for out in results[1]]
    gradients = []
    for outs, leaves in zip(results, (inputs, exact), strict=True):
        leaves = [leaf for leaf in leaves if leaf is not None]
        found = torch.autograd.grad(outs, leaves, [w.to(o.dtype) for w, o in zip(weights, outs, strict=True)])
        assert all(grad.dtype == leaf.dtype for grad, leaf in zip(found, leaves, strict=True))
        gradients.append(found)
    for actual, expected in zip(results[0] + gradients[0], results[1] + gradients[1], strict=True):
        scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() > 0 else 1.0
        torch.testing.assert_close(
            actual.to(expected.dtype), expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * scale
        )


EDGES = (None, "constant", "per frame")


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_plain_formula(name, dtype):
    if not is_available(dtype):
        pytest.skip(f"no native kernels for {dtype}")
    graph = small(name)
    for edge, heads in product(EDGES, (1, 3)):
        inputs = attend_inputs(graph, frames=3, hidden=8, heads=heads, width=4, edge=edge, dtype=dtype)
        assert_equal_with_gradients(attend, plain_attend, inputs, graph)
        inputs = relu_inputs(graph, frames=3, hidden=8, heads=heads, edge=edge, dtype=dtype)
        assert_equal_with_gradients(weighted_relu, partial(plain_messages, relu_message), inputs, graph)


@pytest.mark.parametrize("hidden", [1, 5, 16, 64, 67, 130])
def test_any_width(hidden):
    graph = small("grid")
    for width in (1, 5, 64, 67):
        inputs = attend_inputs(graph, 2, hidden, heads=2, width=width, edge="per frame")
        assert_equal_with_gradients(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize(("frames", "heads"), [(1, 1), (1, 20), (3, 1), (3, 5), (33, 1)])
def test_any_number_of_threads(frames, heads, num_threads):
    graph = large()
    for edge, (hidden, width) in product(EDGES, ((20, 6), (80, 16))):
        with threads(num_threads):
            inputs = attend_inputs(graph, frames, hidden, heads, width, edge)
            assert_equal_with_gradients(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("frames", [16, 17, 40])
def test_frames_shared_by_threads(frames, num_threads):
    data = region_graph((3, 2, 1))
    graph = index_of(data.edge_index, data.num_nodes)
    with threads(num_threads):
        assert_equal_with_gradients(attend, plain_attend, attend_inputs(graph, frames, 64), graph)
        assert_equal_with_gradients(
            weighted_relu, partial(plain_messages, relu_message), relu_inputs(graph, frames, 64), graph
        )


@pytest.mark.parametrize("frames", [1, 9])
def test_bfloat16_with_threads(frames):
    graph = large()
    with threads(2):
        inputs = attend_inputs(graph, frames, 24, 2, 8, "constant", torch.bfloat16)
        assert_equal_with_gradients(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize("frames", [1, 9])
def test_results_do_not_depend_on_timing(frames):
    graph = large()
    inputs = attend_inputs(graph, frames, 32, edge="constant")
    with threads(2):
        runs = [torch.autograd.grad(attend(*inputs, graph)[0].sin().sum(), inputs) for _ in range(3)]
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize(("nodes", "frames", "hidden"), [(0, 2, 4), (3, 0, 4), (3, 2, 0)])
def test_empty(nodes, frames, hidden):
    edge_index = torch.empty(2, 0).long() if nodes == 0 else torch.tensor([[0, 1], [1, 2]])
    graph = index_of(edge_index, nodes)
    inputs = attend_inputs(graph, frames, hidden, width=2)
    assert_equal_with_gradients(attend, plain_attend, inputs, graph)


@pytest.mark.parametrize("wanted", range(5))
def test_one_gradient_alone(wanted):
    for graph, frames in ((small(), 3), (large(), 1)):
        inputs = [value.detach() for value in attend_inputs(graph, frames, 16, 2, 4, "constant")]
        inputs[wanted].requires_grad_()
        with threads(2):
            found = torch.autograd.grad(attend(*inputs, graph)[0].sin().sum(), inputs[wanted])
        expected = torch.autograd.grad(plain_attend(*inputs, graph)[0].sin().sum(), inputs[wanted])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_alone():
    graph = small()
    inputs = attend_inputs(graph, 3, 16, 2, 4)
    expected = plain_attend(*inputs, graph)[1]
    expected_gradients = torch.autograd.grad(expected.sin().sum(), inputs[2:4])
    for alpha in (attend(*inputs, graph)[1], attention_weights(*inputs[2:4], graph)):
        torch.testing.assert_close(alpha, expected)
        found = torch.autograd.grad(alpha.sin().sum(), inputs[2:4])
        torch.testing.assert_close(found, expected_gradients, rtol=1e-4, atol=1e-5)


def test_slices_of_one_tensor():
    graph = small()
    merged = draw(7, 3, 64)
    src, dst, query, key = merged.split(16, dim=-1)
    inputs = (src, dst, query.unflatten(-1, (2, 8)), key.unflatten(-1, (2, 8)), None)
    out, alpha = attend(*inputs, graph)
    expected, expected_alpha = plain_attend(*inputs, graph)
    torch.testing.assert_close((out, alpha), (expected, expected_alpha))
    found, wanted = (torch.autograd.grad(value.sin().sum(), merged)[0] for value in (out, expected))
    torch.testing.assert_close(found, wanted)


def test_weights_expanded_over_frames_and_heads():
    graph = small()
    src, dst, _, _ = relu_inputs(graph, 4, 8)
    alpha = draw(graph.num_edges, 1, 1)
    found = weighted_relu(src, dst, alpha.expand(-1, 4, 2), None, graph)
    torch.testing.assert_close(found, plain_messages(relu_message, src, dst, alpha.expand(-1, 4, 2), None, graph))


def test_large_scores_and_not_a_number():
    graph = small()
    src, dst, query, key, _ = (None if v is None else v.detach() for v in attend_inputs(graph, 2, 8))
    expected = plain_attend(src, dst, 1000 * query, key, None, graph)
    torch.testing.assert_close(attend(src, dst, 1000 * query, key, None, graph), expected)
    src[2, 1, 3] = query[4, 0] = float("nan")
    expected = plain_attend(src, dst, query, key, None, graph)
    torch.testing.assert_close(attend(src, dst, query, key, None, graph), expected, equal_nan=True)


def test_an_edge_from_nowhere_is_an_error():
    graph = index_of(torch.tensor([[0, 9], [1, 2]]), 3)
    inputs = [draw(3, 1, 4), draw(3, 1, 4), draw(2, 1, 1), None]
    with pytest.raises(IndexError, match="hold nodes from 0 to 2, got 9"):
        weighted_relu(*inputs, graph)


@pytest.mark.parametrize("wrong", range(5))
def test_shapes_and_types_that_do_not_fit_are_errors(wrong):
    graph = small()
    inputs = attend_inputs(graph, 3, 8, 2, 4, "per frame")
    name = ("src", "dst", "query", "key", "edge")[wrong]
    shorter = [value[:-1] if index == wrong else value for index, value in enumerate(inputs)]
    with pytest.raises(ValueError, match=f"expected '{name}'"):
        attend(*shorter, graph)
    if wrong > 0:
        with pytest.raises(ValueError, match=f"expected '{name}'"):
            attend(*(value.double() if index == wrong else value for index, value in enumerate(inputs)), graph)
    with pytest.raises(ValueError, match="expected 'alpha'"):
        weighted_relu(*inputs[:2], draw(graph.num_edges, 2, 1), None, graph)


@pytest.mark.skipif(not is_available(torch.float64), reason="no native kernels for float64")
@pytest.mark.parametrize("edge", [None, "constant"])
def test_first_and_second_derivatives(edge):
    graph = index_of(irregular_graph(), 7)
    attended = attend_inputs(graph, 2, 3, 2, 2, edge, torch.float64)
    weighted = relu_inputs(graph, 2, 3, 2, edge, torch.float64)
    for function, inputs in ((attend, attended), (weighted_relu, weighted)):
        given = [value for value in inputs if value is not None]

        def of_given(*values, function=function):
            return function(*values, *([None] if edge is None else []), graph)

        assert gradcheck(of_given, given)
        assert gradgradcheck(of_given, given)


def run_with_limit(*arguments: str, seconds: int = 120) -> str:
    """The output of a Python process that must end well in time. Threads wait asleep, for there may be few cores."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_thread_waits_for_ever():
    run_with_limit(str(Path(__file__).with_name("sweep_native.py")), "--telling")


FRAMES_OF_TEAMS = """
#include "teams.h"
struct Nothing { explicit Nothing(int) {} };
int main() {
    const int64_t first = int64_t(1) << 31, end = (int64_t(1) << 33) + 40;
    for (int threads : {1, 2, 5}) {
        int64_t count = 0;
        on_teams<Nothing>(0, threads, first, end, [&](const Team& team, Nothing&) {
#pragma omp atomic
            count += team.end_frame - team.first_frame;
        });
        if (count != end - first) return 1;
    }
}
"""


def test_more_frames_than_32_bits_count(tmp_path):
    """Tensors of so many frames would fill most machines, so this asks who would take which frames."""
    (tmp_path / "frames.cpp").write_text(FRAMES_OF_TEAMS)
    compiler, program = build._find_compiler(), str(tmp_path / "frames")
    sources = ["-I", str(Path(build.__file__).parent), str(tmp_path / "frames.cpp")]
    subprocess.run([*compiler, "-std=c++17", "-fopenmp", *sources, "-o", program], timeout=60, check=True)
    subprocess.run([program], timeout=60, check=True)


OUT_OF_MEMORY = """
import resource, torch
from rstg_pyg.ops.native.attend import weighted_relu
from rstg_pyg.ops import GraphIndex

torch.set_num_threads(2)
for num_nodes in (1 << 16, 1 << 20):  # the small graph starts the threads
    nodes, rows = torch.arange(num_nodes), torch.zeros(num_nodes, 2, 1)
    graph = GraphIndex(torch.stack([nodes, nodes]), num_nodes)
    if num_nodes == 1 << 20:
        limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (48 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        weighted_relu(rows, rows, rows, None, graph)
    except MemoryError as error:
        print(num_nodes, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_thread_that_runs_out_of_memory():
    """The sums take 8 MiB, but either thread wants 64 MiB or more to work in."""
    assert run_with_limit("-c", OUT_OF_MEMORY) == f"{1 << 20} the native kernels ran out of memory\n"
